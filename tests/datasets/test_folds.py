"""Folds are of whole patients, and alike in fields and mitoses of each domain."""

import pandas as pd
import pytest

from mitoscope.datasets.folds import number_folds


def table_of(mitoses: dict[str, list[int]], domains: dict[str, str] | None = None) -> pd.DataFrame:
    """One row per field, with the number of its mitoses."""
    rows = [
        {"patient": patient, "field": f"{number:02d}", "domain": (domains or {}).get(patient, ""), "mitoses": count}
        for patient, counts in mitoses.items()
        for number, count in enumerate(counts)
    ]
    return pd.DataFrame(rows)


def test_as_many_folds_as_patients_follow_their_names():
    found = number_folds(table_of({"B": [300], "C": [0], "A": [2, 5]}), folds=3, seed=4)
    assert found.to_dict() == {"A": 0, "B": 1, "C": 2}


def test_each_domain_is_in_every_fold():
    domains = {patient: "Aperio" if patient < "D" else "Hamamatsu" for patient in "ABCDEFGHI"}
    table = table_of({patient: [20, 30] if patient < "D" else [2, 1, 0] for patient in domains}, domains)
    found = number_folds(table, folds=3, seed=0)
    counts = pd.crosstab(pd.Series(domains), found)
    assert (counts.loc["Aperio"] == 1).all() and (counts.loc["Hamamatsu"] == 2).all()


def test_domains_that_are_too_rare_for_the_folds_count_together():
    patients = {"A": [1], "B": [2], "C": [1], "D": [3], "E": [1]}
    found = number_folds(table_of(patients, {patient: patient for patient in patients}), folds=4, seed=0)
    assert set(found) == {0, 1, 2, 3}


@pytest.mark.parametrize("seed", range(3))
def test_folds_have_alike_shares(seed):
    table = table_of({f"{number:02d}": [10, 10] if number < 6 else [0, 0] for number in range(12)})
    found = number_folds(table, folds=3, seed=seed)
    assert found.value_counts().tolist() == [4, 4, 4]
    assert table.mitoses.groupby(table.patient.map(found)).sum().tolist() == [40, 40, 40]
