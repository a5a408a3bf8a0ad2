"""The sentence names the better network, and calls a difference larger than chance only where it is."""

from collections.abc import Mapping

import pandas as pd
import pytest

from mitoscope.errors import InputError
from mitoscope.params import Evaluate
from mitoscope.reporting.results import Results, read_results
from mitoscope.reporting.verdict import Verdict, judge
from tests.evaluation.test_intervals import objects
from tests.results import change, read, write_results

Counts = Mapping[str, tuple[int, int, int]]  # found, missed and false positives of each patient


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def made(network: str, counts: Counts, *, test_set: str = "d" * 64) -> Results:
    """A network with these objects in the test patients' fields."""
    outputs = write_results(network, digest=test_set, patients=[name.removeprefix("p") for name in counts])
    table = objects(**counts)
    table.to_csv(outputs.evaluated / "objects.csv", index=False)
    tp, fp, fn = ((table.label.eq(a) & table.predicted.eq(b)).sum() for a, b in ((1, 1), (0, 1), (1, 0)))
    path = outputs.evaluated / "metrics.json"
    change(path, fields=read(path)["fields"] | {"f1": float(2 * tp / (2 * tp + fp + fn))})
    return read_results(outputs)


def alike(patients: int, counts: tuple[int, int, int]) -> Counts:
    return {f"p{number:02}": counts for number in range(11, 11 + patients)}


def verdict(*evaluated: Results, synthetic: bool = False) -> Verdict:
    found = judge(evaluated, Evaluate(bootstrap=1000, seed=0), synthetic=synthetic)
    assert found is not None
    return found


def test_a_difference_within_chance():
    # F1: 2/3 and 2/5 over both patients; 02 alone says the opposite.
    small = made("small", {"p01": (0, 2, 0), "p02": (1, 1, 0)})
    large = made("large", {"p01": (2, 0, 0), "p02": (0, 2, 0)})
    found = verdict(small, large)
    assert found.sentence == (
        "large is better than small by 26.7 points of F1 in the test patients' whole fields "
        "(95 % interval -66.7 to 100.0): with 2 patients this is within chance."
    )
    assert "paired bootstrap with 1000 draws" in found.method and "own threshold" in found.method
    assert verdict(large, small) == found  # whatever the order in params.yaml
    assert verdict(large, small, synthetic=True).sentence == f"On synthetic data, {found.sentence}"


def test_a_difference_larger_than_chance():
    large, small = made("large", alike(12, (2, 0, 0))), made("small", alike(12, (1, 1, 0)))
    assert verdict(large, small).sentence.endswith(
        "33.3 points of F1 in the test patients' whole fields (95 % interval 33.3 to 33.3): "
        "with 12 patients this is larger than chance."
    )
    assert verdict(large, small).method.startswith("Two-sided p = 0.002,")  # no draw of 1000 is contrary


def test_three_patients_are_too_few_even_if_one_network_is_better_in_all_of_them():
    large, small = made("large", alike(3, (2, 0, 0))), made("small", alike(3, (1, 1, 0)))
    found = verdict(large, small)
    assert found.sentence.endswith("(95 % interval 33.3 to 33.3): 3 patients are too few to rule out chance.")
    assert found.method.startswith("Two-sided p = 0.25,")


def test_a_single_patient_shows_nothing():
    large, small = made("large", alike(1, (2, 0, 0))), made("small", alike(1, (1, 1, 0)))
    assert verdict(large, small) == Verdict(
        "large is better than small by 33.3 points of F1 in the test patients' whole fields; with a single test "
        "patient, chance cannot be ruled out."
    )


def test_equal_networks():
    one, other = (made(name, alike(3, (1, 1, 0))) for name in ("one", "other"))
    assert verdict(one, other).sentence == (
        "one and other have the same F1 in the test patients' whole fields "
        "(95 % interval of the difference 0.0 to 0.0)."
    )


def test_a_limit_just_below_zero_is_not_written_as_minus_zero():
    counts = {"p01": (200, 0, 0), "p02": (200, 0, 1)}
    swapped = {"p01": (200, 0, 2), "p02": (200, 0, 0)}
    assert "-0.0" not in verdict(made("one", counts), made("other", swapped)).sentence


def test_the_best_of_three_is_compared_with_the_second_best():
    networks = [made(name, alike(2, (found, 4 - found, 0))) for name, found in (("b", 2), ("c", 1), ("a", 3))]
    assert verdict(*networks).sentence.startswith("a is better than b by")


def test_only_networks_tested_on_the_same_fields_are_compared():
    a, b = (made(name, alike(2, (found, 3 - found, 0))) for name, found in (("a", 2), ("b", 1)))
    elsewhere = made("elsewhere", alike(2, (3, 0, 0)), test_set="e" * 64)
    sentence = verdict(elsewhere, a, b).sentence
    assert sentence.startswith("a is better than b by")
    assert sentence.endswith(" Tested on other fields and not compared: elsewhere.")
    assert verdict(a, elsewhere) == Verdict(
        "a, elsewhere were tested on different fields and cannot be compared; run `dvc repro`."
    )


def test_one_network_is_not_compared():
    assert judge([made("one", alike(2, (1, 1, 0)))], Evaluate(), synthetic=False) is None


def test_missing_objects_are_named():
    one, other = (made(name, alike(2, (1, 1, 0))) for name in ("one", "other"))
    (other.outputs.evaluated / "objects.csv").unlink()
    with pytest.raises(InputError, match=r"other/objects\.csv: no such file; run `dvc repro evaluate@other` first"):
        verdict(one, other)


def test_objects_of_other_fields_are_named():
    one, other = (made(name, alike(2, (1, 1, 0))) for name in ("one", "other"))
    objects(p01=(9, 0, 0)).to_csv(other.outputs.evaluated / "objects.csv", index=False)
    change(one.outputs.evaluated / "test_set.json", patients=["01", "02"])
    with pytest.raises(InputError, match=r"other/objects\.csv: has other mitoses than that of one; run `dvc repro`"):
        verdict(one, other)


def test_patients_keep_their_names(tmp_path):
    one = made("one", {"p01": (1, 0, 0), "p02": (1, 0, 0)})
    assert pd.read_csv(one.outputs.evaluated / "objects.csv").patient.tolist() == [1, 2]  # what pandas makes of 01
    assert verdict(one, made("other", {"p01": (0, 1, 0), "p02": (1, 0, 0)})).sentence.startswith("one is better")
