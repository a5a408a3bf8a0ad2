"""Confidence intervals of scores and of the difference between two networks, by drawing whole patients."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

if TYPE_CHECKING:
    from mitoscope.evaluation.metrics import Labels, Probabilities

Intervals = dict[str, tuple[float, float]]
Integers = npt.NDArray[np.int64]


class Difference(NamedTuple):
    """How the field F1 of two networks differs on the same test patients.

    Attributes:
        value: F1 of the first network minus that of the second.
        interval: its 95 % interval, (low, high).
        p: two-sided p-value of the hypothesis that the networks are equally good.
        patients: number of test patients.
    """

    value: float
    interval: tuple[float, float]
    p: float
    patients: int


def patient_intervals(
    patients: npt.NDArray[np.str_],
    labels: "Labels",
    probabilities: "Probabilities",
    score: Callable[..., dict[str, float]],
    *,
    resamples: int,
    seed: int,
    areas_mm2: Mapping[str, float] | None = None,
) -> Intervals:
    """95 % percentile intervals of scores, from drawing whole patients with replacement.

    Patches of one patient are alike, so drawing patches would give intervals that are too narrow. With fewer than two
    patients there is no interval, and the result is empty. Draws of patients without any mitosis have no recall and
    are left out of all intervals. With few patients there are few different draws, and the interval is rough. Source:
    Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.

    Args:
        patients: (N,).
        labels: (N,) 0 and 1.
        probabilities: (N,).
        score: called with the labels and probabilities of a draw, and with `area_mm2` if the areas are given.
        resamples: number of draws.
        seed: random seed of the draws.
        areas_mm2: area of each patient's fields; patients with an area but no rows are drawn too.

    Returns:
        (low, high) by the name of the score.
    """
    from sklearn import config_context  # `compare` does not wait for it

    names = np.array(sorted(areas_mm2)) if areas_mm2 is not None else np.unique(patients)
    if len(names) < 2:
        return {}
    groups = [np.flatnonzero(patients == name) for name in names]
    areas = np.array([areas_mm2[name] for name in names]) if areas_mm2 is not None else None
    drawn: dict[str, list[float]] = {}
    # Few patients give few different draws (three patients give ten), so score each once.
    different, times = np.unique(np.sort(_draw(len(groups), resamples, seed)), axis=0, return_counts=True)
    with config_context(skip_parameter_validation=True):
        for draw, count in zip(different, times, strict=True):
            chosen = np.concatenate([groups[number] for number in draw])
            if not labels[chosen].any():
                continue
            area = {} if areas is None else {"area_mm2": float(areas[draw].sum())}
            for name, value in score(labels[chosen], probabilities[chosen], **area).items():
                drawn.setdefault(name, []).extend([value] * int(count))
    return {name: _percentiles(values) for name, values in drawn.items()}


def paired_f1_difference(
    patients: Sequence[str], first: pd.DataFrame, second: pd.DataFrame, *, resamples: int, seed: int
) -> Difference | None:
    """Difference in field F1 between two networks tested on the same fields, by a paired bootstrap of the patients.

    Each draw takes the same patients for both networks, because some patients are harder than others for any network.
    Draws without a mitosis are left out. The p-value is twice the share of the draws in which the better network is not
    better, with one such draw added: fewer draws cannot show a smaller p. It is at least 2 / 2^n, the smallest p-value
    of a sign test, where n is the number of patients in whom the networks differ: otherwise two patients would be
    enough to show a difference. Sources: Koehn, "Statistical significance tests for machine translation evaluation",
    EMNLP (2004), for the paired bootstrap; Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13,
    for the interval.

    Args:
        patients: all test patients; those without any object are drawn too.
        first: the first network's objects.csv: patient, label, and `predicted` at the network's own threshold.
        second: the same table of the second network.
        resamples: number of draws.
        seed: random seed of the draws.

    Returns:
        The difference; None with fewer than two patients, or without a mitosis.

    Raises:
        ValueError: the tables have different mitoses, or a patient who was not tested.
    """
    names = sorted(patients)
    one, other = (_count_patients(names, objects) for objects in (first, second))
    if (one[:, 2] != other[:, 2]).any():
        raise ValueError("the networks were tested on different mitoses")
    if len(names) < 2 or not one[:, 2].any():
        return None
    draws = _draw(len(names), resamples, seed)
    draws = draws[one[draws, 2].any(axis=1)]
    differences = _f1(one[draws].sum(axis=1)) - _f1(other[draws].sum(axis=1))
    value = float(_f1(one.sum(axis=0)) - _f1(other.sum(axis=0)))
    contrary = np.count_nonzero(differences <= 0 if value > 0 else differences >= 0)
    least = 2.0 / 2 ** int((one != other).any(axis=1).sum())
    p = 1.0 if value == 0 else min(1.0, max(2 * (contrary + 1) / (len(differences) + 1), least))
    return Difference(value, _percentiles(differences), p, len(names))


def _count_patients(patients: Sequence[str], objects: pd.DataFrame) -> Integers:
    """True positives, detections and mitoses of each patient, (P, 3)."""
    mitosis, predicted = objects.label == 1, objects.predicted == 1
    if unknown := set(objects.patient) - set(patients):
        raise ValueError(f"patient {min(unknown)} is not one of those tested")
    counts = pd.DataFrame({"tp": mitosis & predicted, "detections": predicted, "mitoses": mitosis})
    return counts.groupby(objects.patient).sum().reindex(pd.Index(patients), fill_value=0).to_numpy(dtype=np.int64)


def _f1(counts: Integers) -> npt.NDArray[np.float64]:
    """F1 of (..., 3) true positives, detections and mitoses; 0 if there are neither detections nor mitoses."""
    f1: npt.NDArray[np.float64] = 2 * counts[..., 0] / np.maximum(counts[..., 1] + counts[..., 2], 1)
    return f1


def _draw(patients: int, resamples: int, seed: int) -> Integers:
    """(resamples, patients) numbers of patients, drawn with replacement; equal arguments give equal draws."""
    return np.random.default_rng(seed).integers(patients, size=(resamples, patients))


def _percentiles(values: Sequence[float] | npt.NDArray[np.float64]) -> tuple[float, float]:
    """The 2.5th and the 97.5th percentile."""
    return float(np.quantile(values, 0.025)), float(np.quantile(values, 0.975))
