"""Patch-level evaluation: scores of the test patches at two thresholds, with intervals by patient."""

from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from mitoscope.errors import InputError
from mitoscope.evaluation.intervals import patient_intervals
from mitoscope.evaluation.metrics import scores
from mitoscope.params import Evaluate


def score_predictions(
    predictions: pd.DataFrame, threshold: float, settings: Evaluate
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Score the test patches, and compute 95 % intervals by patient.

    Args:
        predictions: patient, label and probability of every test patch.
        threshold: chosen on the validation patients.
        settings: number of resamples and seed of the intervals.

    Returns:
        The counts and all patch metrics at `threshold`, with the metrics that depend on the threshold repeated at 0.5
        under `at_half`; and the interval (low, high) of each score by name, empty if there is only one patient.

    Raises:
        InputError: no test patch is a mitosis, so recall and F1 are undefined.
    """
    labels, probabilities = predictions.label.to_numpy(), predictions.probability.to_numpy()
    patients = predictions.patient.to_numpy(dtype=str)
    if not labels.any():
        who = ", ".join(np.unique(patients))
        raise InputError(f"the test patients ({who}) have no mitosis away from the edges; choose another split.fold")
    score = partial(scores, "patches", threshold=threshold)
    score_at_half = partial(scores, "patches", threshold=0.5, ranking=False)
    metrics = {
        "patients": len(np.unique(patients)),
        "mitoses": int(labels.sum()),
        "negatives": int((labels == 0).sum()),
        "threshold": threshold,
        **score(labels, probabilities),
        "at_half": score_at_half(labels, probabilities),
    }
    intervals, intervals_at_half = (
        patient_intervals(patients, labels, probabilities, how, resamples=settings.bootstrap, seed=settings.seed)
        for how in (score, score_at_half)
    )
    return metrics, intervals | ({"at_half": intervals_at_half} if intervals_at_half else {})
