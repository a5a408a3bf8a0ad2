"""The detector behind MLflow."""
