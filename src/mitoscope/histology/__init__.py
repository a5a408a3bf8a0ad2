"""Pixels: fields, candidates and patches. Uses NumPy and OpenCV, not torch."""
