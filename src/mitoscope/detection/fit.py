"""Fit a detector around a trained network: field head or calibration, and then the threshold.

With few patients, a threshold from one or two validation patients is largely chance, and the field head does not learn
from them. With inner folds it learns from all but the test patients, and the threshold is chosen on the scores of
further heads, each fitted without the patients that it scores.
"""

import math
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import NamedTuple

import numpy as np
import pandas as pd

from mitoscope.detection.calibration import Calibration
from mitoscope.detection.detector import Detector
from mitoscope.detection.field_head import Features, FieldHead, Integers, Probabilities
from mitoscope.detection.origin import Origin
from mitoscope.detection.stored import StoredFields
from mitoscope.evaluation.metrics import best_threshold
from mitoscope.learning.batches import PatchSet, Windows
from mitoscope.learning.devices import Device
from mitoscope.learning.features import pool_cached
from mitoscope.learning.networks import PatchNetwork
from mitoscope.learning.scoring import OnBatch, pool_patches
from mitoscope.params import Detection, Extract

_ROWS = 4096  # that are copied at once

Show = Callable[[str, int, int], None]
"""Called with a label, the amount done and the total."""


class InnerFolds(NamedTuple):
    """Which head scores what: a head learns from the samples of all other folds, and scores its fold's candidates.

    Attributes:
        samples: (M,) fold of each sample.
        candidates: (N,) fold of each candidate.
    """

    samples: Integers
    candidates: Integers


def fit_detector(
    model: PatchNetwork,
    samples: PatchSet,
    fields: StoredFields,
    *,
    inner: InnerFolds | None,
    extract: Extract,
    detection: Detection,
    patch_threshold: float,
    origin: Origin,
    device: Device,
    cache: Path | None,
    work: Path,
    show: Show,
) -> tuple[Detector, pd.DataFrame]:
    """Fit a field head to samples, or a calibration to whole fields, and the threshold to whole fields.

    Args:
        model: the trained network.
        samples: samples of the training patients, for the field head; with inner folds also of those that validate.
        fields: all candidates of the validation patients' fields, with at least one mitosis; with inner folds also of
            the training patients' fields.
        inner: folds of both, for a field head; None = the patients of `samples` and `fields` differ.
        extract: how the patches were cut from the fields.
        detection: how candidates are scored.
        patch_threshold: threshold of single patches.
        origin: the detector's training, dataset and patients.
        device: where to compute.
        cache: folder with the features of a frozen network, which is filled further; None = nothing is kept.
        work: folder for temporary files with features.
        show: called with the progress.

    Returns:
        The detector, with its network on the CPU; and the detections and missed mitoses in `fields` with their
        probabilities, as the table of `evaluation.matching.find_objects`.
    """
    model.to(device.torch)

    def pool(windows: Windows, label: str) -> Features:
        features = _on_disk((len(windows), model.pooled.channels), work)
        shown = partial(show, f"{origin.network} {label}")
        if cache is None:
            pool_patches(model, windows, device, views=detection.views, out=features, on_batch=shown)
        else:
            pool_cached(model, windows, device, views=detection.views, cache=cache, out=features, on_batch=shown)
        return features

    head: FieldHead | None = None
    probabilities: Probabilities | None = None
    if detection.refit_fields:
        features = pool(samples.windows, "training features")
        if inner is not None:
            candidates = pool(fields.windows, "candidates' features")
            shown = partial(show, f"{origin.network} inner folds")
            probabilities = _score_held_out(features, samples, candidates, fields, inner, detection, work, shown)
            del candidates
        head = FieldHead.fit(features, samples.windows.store, samples.labels, detection.field_head)
        del features
    raw = Detector(model, extract, detection, head, None, threshold=0.5, patch_threshold=patch_threshold, origin=origin)
    if probabilities is None:
        probabilities = raw.score(fields.windows, fields.field, partial(show, f"{origin.network} validation fields"))
    calibration = None
    if head is None:
        by_field = [probabilities[fields.field == number] for number in np.unique(fields.field)]
        calibration = Calibration.fit(by_field, detection.calibration)
        probabilities = calibration.apply_by_field(probabilities, fields.field)
    objects = fields.objects(probabilities, detection.suppress_um)
    threshold, _ = best_threshold(objects.label.to_numpy(), objects.probability.to_numpy())
    return replace(raw, calibration=calibration, threshold=threshold, model=model.cpu()), objects


def _score_held_out(
    features: Features,
    samples: PatchSet,
    candidates: Features,
    fields: StoredFields,
    inner: InnerFolds,
    detection: Detection,
    work: Path,
    on_fold: OnBatch,
) -> Probabilities:
    """Return the (N,) probabilities of the candidates, each by a head that was fitted without its patient.

    Args:
        features: (M, C) features of the samples.
        samples: the samples.
        candidates: (N, C) features of the candidates.
        fields: the candidates' fields.
        inner: folds of both.
        detection: settings of the heads.
        work: folder for a temporary file.
        on_fold: called with the number of folds done and the total.
    """
    probabilities = np.zeros(len(candidates))
    folds = np.unique(inner.candidates)
    for done, fold in enumerate(folds):
        on_fold(done, len(folds))
        others = np.flatnonzero(inner.samples != fold)
        learnt = _on_disk((len(others), features.shape[1]), work)
        for start in range(0, len(others), _ROWS):
            learnt[start : start + _ROWS] = features[others[start : start + _ROWS]]
        head = FieldHead.fit(learnt, samples.windows.store[others], samples.labels[others], detection.field_head)
        for number in np.unique(fields.field[inner.candidates == fold]):
            inside = fields.field == number
            probabilities[inside] = head.probabilities(candidates[inside])
        del learnt  # before the next one is created: with a large store they are large files
    on_fold(len(folds), len(folds))
    return probabilities


def _on_disk(shape: tuple[int, int], folder: Path) -> Features:
    """Return a float32 array in a temporary file, which the system removes with the array.

    Raises:
        OSError: the disk is too full. Without reserving the room, the system would kill the process at a later write.
    """
    with TemporaryFile(dir=folder) as file:
        if hasattr(os, "posix_fallocate"):  # macOS lacks it
            os.posix_fallocate(file.fileno(), 0, math.prod(shape) * np.dtype(np.float32).itemsize)
        return np.memmap(file, np.float32, "w+", shape=shape)
