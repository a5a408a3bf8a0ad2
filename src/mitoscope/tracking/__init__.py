"""MLflow: where runs are stored and what they hold."""
