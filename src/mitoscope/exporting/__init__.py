"""Detectors for programs without torch."""
