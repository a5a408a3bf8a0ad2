"""Counts of fields by hand, and marks that agree with the counts."""

import numpy as np
import pandas as pd
import pytest

from mitoscope.histology.fields import FieldOfView
from mitoscope.params import Evaluate
from mitoscope.stages.field_scores import count_fields, mark, score_fields

# At 0.5: field a has a hit and a false positive, b a miss that was seen weakly and one that was never reached.
OBJECTS = pd.DataFrame(
    [
        ("01", "a", 9.0, 9.0, 0.9, 1),
        ("01", "a", 50.0, 9.0, 0.6, 0),
        ("02", "b", 9.0, 9.0, 0.3, 1),
        ("02", "b", 90.0, 9.0, 0.0, 1),
    ],
    columns=["patient", "field", "row", "col", "probability", "label"],
)
OBJECTS["predicted"] = (OBJECTS.probability >= 0.5).astype(int)
AREAS = {"01_a": 0.5, "02_b": 0.25, "02_c": 0.25, "03_a": 1.0}


def test_fields_are_counted_by_hand():
    fields = count_fields(OBJECTS, AREAS, ["01", "02"]).set_index(["patient", "field"])
    counts = ["mitoses", "detections", "tp", "fp", "fn"]
    assert fields.loc[("01", "a"), counts].tolist() == [1, 2, 1, 1, 0]
    assert fields.loc[("02", "b"), counts].tolist() == [2, 0, 0, 0, 2]
    assert fields.loc[("02", "c"), counts].tolist() == [0, 0, 0, 0, 0]  # nothing there, nothing said
    assert fields.detections_per_mm2.tolist() == [4, 0, 0] and fields.mitoses_per_mm2.tolist() == [2, 8, 0]


def test_counts_are_pooled_over_fields():
    fields = count_fields(OBJECTS, AREAS, ["01", "02"])
    scores, intervals = score_fields(OBJECTS, fields, 0.5, Evaluate(bootstrap=200, seed=0))
    assert (scores["patients"], scores["fields"], scores["area_mm2"]) == (2, 3, 1.0)
    assert (scores["tp"], scores["fp"], scores["fn"]) == (1, 1, 2)
    assert scores["precision"] == 1 / 2 and scores["recall"] == pytest.approx(1 / 3) and scores["f1"] == 2 / 5
    assert scores["reachable"] == pytest.approx(2 / 3)
    assert (scores["mitoses_per_mm2"], scores["detections_per_mm2"]) == (3, 2)
    # Patient 01 alone: recall 1, 02 alone: 0.
    assert intervals["recall"] == pytest.approx((0, 1))


def test_marks_are_hits_errors_and_misses_of_this_field_only():
    detections = OBJECTS[OBJECTS.predicted == 1]
    truths = pd.DataFrame(
        {"patient": ["01", "01", "02"], "field": ["a", "a", "b"], "row": [12.0, 200.0, 9.0], "col": [9.0] * 3}
    )
    marks = mark(FieldOfView(None, "01", "a"), detections, truths, radius=30)
    np.testing.assert_array_equal(marks.found, [[9, 9]])
    np.testing.assert_array_equal(marks.false, [[50, 9]])
    np.testing.assert_array_equal(marks.missed, [[200, 9]])
