"""Fit a detector around a trained network: field head, calibration and threshold, in this order."""

import math
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
import numpy.typing as npt
import pandas as pd

from mitoscope.detection.calibration import Calibration
from mitoscope.detection.detector import Detector
from mitoscope.detection.field_head import FieldHead
from mitoscope.detection.origin import Origin
from mitoscope.detection.stored import StoredFields
from mitoscope.evaluation.metrics import best_threshold
from mitoscope.learning.batches import PatchSet
from mitoscope.learning.devices import Device
from mitoscope.learning.networks import PatchNetwork
from mitoscope.learning.scoring import pool_patches
from mitoscope.params import Detection, Extract

Show = Callable[[str, int, int], None]
"""Called with a label, the amount done and the total."""


def fit_detector(
    model: PatchNetwork,
    training: PatchSet,
    validation: StoredFields,
    *,
    extract: Extract,
    detection: Detection,
    patch_threshold: float,
    origin: Origin,
    device: Device,
    work: Path,
    show: Show,
) -> tuple[Detector, pd.DataFrame]:
    """Fit the field head to the training patches, and calibration and threshold to the validation patients' fields.

    Args:
        model: the trained network.
        training: patches of the training patients, for the field head.
        validation: all candidates of the validation patients' fields, with at least one mitosis.
        extract: how the patches were cut from the fields.
        detection: how candidates are scored.
        patch_threshold: threshold of single patches.
        origin: the detector's training, dataset and patients.
        device: where to compute.
        work: folder for a temporary file with the features of the training patches.
        show: called with the progress.

    Returns:
        The detector, with its network on the CPU; and the validation patients' detections and missed mitoses with their
        probabilities, as the table of `evaluation.matching.find_objects`.
    """
    model.to(device.torch)
    head = None
    if detection.refit_fields:
        features = _on_disk((len(training), model.pooled.channels), work)
        shown = partial(show, f"{origin.network} training features")
        pool_patches(model, training.windows, device, views=detection.views, out=features, on_batch=shown)
        head = FieldHead.fit(features, training.windows.store, training.labels, detection.field_head)
        del features
    raw = Detector(model, extract, detection, head, None, threshold=0.5, patch_threshold=patch_threshold, origin=origin)
    probabilities = raw.score(
        validation.windows, validation.field, partial(show, f"{origin.network} validation fields")
    )
    calibration = None
    if detection.calibrate_fields:
        fields = [probabilities[validation.field == number] for number in np.unique(validation.field)]
        calibration = Calibration.fit(fields, detection.calibration)
        probabilities = calibration.apply_by_field(probabilities, validation.field)
    objects = validation.objects(probabilities, detection.suppress_um)
    threshold, _ = best_threshold(objects.label.to_numpy(), objects.probability.to_numpy())
    return replace(raw, calibration=calibration, threshold=threshold, model=model.cpu()), objects


def _on_disk(shape: tuple[int, int], folder: Path) -> npt.NDArray[np.float32]:
    """Return a float32 array in a temporary file, which the system removes with the array.

    Raises:
        OSError: the disk is too full. Without reserving the room, the system would kill the process at a later write.
    """
    with TemporaryFile(dir=folder) as file:
        if hasattr(os, "posix_fallocate"):  # macOS lacks it
            os.posix_fallocate(file.fileno(), 0, math.prod(shape) * np.dtype(np.float32).itemsize)
        return np.memmap(file, np.float32, "w+", shape=shape)
