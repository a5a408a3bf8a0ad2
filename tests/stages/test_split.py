"""Every patient is in one subset only, whatever the patients, and is tested once over all folds."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mitoscope.errors import InputError
from mitoscope.paths import split_path
from mitoscope.stages.split import assign, split
from tests.conftest import tiny_params, write_params


def table_of(patients: list[list[int]]) -> pd.DataFrame:
    """One row per field, from the mitoses in each field of each patient."""
    rows = [
        {"patient": f"{number:02d}", "field": f"{field:02d}", "domain": "", "mitoses": mitoses}
        for number, fields in enumerate(patients, start=1)
        for field, mitoses in enumerate(fields, start=1)
    ]
    return pd.DataFrame(rows)


counts = st.one_of(st.integers(0, 3), st.sampled_from([0, 20, 400]))  # skewed: many have none, some have very many
some_patients = st.lists(st.lists(counts, min_size=1, max_size=3), min_size=3, max_size=9)
patients_with_mitoses = some_patients.map(lambda patients: [[fields[0] + 1, *fields[1:]] for fields in patients])


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(patients=some_patients, data=st.data())
def test_patients_are_split_whole(patients, data):
    folds = data.draw(st.integers(3, len(patients)))
    fold, seed = data.draw(st.integers(0, folds - 1)), data.draw(st.integers(0, 5))
    try:
        table = assign(table_of(patients), folds=folds, fold=fold, seed=seed)
    except InputError as error:
        assert "have no mitosis" in str(error) and "(none)" not in str(error)
        assert any(sum(fields) == 0 for fields in patients)
        return
    assert list(table.columns) == ["patient", "fold", "subset", "mitoses", "fields"]
    assert table.patient.tolist() == [f"{number:02d}" for number in range(1, len(patients) + 1)]
    assert set(table.subset) == {"train", "validation", "test"}
    assert ((table.subset == "test") == (table.fold == fold)).all()
    assert ((table.subset == "validation") == (table.fold == (fold + 1) % folds)).all()
    assert table.mitoses.tolist() == [sum(fields) for fields in patients]
    assert table.fields.tolist() == [len(fields) for fields in patients]
    mitoses = table.groupby("subset").mitoses.sum()
    assert mitoses["train"] > 0 and mitoses["validation"] > 0


@pytest.mark.slow
@settings(max_examples=6, deadline=None)
@given(patients=patients_with_mitoses, data=st.data())
def test_every_patient_is_tested_and_validated_once(patients, data):
    folds, seed = data.draw(st.integers(3, len(patients))), data.draw(st.integers(0, 5))
    tables = [assign(table_of(patients), folds=folds, fold=fold, seed=seed) for fold in range(folds)]
    for subset in ("test", "validation"):
        parts = [table.patient[table.subset == subset].tolist() for table in tables]
        assert all(parts)  # no fold is empty
        assert sorted(patient for part in parts for patient in part) == tables[0].patient.tolist()
    for table, following in zip(tables, tables[1:] + tables[:1], strict=True):
        assert table.fold.tolist() == following.fold.tolist()
        validated, tested = table.patient[table.subset == "validation"], following.patient[following.subset == "test"]
        assert validated.tolist() == tested.tolist()


def test_as_many_folds_as_patients_leave_one_out():
    patients = [[5], [1, 2], [300], [2], [7, 0, 0]]
    tested = []
    for fold in range(5):
        table = assign(table_of(patients), folds=5, fold=fold, seed=0)
        assert table.subset.value_counts().to_dict() == {"train": 3, "validation": 1, "test": 1}
        tested += table.patient[table.subset == "test"].tolist()
    assert sorted(tested) == ["01", "02", "03", "04", "05"]


@settings(max_examples=15, deadline=None)
@given(patients=patients_with_mitoses, seed=st.integers(0, 5), data=st.data())
def test_who_validates_whom_depends_on_no_count_where_every_fold_is_one_patient(patients, seed, data):
    folds = len(patients)
    fold = data.draw(st.integers(0, folds - 1))
    table = assign(table_of(patients), folds=folds, fold=fold, seed=seed).set_index("subset")
    names = [f"{number:02d}" for number in range(1, folds + 1)]  # in their order, and the first after the last
    assert (table.patient["test"], table.patient["validation"]) == (names[fold], names[(fold + 1) % folds])


def test_two_mitoses_more_change_no_pair():
    def pairs(patients: list[list[int]]) -> list[tuple[str, str]]:
        tables = [assign(table_of(patients), folds=4, fold=fold, seed=0).set_index("subset") for fold in range(4)]
        return [(table.patient["test"], table.patient["validation"]) for table in tables]

    assert pairs([[5], [3, 3], [4], [9]]) == pairs([[5], [3, 3], [6], [9]])  # now as many as the second has


def test_the_seed_shuffles_and_nothing_else_does():
    patients = table_of([[3, 4]] * 12)
    first, again, other = (assign(patients, folds=4, fold=0, seed=seed) for seed in (0, 0, 1))
    pd.testing.assert_frame_equal(first, again)
    assert first.subset.tolist() != other.subset.tolist()
    shuffled = patients.sample(frac=1, random_state=0).sort_values("patient", kind="stable")
    pd.testing.assert_frame_equal(assign(shuffled, folds=4, fold=0, seed=0), first)


@pytest.mark.parametrize(
    ("patients", "folds", "fold", "complaint"),
    [
        ([[1]] * 4, 5, 0, "split.folds is 5, but there are only 4 patients"),
        ([[1]] * 4, 4, 4, "there is no fold 4; the last is 3"),
        ([[0]] * 4, 4, 0, r"the train patients .* have no mitosis"),
    ],
)
def test_what_cannot_be_split_is_said(patients, folds, fold, complaint):
    with pytest.raises(InputError, match=complaint):
        assign(table_of(patients), folds=folds, fold=fold, seed=0)


def test_only_one_patient_with_mitoses_never_both_trains_and_validates():
    for fold in range(4):
        with pytest.raises(InputError, match=r"split\.fold .* have no mitosis; choose another"):
            assign(table_of([[0], [0, 0], [50], [0]]), folds=4, fold=fold, seed=0)


def read(fold: int | None = None) -> pd.DataFrame:
    return pd.read_csv(split_path(fold), dtype={"patient": str})


def set_split(**entries: int) -> None:
    write_params(tiny_params() | {"split": entries})


def moved(said: str) -> str:
    """The patients that the stage says have moved to another fold."""
    return said.partition("patients have moved to another fold: ")[2].partition(";")[0]


def test_the_stage_counts_what_the_csv_files_say(project, capsys):
    split()
    table = read()
    assert table.patient.tolist() == ["01", "02", "03", "04"] and table.fields.tolist() == [2] * 4
    lines = {path.stem: len(path.read_text().split()) for path in Path("data").glob("*.csv")}
    for row in table.itertuples():
        assert row.mitoses == sum(count for name, count in lines.items() if name.startswith(row.patient))
    said = capsys.readouterr().out
    test = table[table.subset == "test"].iloc[0]
    assert f"test: {test.mitoses} mitoses in 2 fields of patients {test.patient}\n" in said


def test_the_stage_writes_nothing_when_it_fails(project):
    set_split(folds=5, fold=0, seed=0)
    with pytest.raises(InputError, match="only 4 patients"):
        split()
    assert not Path("results/split.csv").exists()


def test_a_fold_of_the_cross_validation_has_a_file_of_its_own(project):
    split()
    before = Path("results/split.csv").read_bytes()
    split(fold=2)
    assert Path("results/split.csv").read_bytes() == before
    assert split_path(2) == Path("crossvalidation/split/fold-2.csv")
    own, second = read(), read(fold=2)
    assert own.fold.tolist() == second.fold.tolist()
    assert own.patient[own.subset == "test"].tolist() == ["01"]
    assert second.patient[second.subset == "test"].tolist() == ["03"]
    with pytest.raises(InputError, match="there is no fold 4; the last is 3"):
        split(fold=4)


def test_the_stage_says_who_moves_when_a_patient_comes(project, capsys):
    split()
    assert moved(capsys.readouterr().out) == ""  # the first time there is no before
    split()
    assert moved(capsys.readouterr().out) == ""
    for suffix in (".jpg", ".csv"):
        shutil.copy(f"data/01_01{suffix}", f"data/05_01{suffix}")
    set_split(folds=5)
    split()
    assert moved(capsys.readouterr().out) == ""  # the last one takes a fold of its own
    for suffix in (".jpg", ".csv"):
        shutil.copy(f"data/01_01{suffix}", f"data/00_01{suffix}")
    set_split(folds=6)
    split()
    said = capsys.readouterr().out
    assert moved(said) == "01, 02, 03, 04, 05"
    assert "since the last split 5 patients" in said and "may have learnt from patients that are now tested" in said


def test_the_stage_says_who_moves_when_a_field_goes(project, capsys):
    set_split(folds=3)
    split()
    before = read().set_index("patient").fold
    capsys.readouterr()
    Path("data/03_02.jpg").unlink()
    split()
    after = read().set_index("patient").fold
    movers = after.index[after != before]
    assert 0 < len(movers) < 4
    assert moved(capsys.readouterr().out) == ", ".join(movers)


def test_another_fold_that_tests_moves_nobody(project, capsys):
    split()
    set_split(folds=4, fold=2)
    split()
    assert moved(capsys.readouterr().out) == "" and read().subset.tolist() == ["train", "train", "test", "validation"]


def test_a_split_of_an_older_version_tells_nothing_of_folds(project, capsys):
    split()
    read()[["patient", "subset", "mitoses", "fields"]].to_csv("results/split.csv", index=False)
    set_split(folds=3)
    split()
    assert moved(capsys.readouterr().out) == "" and "fold" in read()
