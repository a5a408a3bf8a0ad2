"""Serve a detector through MLflow."""
