"""The detector: propose, score, calibrate, threshold and suppress."""
