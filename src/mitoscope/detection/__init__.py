"""The detector: propose, score, calibrate, threshold, suppress."""
