"""Scores of patches and objects, worked by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mitoscope.evaluation.metrics import (
    best_threshold,
    classification,
    froc,
    object_scores,
    patient_intervals,
    ranking,
)


def test_the_four_scores_worked_by_hand():
    labels = np.array([1, 1, 1, 0, 0, 0, 0, 0])
    probabilities = np.array([0.9, 0.6, 0.1, 0.7, 0.4, 0.3, 0.2, 0.0])
    # Found: 0.9, 0.6 (both right) and 0.7 (wrong); missed: 0.1.
    assert classification(labels, probabilities, 0.5) == pytest.approx(
        {"accuracy": 6 / 8, "precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3}
    )
    # Found at 0.4: 0.9, 0.6, 0.7 and 0.4 itself, because the threshold belongs to the mitoses.
    assert classification(labels, probabilities, 0.4) == pytest.approx(
        {"accuracy": 5 / 8, "precision": 2 / 4, "recall": 2 / 3, "f1": 4 / 7}
    )


@pytest.mark.parametrize(("labels", "accuracy"), [([0, 0], 1.0), ([1, 0], 0.5)], ids=["no mitosis", "no mitosis found"])
def test_what_is_undefined_counts_as_nothing(labels, accuracy):
    scores = classification(np.array(labels), np.array([0.1, 0.2]), 0.5)
    assert scores == {"accuracy": accuracy, "precision": 0.0, "recall": 0.0, "f1": 0.0}


def test_ranking_worked_by_hand():
    # Ranked: mitosis, other, mitosis, other. Precision at the mitoses is 1/1 and 2/3; of the 4 pairs 3 are in order.
    scores = ranking(np.array([0, 1, 0, 1]), np.array([0.1, 0.4, 0.6, 0.9]))
    assert scores == pytest.approx({"ap": (1 + 2 / 3) / 2, "auc": 3 / 4})


@pytest.mark.parametrize("labels", [[1, 1], [0, 0], []])
def test_one_class_has_no_ranking(labels):
    assert ranking(np.array(labels, np.int64), np.linspace(0, 1, len(labels))) == {}


@pytest.mark.parametrize(
    ("labels", "probabilities", "threshold", "f1"),
    [
        ([0, 0, 1, 1], [0.1, 0.2, 0.6, 0.8], 0.4, 1.0),
        ([0, 0, 0, 1], [0.2, 0.6, 0.8, 0.4], 0.3, 2 / 4),
        ([0, 1, 0, 1], [0.5, 0.5, 0.5, 0.5], 0.25, 2 / 3),
        ([0, 1, 1, 0], [0.2, 0.6, 0.6, 0.6], 0.4, 4 / 5),
        ([1, 0, 1, 1], [0.2, 0.4, 0.6, 0.8], 0.1, 6 / 7),
        ([0, 1, 0, 0, 1, 1], [0.1, 0.2, 0.3, 0.4, 0.6, 0.8], 0.5, 4 / 5),
        ([1, 1], [0.5, 0.5], 0.25, 1.0),
    ],
    ids=["perfect", "mitosis in the middle", "all equal", "ties", "all", "upper half", "mitoses only"],
)
def test_the_best_threshold_worked_by_hand(labels, probabilities, threshold, f1):
    assert best_threshold(np.array(labels), np.array(probabilities)) == pytest.approx((threshold, f1))


def test_of_equally_good_thresholds_the_lowest_is_taken():
    # At 0.2: 2 found, 2 wrong, 0 missed = 4/6. At 0.8: 1 found, 0 wrong, 1 missed = 2/3.
    assert best_threshold(np.array([1, 0, 0, 1]), np.array([0.2, 0.4, 0.6, 0.8])) == pytest.approx((0.1, 2 / 3))


def test_no_mitosis_no_threshold():
    with pytest.raises(ValueError, match="at least one mitosis"):
        best_threshold(np.array([0, 0]), np.array([0.1, 0.2]))


# Probabilities are what a softmax in float32 gives: many are equal, many are exactly 0 or 1.
probability = st.floats(0, 1, width=32) | st.sampled_from([0.0, 0.25, 0.5, 1.0])


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), probability), min_size=1, max_size=20))
def test_no_other_threshold_is_better(samples):
    labels, probabilities = (np.array(column) for column in zip(*samples, strict=True))
    labels[0] = 1
    threshold, f1 = best_threshold(labels, probabilities)

    def f1_at(threshold: float) -> float:
        found = probabilities >= threshold
        return 2 * (found & (labels == 1)).sum() / max(found.sum() + labels.sum(), 1)

    assert f1_at(threshold) == pytest.approx(f1)
    cuts = [other for other in probabilities if other > 0]  # what has no probability at all is never found
    assert max((f1_at(other) for other in cuts), default=0) == pytest.approx(f1)
    assert 0 < threshold <= max(probabilities.max(), 0.5)


# Detections with 0.9, 0.8, 0.7 and 0.2: right, wrong, right, wrong; and a mitosis that none of them reaches.
OBJECTS = np.array([1, 0, 1, 0, 1]), np.array([0.9, 0.8, 0.7, 0.2, 0.0])


def test_object_scores_worked_by_hand():
    # At 0.7: two of three mitoses, one false positive. Average precision: 1/3 of recall at 1/1 and 1/3 at 2/3.
    assert object_scores(*OBJECTS, 0.7) == pytest.approx(
        {"precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3, "ap": 1 / 3 * 1 + 1 / 3 * 2 / 3}
    )
    # However low the threshold, what no detection reaches is missed.
    assert object_scores(*OBJECTS, 1e-12)["recall"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("labels", "probabilities", "expected"),
    [
        ([0], [0.9], {"precision": 0, "recall": 0, "f1": 0}),
        ([1], [0.0], {"precision": 0, "recall": 0, "f1": 0, "ap": 0}),
        ([0, 1], [0.9, 0.0], {"precision": 0, "recall": 0, "f1": 0, "ap": 0}),
    ],
    ids=["no mitosis", "no detection", "nothing found"],
)
def test_objects_of_which_little_is_known(labels, probabilities, expected):
    assert object_scores(np.array(labels, np.int64), np.array(probabilities, float), 0.5) == expected


def test_froc_worked_by_hand():
    curve = froc(*OBJECTS, area_mm2=0.5)
    np.testing.assert_allclose(curve["threshold"], [0.9, 0.8, 0.7, 0.2])
    np.testing.assert_allclose(curve["fp_per_mm2"], [0, 2, 2, 4])
    np.testing.assert_allclose(curve["recall"], [1 / 3, 1 / 3, 2 / 3, 2 / 3])


def test_froc_at_its_extremes():
    nothing_false = froc(np.array([1, 1]), np.array([0.5, 0.5]), 1.0)  # equal probabilities are one point
    assert {name: values.tolist() for name, values in nothing_false.items()} == {
        "fp_per_mm2": [0],
        "recall": [1],
        "threshold": [0.5],
    }
    nothing_found = froc(np.array([0, 1]), np.array([0.5, 0.0]), 0.5)
    assert nothing_found["fp_per_mm2"].tolist() == [2] and nothing_found["recall"].tolist() == [0]
    assert len(froc(np.array([1]), np.array([0.0]), 1.0)["recall"]) == 0


def test_the_threshold_of_objects_leaves_out_what_no_detection_reaches():
    # To find "all" at probability 0 would give F1 6/8; the best that detections can is 4/6, at 0.7.
    assert best_threshold(*OBJECTS) == pytest.approx(((0.7 + 0.2) / 2, 2 / 3))
    assert best_threshold(np.array([0, 1]), np.array([0.9, 0.0])) == (0.5, 0.0)


def accuracy(labels, probabilities):
    return {"accuracy": float(((probabilities >= 0.5) == (labels == 1)).mean())}


def intervals(patients, labels, probabilities, score=accuracy, seed=0):
    return patient_intervals(
        np.array(patients), np.array(labels), np.array(probabilities), score, resamples=500, seed=seed
    )


def test_one_patient_has_no_interval():
    assert intervals(["01", "01"], [0, 1], [0.1, 0.9]) == {}


def test_patients_who_are_alike_leave_no_doubt():
    # Each patient: one mitosis found, one missed, one other wrongly found, three rightly not.
    labels, probabilities = [1, 1, 0, 0, 0, 0], [0.9, 0.1, 0.8, 0.1, 0.2, 0.3]
    patients = np.repeat(["01", "02", "03", "04"], 6)
    point = classification(np.tile(labels, 4), np.tile(probabilities, 4), 0.5)
    found = intervals(patients, np.tile(labels, 4), np.tile(probabilities, 4), lambda a, b: classification(a, b, 0.5))
    assert set(found) == set(point)
    for name, (low, high) in found.items():
        assert low == pytest.approx(point[name]) and high == pytest.approx(point[name])


def test_an_interval_holds_the_point_estimate_and_only_the_seed_moves_it():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 240)
    probabilities = np.clip(labels * 0.3 + rng.uniform(0, 0.7, 240), 0, 1)
    patients = np.repeat([f"{number:02}" for number in range(12)], 20)
    found = intervals(patients, labels, probabilities)
    low, high = found["accuracy"]
    assert low < accuracy(labels, probabilities)["accuracy"] < high
    assert found == intervals(patients, labels, probabilities)
    assert found != intervals(patients, labels, probabilities, seed=1)


def test_whole_patients_are_drawn_not_patches():
    # Two patients always right, two always wrong: 40 patches, but only four independent observations.
    labels = np.tile([0, 1], 20)
    right = np.repeat([True, True, False, False], 10)
    probabilities = np.where(right == (labels == 1), 0.9, 0.1)
    patients = np.repeat(["01", "02", "03", "04"], 10)
    low, high = intervals(patients, labels, probabilities)["accuracy"]
    assert (low, high) == (0.0, 1.0)  # all four right, or all four wrong: each in 1 of 16 draws

    single = [f"{number:02}" for number in range(40)]
    narrow_low, narrow_high = intervals(single, labels, probabilities)["accuracy"]
    assert 0.3 < narrow_low < 0.5 < narrow_high < 0.7


def test_draws_without_a_mitosis_are_left_out():
    # Patient 01 has its mitosis found, 02 has none and a false positive: drawn alone, 02 has no recall.
    found = intervals(["01", "02"], [1, 0], [0.9, 0.9], lambda a, b: classification(a, b, 0.5))
    assert found["recall"] == (1, 1) and found["precision"] == (0.5, 1)


def test_a_score_that_some_draws_lack_is_taken_from_the_others():
    # Only patient 01 has mitoses: draws of 02 alone have no ranking.
    found = intervals(["01", "01", "02", "02"], [1, 0, 0, 0], [0.9, 0.1, 0.2, 0.3], ranking)
    assert found == {"ap": (1.0, 1.0), "auc": (1.0, 1.0)}
