"""Pixels: fields, candidates and patches. NumPy and OpenCV, no torch."""
