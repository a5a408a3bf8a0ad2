"""MLflow: the store, its runs and the model registry."""
