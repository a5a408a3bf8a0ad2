"""Tensors: networks, batches, the training loop and scores. Torch; no DVC, no MLflow, no OpenCV."""
