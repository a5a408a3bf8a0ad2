"""Test a detector in whole fields with annotated mitoses: what it was tested on, what it found, and its scores."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import pandas as pd

from mitoscope.datasets.fields import FieldOfView
from mitoscope.detection.detector import Detector
from mitoscope.detection.stored import StoredFields
from mitoscope.evaluation.fields import count_fields, reach, score_domains, score_fields, without_undefined
from mitoscope.evaluation.metrics import froc
from mitoscope.learning.scoring import OnBatch
from mitoscope.params import Evaluate


class FieldScores(NamedTuple):
    """The scores of a detector in whole fields, and the tables behind them.

    Attributes:
        metrics: as in metrics.json; without recall and F1 if there are no mitoses.
        intervals: the 95 % intervals by patient, under the same names.
        objects: the table of `evaluation.matching.find_objects`, with `predicted` 1 from the detector's threshold on.
        fields: the table of `evaluation.fields.count_fields`.
        froc: the curve of `evaluation.metrics.froc`.
    """

    metrics: dict[str, Any]
    intervals: dict[str, Any]
    objects: pd.DataFrame
    fields: pd.DataFrame
    froc: pd.DataFrame


def score_whole_fields(
    detector: Detector, stored: StoredFields, settings: Evaluate, on_batch: OnBatch | None = None
) -> FieldScores:
    """Score a detector in whole fields by the MIDOG rule, at its own threshold.

    Args:
        detector: the detector, on the device to use.
        stored: the fields, with all candidates of the detector.
        settings: number of resamples and seed of the intervals.
        on_batch: called with the number of candidates done and the total.
    """
    threshold = detector.threshold
    probabilities = detector.score(stored.windows, stored.field, on_batch)
    objects = stored.objects(probabilities, detector.detection.suppress_um)
    objects["predicted"] = (objects.probability >= threshold).astype(int)
    fields = count_fields(objects, stored.areas_mm2, stored.domains)
    metrics, intervals = score_fields(objects, fields, threshold, settings)
    metrics = without_undefined(metrics)
    metrics["domains"], intervals["domains"] = score_domains(objects, fields, threshold, settings)
    if len(stored.truths):
        metrics["reachable"] = reach(stored.candidates, stored.truths, stored.microns_per_pixel)
    curve = pd.DataFrame(froc(objects.label.to_numpy(), objects.probability.to_numpy(), metrics["area_mm2"]))
    return FieldScores(metrics, intervals, objects, fields, curve)


def describe_test_set(fields: Sequence[FieldOfView], stored: StoredFields, digest: str) -> dict[str, Any]:
    """Describe a test set: patients, fields, pixel hashes, and a SHA-256 of everything in it that scores depend on.

    Args:
        fields: the tested fields.
        stored: the same fields with their mitoses.
        digest: DVC's hash of the dataset.
    """
    content = hashlib.sha256(stored.truths[["patient", "field", "row", "col"]].to_csv(index=False).encode())
    content.update(json.dumps([stored.images, stored.microns_per_pixel], sort_keys=True).encode())
    for field in fields:
        mask = field.mask("cmask")
        content.update(hashlib.sha256(mask.read_bytes() if mask.exists() else b"").digest())
    return {
        "digest": content.hexdigest(),
        "dataset_digest": digest,
        "patients": sorted(stored.images),
        "fields": [field.name for field in fields],
        "images": stored.images,
    }
