"""Tensors: networks, batches, the training loop and scores. Uses torch, but not DVC, MLflow or OpenCV."""
