"""Scores of patches and of detected objects: every metric is one registered function.

To add one, write it here and register it at its level, or at both:

    @metric("patches", "fields")
    def youden(labels, probabilities, threshold, area_mm2): ...

It then stands in metrics.json and in the run, and its 95 % interval in intervals.json.

Objects come as `evaluation.matching.find_objects` gives them: one row per detection, and one with probability 0 per
mitosis that no detection reaches, which is why nothing of probability 0 counts as found at any threshold.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

Labels = npt.NDArray[np.int64]
Probabilities = npt.NDArray[np.float64]
Level = Literal["patches", "fields"]
Metric = Callable[[Labels, Probabilities, float, float | None], float | None]
"""Called with (N,) labels 0 and 1, (N,) probabilities, the threshold (> 0) from which on a probability means mitosis,
and the area of the fields in mm2 (None where it is not known, as for patches). None means undefined."""


class _Registered(NamedTuple):
    function: Metric
    ranks: bool


_METRICS: dict[Level, dict[str, _Registered]] = {"patches": {}, "fields": {}}


def metric(*levels: Level, name: str | None = None, ranks: bool = False) -> Callable[[Metric], Metric]:
    """Register a function as a metric of these levels.

    Args:
        levels: patches, fields or both.
        name: in metrics.json; the function's by default.
        ranks: true for what compares the probabilities with one another, whatever the threshold.

    Raises:
        ValueError: the level has a metric of this name.
    """

    def register(function: Metric) -> Metric:
        called = name or function.__name__
        for level in levels:
            if called in _METRICS[level]:
                raise ValueError(f"{level} have a metric {called!r} already")
            _METRICS[level][called] = _Registered(function, ranks)
        return function

    return register


def scores(
    level: Level,
    labels: Labels,
    probabilities: Probabilities,
    threshold: float,
    *,
    area_mm2: float | None = None,
    ranking: bool = True,
) -> dict[str, float]:
    """All metrics of a level by name, without those that are undefined.

    Args:
        level: patches or fields.
        labels: (N,) 0 and 1.
        probabilities: (N,).
        threshold: above 0; `probability >= threshold` means mitosis.
        area_mm2: of the fields.
        ranking: with the metrics that rank; false where the probabilities of different networks are mixed, or where
            they stand beside others at another threshold.
    """
    values = {
        name: function(labels, probabilities, threshold, area_mm2)
        for name, (function, ranks) in _METRICS[level].items()
        if ranking or not ranks
    }
    return {name: value for name, value in values.items() if value is not None}


def _ratio(part: float, whole: float) -> float:
    """What is undefined (no mitosis, or none found) counts as 0."""
    return float(part / whole) if whole else 0.0


@metric("patches")
def accuracy(labels: Labels, probabilities: Probabilities, threshold: float, area_mm2: float | None) -> float | None:
    """Share of the patches that are classified correctly; in fields, what is no mitosis cannot be counted."""
    return float(np.mean((probabilities >= threshold) == (labels == 1))) if len(labels) else None


@metric("patches", "fields")
def precision(labels: Labels, probabilities: Probabilities, threshold: float, area_mm2: float | None) -> float:
    """Share of the detections that are mitoses."""
    found = probabilities >= threshold
    return _ratio(labels[found].sum(), found.sum())


@metric("patches", "fields")
def recall(labels: Labels, probabilities: Probabilities, threshold: float, area_mm2: float | None) -> float:
    """Share of the mitoses that are detected."""
    return _ratio(labels[probabilities >= threshold].sum(), labels.sum())


@metric("patches", "fields")
def f1(labels: Labels, probabilities: Probabilities, threshold: float, area_mm2: float | None) -> float:
    """Harmonic mean of precision and recall."""
    found = probabilities >= threshold
    return _ratio(2 * labels[found].sum(), found.sum() + labels.sum())


@metric("patches", ranks=True)
def ap(labels: Labels, probabilities: Probabilities, threshold: float, area_mm2: float | None) -> float | None:
    """Average precision; undefined when one of the classes is missing."""
    return float(average_precision_score(labels, probabilities)) if _both_classes(labels) else None


@metric("patches", ranks=True)
def auc(labels: Labels, probabilities: Probabilities, threshold: float, area_mm2: float | None) -> float | None:
    """Area under the ROC curve; undefined when one of the classes is missing."""
    return float(roc_auc_score(labels, probabilities)) if _both_classes(labels) else None


@metric("fields", name="ap", ranks=True)
def object_ap(labels: Labels, probabilities: Probabilities, threshold: float, area_mm2: float | None) -> float | None:
    """Average precision of the detections, with the recall among all mitoses; undefined without a mitosis."""
    if not labels.any():
        return None
    found = probabilities > 0
    reached = float(labels[found].sum() / labels.sum())
    return reached * float(average_precision_score(labels[found], probabilities[found])) if reached else 0.0


@metric("fields")
def mitoses_per_mm2(
    labels: Labels, probabilities: Probabilities, threshold: float, area_mm2: float | None
) -> float | None:
    """Density of the annotated mitoses."""
    return float(labels.sum() / area_mm2) if area_mm2 else None


@metric("fields")
def detections_per_mm2(
    labels: Labels, probabilities: Probabilities, threshold: float, area_mm2: float | None
) -> float | None:
    """Density of the detections."""
    return float((probabilities >= threshold).sum() / area_mm2) if area_mm2 else None


def _both_classes(labels: Labels) -> bool:
    return bool(labels.min(initial=1) < labels.max(initial=0))


def patch_scores(labels: Labels, probabilities: Probabilities) -> dict[str, float]:
    """What training wants to know of its validation patches.

    Returns:
        The patches' metrics at 0.5; and the `threshold` with the highest F1 and that F1, `best_f1`.

    Raises:
        ValueError: there is no mitosis.
    """
    threshold, best_f1 = best_threshold(labels, probabilities)
    return scores("patches", labels, probabilities, 0.5) | {"best_f1": best_f1, "threshold": threshold}


def froc(labels: Labels, probabilities: Probabilities, area_mm2: float) -> dict[str, Probabilities]:
    """Free-response ROC of detected objects: false positives per mm2, recall and threshold, point by point.

    Source: Chakraborty, "A brief history of free-response receiver operating characteristic paradigm data analysis",
    Academic Radiology 20 (2013). The area is that of all the fields, in mm2.
    """
    thresholds, counts = np.unique(probabilities[probabilities > 0], return_counts=True)
    order = np.argsort(-probabilities, kind="stable")
    last = np.cumsum(counts[::-1]) - 1  # of the objects down to each threshold
    return {
        "fp_per_mm2": np.cumsum(labels[order] == 0)[last] / area_mm2,
        "recall": np.cumsum(labels[order] == 1)[last] / max(labels.sum(), 1),
        "threshold": thresholds[::-1],
    }


def best_threshold(labels: Labels, probabilities: Probabilities) -> tuple[float, float]:
    """The threshold with the highest F1, and that F1.

    It lies halfway to the next lower probability, so that rounding elsewhere does not tip a patch over it. Where no
    mitosis has a probability above 0, it is 0.5 and the F1 is 0.

    Raises:
        ValueError: there is no positive label.
    """
    if not labels.any():
        raise ValueError("a threshold needs at least one mitosis")
    precisions, recalls, thresholds = precision_recall_curve(labels, probabilities)
    f1s = 2 * precisions * recalls / np.maximum(precisions + recalls, 1e-12)
    f1s = np.where(thresholds > 0, f1s[:-1], 0)
    best = int(np.argmax(f1s))
    if not f1s[best]:
        return 0.5, 0.0
    lower = thresholds[best - 1] if best else 0.0
    return float((thresholds[best] + lower) / 2 or thresholds[best]), float(f1s[best])
