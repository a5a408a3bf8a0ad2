"""Confidence intervals of scores, by drawing whole patients."""

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
from sklearn import config_context

from mitoscope.evaluation.metrics import Labels, Probabilities

Intervals = dict[str, tuple[float, float]]


def patient_intervals(
    patients: npt.NDArray[np.str_],
    labels: Labels,
    probabilities: Probabilities,
    score: Callable[..., dict[str, float]],
    *,
    resamples: int,
    seed: int,
    areas_mm2: Mapping[str, float] | None = None,
) -> Intervals:
    """95 % percentile intervals of a score, by drawing whole patients with replacement.

    Patches of one patient are alike, so drawing patches would give intervals that are too narrow. With fewer than two
    patients there is no interval, and the result is empty. Draws of patients without any mitosis have no recall and
    are left out of all intervals. With few patients there are few different draws, and the interval is rough. Source:
    Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.

    Args:
        patients: (N,).
        labels: (N,) 0 and 1.
        probabilities: (N,).
        score: called with the labels and probabilities of a draw, and with `area_mm2` where the areas are given.
        resamples: number of draws.
        seed: of the draws.
        areas_mm2: of each patient's fields; a patient with an area and no row is drawn too.

    Returns:
        (low, high) under the names of the scores.
    """
    names = np.array(sorted(areas_mm2)) if areas_mm2 is not None else np.unique(patients)
    if len(names) < 2:
        return {}
    groups = [np.flatnonzero(patients == name) for name in names]
    areas = np.array([areas_mm2[name] for name in names]) if areas_mm2 is not None else None
    draws = np.sort(np.random.default_rng(seed).integers(len(groups), size=(resamples, len(groups))))
    drawn: dict[str, list[float]] = {}
    # Few patients give few different draws: three give ten. Score each once.
    different, times = np.unique(draws, axis=0, return_counts=True)
    with config_context(skip_parameter_validation=True):
        for draw, count in zip(different, times, strict=True):
            chosen = np.concatenate([groups[number] for number in draw])
            if not labels[chosen].any():
                continue
            area = {} if areas is None else {"area_mm2": float(areas[draw].sum())}
            for name, value in score(labels[chosen], probabilities[chosen], **area).items():
                drawn.setdefault(name, []).extend([value] * int(count))
    return {
        name: (float(np.quantile(values, 0.025)), float(np.quantile(values, 0.975))) for name, values in drawn.items()
    }
