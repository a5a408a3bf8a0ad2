"""Intervals, and differences between networks, come from whole patients drawn with replacement."""

from functools import partial

import numpy as np
import pandas as pd
import pytest

from mitoscope.evaluation.intervals import Difference, paired_f1_difference, patient_intervals
from mitoscope.evaluation.metrics import scores

at_half = partial(scores, "patches", threshold=0.5, ranking=False)


def accuracy(labels, probabilities):
    return {"accuracy": float(((probabilities >= 0.5) == (labels == 1)).mean())}


def objects(**counts: tuple[int, int, int]) -> pd.DataFrame:
    """The objects of a network, from the mitoses found, the mitoses missed and the false positives of each patient."""
    kinds = ((1, 1), (1, 0), (0, 1))
    rows = [
        (patient.removeprefix("p"), *kind)
        for patient, numbers in counts.items()
        for kind, number in zip(kinds, numbers, strict=True)
        for _ in range(number)
    ]
    return pd.DataFrame(rows, columns=["patient", "label", "predicted"])


def compare(first: pd.DataFrame, second: pd.DataFrame, *, patients: int, seed: int = 0) -> Difference | None:
    names = [f"{number:02}" for number in range(1, patients + 1)]
    return paired_f1_difference(names, first, second, resamples=2000, seed=seed)


def intervals(patients, labels, probabilities, score=accuracy, seed=0):
    return patient_intervals(
        np.array(patients), np.array(labels), np.array(probabilities), score, resamples=500, seed=seed
    )


def test_one_patient_has_no_interval():
    assert intervals(["01", "01"], [0, 1], [0.1, 0.9]) == {}


def test_identical_patients_give_an_interval_of_width_zero():
    # Each patient: one mitosis found, one missed, one false positive, three true negatives.
    labels, probabilities = [1, 1, 0, 0, 0, 0], [0.9, 0.1, 0.8, 0.1, 0.2, 0.3]
    patients = np.repeat(["01", "02", "03", "04"], 6)
    point = at_half(np.tile(labels, 4), np.tile(probabilities, 4))
    found = intervals(patients, np.tile(labels, 4), np.tile(probabilities, 4), at_half)
    assert set(found) == set(point)
    for name, (low, high) in found.items():
        assert low == pytest.approx(point[name]) and high == pytest.approx(point[name])


def test_an_interval_contains_the_point_estimate_and_depends_only_on_the_seed():
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
    assert {4 / (2 + 4), 5 / (4 + 4), 3 / (3 + 2 * 4)} <= densities  # with 01 twice, with both, and twice with 02


def test_the_difference_by_hand():
    # F1: 01 has 1 and 1/2, 02 has 2/3 and 1/2, both together 6/7 and 1/2. Drawn twice, 01 differs by 1/2, 02 by 1/6.
    first = objects(p01=(2, 0, 0), p02=(1, 1, 0))
    second = objects(p01=(1, 1, 1), p02=(1, 1, 1))
    found = compare(first, second, patients=2)
    assert found.value == pytest.approx(6 / 7 - 1 / 2) and found.interval == pytest.approx((1 / 6, 1 / 2))
    assert found.p == 0.5 and found.patients == 2  # better in every draw, but two patients cannot exclude chance
    swapped = compare(second, first, patients=2)
    assert swapped.value == -found.value and swapped.p == found.p
    assert swapped.interval == pytest.approx((-1 / 2, -1 / 6))


def test_the_p_value_is_twice_the_share_of_draws_in_which_the_better_network_is_not_better():
    # F1: 01 has 1 and 0, 02 has 0 and 2/3, both together 2/3 and 2/5. A quarter of the draws has 02 only.
    first, second = objects(p01=(2, 0, 0), p02=(0, 2, 0)), objects(p01=(0, 2, 0), p02=(1, 1, 0))
    found = compare(first, second, patients=2)
    assert found.value == pytest.approx(2 / 3 - 2 / 5) and found.interval == pytest.approx((-2 / 3, 1))
    assert found.p == pytest.approx(2 * 1 / 4, abs=0.05)
    assert found == compare(first, second, patients=2) != compare(first, second, patients=2, seed=1)


def test_identical_networks_do_not_differ():
    both = objects(p01=(2, 1, 0), p02=(1, 3, 2), p03=(4, 0, 1))
    assert compare(both, both.copy(), patients=3) == Difference(0.0, (0.0, 0.0), 1.0, 3)


@pytest.mark.parametrize(("patients", "p"), [(2, 0.5), (5, 0.0625), (6, 0.03125), (10, 2 / 1024)])
def test_a_network_that_is_better_in_every_patient_needs_enough_patients(patients, p):
    names = [f"p{number:02}" for number in range(1, patients + 1)]
    first, second = (objects(**dict.fromkeys(names, counts)) for counts in ((2, 0, 0), (1, 1, 0)))
    found = compare(first, second, patients=patients)
    assert found.p == p and found.interval[0] > 0


def test_patients_without_a_difference_prove_nothing():
    same = {f"p{number:02}": (2, 1, 0) for number in range(2, 13)}
    found = compare(objects(p01=(3, 0, 0), **same), objects(p01=(0, 3, 0), **same), patients=12)
    assert found.value > 0 and found.p == 1


def test_draws_without_a_mitosis_are_left_out_and_patients_without_objects_are_drawn():
    # 02 has one false positive of the second network only, 03 has nothing. F1 with 01 once: 1 - 2/3; twice: 1 - 4/5.
    first, second = objects(p01=(1, 0, 0)), objects(p01=(1, 0, 0), p02=(0, 0, 1))
    found = compare(first, second, patients=3)
    assert found.value == pytest.approx(1 - 2 / 3) and found.interval == pytest.approx((0, 1 - 2 / 4))
    assert found.patients == 3


def test_no_difference_without_two_patients_or_a_mitosis():
    one = objects(p01=(1, 0, 0))
    assert compare(one, one, patients=1) is None
    none = objects(p01=(0, 0, 1))
    assert compare(none, none, patients=2) is None


def test_networks_tested_on_different_mitoses_are_not_compared():
    with pytest.raises(ValueError, match="different mitoses"):
        compare(objects(p01=(1, 0, 0)), objects(p01=(1, 1, 0)), patients=2)


def test_the_f1_is_that_of_the_metrics():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"patient": rng.choice(["01", "02"], 60), "label": rng.integers(0, 2, 60)})
    table["probability"] = rng.uniform(size=60)
    tables = [table.assign(predicted=(table.probability >= threshold).astype(int)) for threshold in (0.3, 0.7)]
    expected = [scores("fields", table.label.to_numpy(), table.probability.to_numpy(), t)["f1"] for t in (0.3, 0.7)]
    assert compare(*tables, patients=2).value == pytest.approx(expected[0] - expected[1])
