"""Scores of patches and of detected objects: scikit-learn's metrics, a threshold, and intervals by patient.

Objects come as evaluation.matching.find_objects gives them: one row per detection, and one with probability 0 per
mitosis that no detection reaches, which is why nothing of probability 0 counts as found at any threshold.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from sklearn import config_context
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    precision_recall_curve,
    precision_recall_fscore_support,
    roc_auc_score,
)

Labels = npt.NDArray[np.int64]
Probabilities = npt.NDArray[np.float64]


def classification(labels: Labels, probabilities: Probabilities, threshold: float) -> dict[str, float]:
    """Accuracy, precision, recall and F1 (fractions of 1) where `probability >= threshold` means mitosis.

    What is undefined (no mitosis, or none found) counts as 0.
    """
    predicted = (probabilities >= threshold).astype(np.int64)
    precision, recall, f1, _ = precision_recall_fscore_support(
        labels, predicted, labels=[0, 1], average="binary", zero_division=0
    )
    return {
        "accuracy": float(accuracy_score(labels, predicted)),
        "precision": float(precision),
        "recall": float(recall),
        "f1": float(f1),
    }


def ranking(labels: Labels, probabilities: Probabilities) -> dict[str, float]:
    """Average precision and area under the ROC curve; empty when one of the classes is missing."""
    if labels.min(initial=1) >= labels.max(initial=0):
        return {}
    return {
        "ap": float(average_precision_score(labels, probabilities)),
        "auc": float(roc_auc_score(labels, probabilities)),
    }


def object_scores(labels: Labels, probabilities: Probabilities, threshold: float) -> dict[str, float]:
    """Precision, recall, F1 (at `threshold` > 0) and average precision of detected objects; without mitosis no ap."""
    scores = classification(labels, probabilities, threshold)
    del scores["accuracy"]  # of what a field does not hold, no one knows how much there is
    if not labels.any():
        return scores
    found = probabilities > 0
    reached = float(labels[found].sum() / labels.sum())
    average = float(average_precision_score(labels[found], probabilities[found])) if reached else 0.0
    return scores | {"ap": reached * average}


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
    precision, recall, thresholds = precision_recall_curve(labels, probabilities)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    f1 = np.where(thresholds > 0, f1[:-1], 0)
    best = int(np.argmax(f1))
    if not f1[best]:
        return 0.5, 0.0
    lower = thresholds[best - 1] if best else 0.0
    return float((thresholds[best] + lower) / 2 or thresholds[best]), float(f1[best])


def patient_intervals(
    patients: npt.NDArray[np.str_],
    labels: Labels,
    probabilities: Probabilities,
    score: Callable[[Labels, Probabilities], dict[str, float]],
    *,
    resamples: int,
    seed: int,
) -> dict[str, tuple[float, float]]:
    """95 % percentile intervals of a score, by drawing whole patients with replacement.

    Patches of one patient are alike, so drawing patches would give intervals that are too narrow. With fewer than two
    patients there is no interval, and the result is empty. Draws of patients without any mitosis have no recall and
    are left out. With few patients there are few different draws, and the interval is rough. Source: Efron and
    Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
    """
    groups = [np.flatnonzero(patients == patient) for patient in np.unique(patients)]
    if len(groups) < 2:
        return {}
    draws = np.sort(np.random.default_rng(seed).integers(len(groups), size=(resamples, len(groups))))
    drawn: dict[str, list[float]] = {}
    # Few patients give few different draws: three give ten. Score each once.
    different, times = np.unique(draws, axis=0, return_counts=True)
    with config_context(skip_parameter_validation=True):
        for draw, count in zip(different, times, strict=True):
            chosen = np.concatenate([groups[number] for number in draw])
            if not labels[chosen].any():
                continue
            for name, value in score(labels[chosen], probabilities[chosen]).items():
                drawn.setdefault(name, []).extend([value] * int(count))
    return {
        name: (float(np.quantile(values, 0.025)), float(np.quantile(values, 0.975))) for name, values in drawn.items()
    }
