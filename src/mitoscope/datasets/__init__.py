"""Datasets on disk: images, fields, annotations, importers, the patch store and the synthetic sample."""
