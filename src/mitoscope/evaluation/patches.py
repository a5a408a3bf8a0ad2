"""The patch level of evaluation: scores of the test patches at two thresholds, with intervals by patient."""

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
    """Scores of the test patches, and their 95 % intervals by patient.

    Args:
        predictions: patient, label and probability of every test patch.
        threshold: chosen on the validation patients.
        settings: of the intervals.

    Returns:
        Counts and all metrics of patches at `threshold`; and under `at_half` those that do not rank, at 0.5. And under
        the same names (low, high); empty with a single patient.

    Raises:
        InputError: there is no mitosis among the test patches, so that recall and F1 mean nothing.
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
