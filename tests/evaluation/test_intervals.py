"""Intervals come from whole patients, drawn with replacement."""

from functools import partial

import numpy as np
import pytest

from mitoscope.evaluation.intervals import patient_intervals
from mitoscope.evaluation.metrics import scores

at_half = partial(scores, "patches", threshold=0.5, ranking=False)


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
    point = at_half(np.tile(labels, 4), np.tile(probabilities, 4))
    found = intervals(patients, np.tile(labels, 4), np.tile(probabilities, 4), at_half)
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
    found = intervals(["01", "02"], [1, 0], [0.9, 0.9], at_half)
    assert found["recall"] == (1, 1) and found["precision"] == (0.5, 1)


def test_a_score_that_some_draws_lack_is_taken_from_the_others():
    # Patient 01 has mitoses only: drawn alone it has no ranking.
    score = partial(scores, "patches", threshold=0.5)
    found = intervals(["01", "01", "02", "02"], [1, 1, 1, 0], [0.9, 0.8, 0.7, 0.3], score)
    assert found["ap"] == found["auc"] == found["recall"] == (1, 1)


def test_the_area_of_a_draw_is_that_of_its_patients():
    # 2 mitoses in 1 mm2 and 3 in 3 mm2: drawn twice, 2 and 1 per mm2, together 5/4; and 03 has nothing at all.
    labels, probabilities = np.ones(5, np.int64), np.full(5, 0.9)
    patients = np.array(["01"] * 2 + ["02"] * 3)
    densities = set()

    def score(some, values, area_mm2):
        found = scores("fields", some, values, 0.5, area_mm2=area_mm2)
        densities.add(found["mitoses_per_mm2"])
        return found

    found = patient_intervals(
        patients, labels, probabilities, score, resamples=500, seed=0, areas_mm2={"01": 1.0, "02": 3.0}
    )
    assert densities == {2, 5 / 4, 1} and found["mitoses_per_mm2"] == (1, 2)
    areas = {"01": 1.0, "02": 3.0, "03": 4.0}
    patient_intervals(patients, labels, probabilities, score, resamples=500, seed=0, areas_mm2=areas)
    assert {4 / (2 + 4), 5 / (4 + 4), 3 / (3 + 2 * 4)} <= densities  # beside 01 twice, beside both, and twice beside 02
