"""The patch level has its scores at two thresholds, with intervals, and means nothing without a mitosis."""

import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from mitoscope.errors import InputError
from mitoscope.evaluation.patches import score_predictions
from mitoscope.params import Evaluate

SETTINGS = Evaluate(bootstrap=200, seed=0)


def predictions(*patients: str) -> pd.DataFrame:
    """Eight patches: at 0.4, 3 of 4 mitoses are found beside 2 false ones; at 0.5, 2 beside 1."""
    return pd.DataFrame(
        {
            "patient": list(patients) or ["01"] * 4 + ["02"] * 4,
            "label": [1, 1, 0, 0, 1, 1, 0, 0],
            "probability": [0.9, 0.8, 0.1, 0.45, 0.42, 0.3, 0.6, 0.1],
        }
    )


def test_scores_by_hand():
    scores, _ = score_predictions(predictions(), 0.4, SETTINGS)
    assert (scores["patients"], scores["mitoses"], scores["negatives"], scores["threshold"]) == (2, 4, 4, 0.4)
    assert scores["precision"] == pytest.approx(3 / 5) and scores["recall"] == pytest.approx(3 / 4)
    assert scores["accuracy"] == pytest.approx(5 / 8) and scores["f1"] == pytest.approx(6 / 9)
    half = scores["at_half"]
    assert half["precision"] == pytest.approx(2 / 3) and half["recall"] == pytest.approx(2 / 4)
    assert half["accuracy"] == pytest.approx(5 / 8) and half["f1"] == pytest.approx(4 / 7)
    table = predictions()
    assert scores["ap"] == pytest.approx(average_precision_score(table.label, table.probability))
    assert scores["auc"] == pytest.approx(roc_auc_score(table.label, table.probability)) == pytest.approx(12 / 16)


def test_intervals_hold_what_resampled_patients_give():
    _, intervals = score_predictions(predictions(), 0.4, SETTINGS)
    # Drawing two patients of two gives the first twice, both, or the second twice: recall 1, 3/4 or 1/2.
    assert intervals["recall"] == pytest.approx([1 / 2, 1.0])
    assert intervals["at_half"]["recall"] == pytest.approx([0.0, 1.0])
    assert set(intervals) == {"accuracy", "precision", "recall", "f1", "ap", "auc", "at_half"}
    assert set(intervals["at_half"]) == {"accuracy", "precision", "recall", "f1"}


def test_a_single_patient_has_no_interval():
    scores, intervals = score_predictions(predictions(*["01"] * 8), 0.4, SETTINGS)
    assert intervals == {} and scores["patients"] == 1 and scores["recall"] == 0.75


def test_without_negatives_there_is_no_ranking():
    scores, intervals = score_predictions(predictions().query("label == 1"), 0.4, SETTINGS)
    assert "ap" not in scores and "auc" not in scores and "auc" not in intervals
    assert scores["precision"] == 1 and scores["negatives"] == 0


def test_without_mitosis_it_is_rejected():
    with pytest.raises(InputError, match=r"the test patients \(01, 02\) have no mitosis away from the edges"):
        score_predictions(predictions().query("label == 0"), 0.4, SETTINGS)
