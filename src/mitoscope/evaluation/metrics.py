"""Scores of patches and of detected objects: every metric is a registered function.

To add a metric, write a function here and register it at one level or both:

    @metric("patches", "fields")
    def youden(labels, probabilities, threshold, area_mm2): ...

It is then written to metrics.json and to the run, and its 95 % interval to intervals.json.

Objects are rows of `evaluation.matching.find_objects`: one per detection, and one with probability 0 per mitosis that
no detection matches at any threshold, even if its only candidate was suppressed or matched to another mitosis.
Therefore an object with probability 0 never counts as detected.
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
"""Called with (N,) labels 0 and 1, (N,) probabilities, the threshold (> 0) at or above which a probability means
mitosis, and the area of the fields in mm2 (None if unknown, as for patches). Returns None if it is undefined."""


class _Registered(NamedTuple):
    function: Metric
    ranks: bool


_METRICS: dict[Level, dict[str, _Registered]] = {"patches": {}, "fields": {}}


def metric(*levels: Level, name: str | None = None, ranks: bool = False) -> Callable[[Metric], Metric]:
    """Register a function as a metric of these levels.

    Args:
        levels: patches, fields or both.
        name: name in metrics.json; by default the name of the function.
        ranks: whether the metric ranks the probabilities and ignores the threshold.

    Raises:
        ValueError: the level already has a metric of this name.
    """

    def register(function: Metric) -> Metric:
        called = name or function.__name__
        for level in levels:
            if called in _METRICS[level]:
                raise ValueError(f"{level} already have a metric {called!r}")
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
    """Compute all metrics of a level, by name, except undefined ones.

    Args:
        level: patches or fields.
        labels: (N,) 0 and 1.
        probabilities: (N,).
        threshold: above 0; `probability >= threshold` means mitosis.
        area_mm2: total area of the fields.
        ranking: whether to include the metrics that rank; false if the probabilities come from different networks, or
            if the same scores are also reported at another threshold.
    """
    values = {
        name: function(labels, probabilities, threshold, area_mm2)
        for name, (function, ranks) in _METRICS[level].items()
        if ranking or not ranks
    }
    return {name: value for name, value in values.items() if value is not None}


def _ratio(part: float, whole: float) -> float:
    """Return part / whole, or 0 if `whole` is 0 (no mitosis, or no detection)."""
    return float(part / whole) if whole else 0.0


@metric("patches")
def accuracy(labels: Labels, probabilities: Probabilities, threshold: float, area_mm2: float | None) -> float | None:
    """Share of the patches that are classified correctly. Fields have no accuracy: true negatives cannot be counted."""
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
    """Average precision of the detections, with recall relative to all mitoses; undefined without a mitosis."""
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
    """Score patches during training.

    Returns:
        The patch metrics at 0.5, the `threshold` with the highest F1, and that F1 as `best_f1`.

    Raises:
        ValueError: there is no mitosis.
    """
    threshold, best_f1 = best_threshold(labels, probabilities)
    return scores("patches", labels, probabilities, 0.5) | {"best_f1": best_f1, "threshold": threshold}


def froc(labels: Labels, probabilities: Probabilities, area_mm2: float) -> dict[str, Probabilities]:
    """Compute the free-response ROC (FROC) of detected objects: false positives per mm2, recall and threshold by point.

    `area_mm2` is the total area of the fields. Source: Chakraborty, "A brief history of free-response receiver
    operating characteristic paradigm data analysis", Academic Radiology 20 (2013).
    """
    thresholds, counts = np.unique(probabilities[probabilities > 0], return_counts=True)
    order = np.argsort(-probabilities, kind="stable")
    last = np.cumsum(counts[::-1]) - 1  # index of the last object at or above each threshold
    return {
        "fp_per_mm2": np.cumsum(labels[order] == 0)[last] / area_mm2,
        "recall": np.cumsum(labels[order] == 1)[last] / max(labels.sum(), 1),
        "threshold": thresholds[::-1],
    }


def best_threshold(labels: Labels, probabilities: Probabilities) -> tuple[float, float]:
    """Return the threshold with the highest F1, and that F1.

    The threshold lies halfway to the next lower probability, so that rounding on another machine does not move a patch
    across it. If no mitosis has a probability above 0, the threshold is 0.5 and the F1 is 0.

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
