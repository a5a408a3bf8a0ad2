"""What a dataset is on the disk: images, fields, annotations, importers, the patch store, the drawn sample."""
