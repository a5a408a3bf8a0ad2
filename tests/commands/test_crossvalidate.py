"""Pooled counts are worked out by hand; the command leaves the project as it was, and says what it cannot do.

Whole cross-validations through DVC are in tests/pipeline.
"""

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import pandas as pd
import pytest
from filelock import FileLock

from mitoscope.commands import crossvalidate as crossvalidation
from mitoscope.commands import project_copy
from mitoscope.commands.crossvalidate import OUT, Fold, crossvalidate, plan, pool, read_fold
from mitoscope.errors import InputError
from mitoscope.files import write_json
from mitoscope.params import Evaluate, read_params
from mitoscope.stages.evaluate import evaluate
from tests.commands.conftest import git
from tests.conftest import NETWORK

SETTINGS = Evaluate(bootstrap=100, seed=0)


def table(patient: str, labels: list[int], probabilities: list[float], threshold: float) -> pd.DataFrame:
    content = {"patient": patient, "field": "01", "label": labels, "probability": probabilities}
    return pd.DataFrame(content).assign(predicted=lambda rows: (rows.probability >= threshold).astype(int))


def fold(number: int, patients: list[str], tested: pd.DataFrame) -> Fold:
    split = pd.DataFrame({"patient": patients, "subset": "test"})
    return Fold(number, split, {}, {}, {"patches": tested, "fields": tested}, pd.DataFrame())


def test_each_fold_is_cut_at_its_own_threshold_before_they_are_pooled():
    # Patient 01 at 0.5: 0.9 found, 0.4 missed, 0.6 taken for a mitosis. Patient 02 at 0.8: all three right.
    folds = [
        fold(0, ["01"], table("01", [1, 1, 0, 0], [0.9, 0.4, 0.6, 0.1], 0.5)),
        fold(1, ["02"], table("02", [1, 0, 0], [0.85, 0.7, 0.2], 0.8)),
    ]
    pooled, patients = pool(folds, SETTINGS)
    for level in ("patches", "fields"):
        scores = pooled[level]
        counts = {"patients": 2, "mitoses": 3, "detections": 3, "tp": 2, "fp": 1, "fn": 1}
        assert {name: scores[name] for name in counts} == counts
        assert scores["precision"] == scores["recall"] == scores["f1"] == pytest.approx(2 / 3)
        assert scores["intervals"]["f1"] == (0.5, 1.0)  # patient 01 twice, and patient 02 twice
    first, second = patients[patients.level == "patches"].to_dict("records")
    assert (first["patient"], first["fold"], first["tp"], first["fp"], first["fn"]) == ("01", 0, 1, 1, 1)
    assert first["f1"] == 0.5
    assert first["best_f1_not_attainable"] == pytest.approx(0.8)  # at 0.4: both found, one false
    assert second["f1"] == second["best_f1_not_attainable"] == 1


def test_a_patient_without_detection_and_one_without_anything_count():
    folds = [
        fold(0, ["01"], table("01", [1, 0], [0.9, 0.2], 0.5)),
        fold(1, ["02", "03"], table("02", [1], [0.0], 0.5)),  # 02: a mitosis that no detection reaches; 03: nothing
    ]
    pooled, patients = pool(folds, SETTINGS)
    scores = pooled["fields"]
    assert (scores["patients"], scores["tp"], scores["fp"], scores["fn"]) == (3, 1, 0, 1)
    assert (scores["precision"], scores["recall"]) == (1, 0.5)
    _, missed, empty = patients[patients.level == "fields"].to_dict("records")
    assert (missed["detections"], missed["fn"], missed["f1"], missed["best_f1_not_attainable"]) == (0, 1, 0, 0)
    assert (empty["patient"], empty["fold"], empty["mitoses"], empty["detections"]) == ("03", 1, 0, 0)
    assert pd.isna(empty["recall"]) and pd.isna(empty["f1"]) and pd.isna(empty["best_f1_not_attainable"])


def test_one_patient_has_no_interval():
    pooled, _ = pool([fold(0, ["01"], table("01", [1, 0], [0.9, 0.2], 0.5))], SETTINGS)
    assert pooled["patches"]["intervals"] == {}


def test_it_reads_what_evaluate_writes(trained):
    evaluate(NETWORK)
    read = read_fold(Path(), NETWORK, 0)
    pooled, patients = pool([read], SETTINGS)
    for level in ("patches", "fields"):
        for name in ("mitoses", "precision", "recall", "f1"):
            assert pooled[level][name] == pytest.approx(read.metrics[level][name])
    assert list(patients.patient) == read.patients("test") * 2


def test_every_patient_is_tested_in_one_fold(project):
    splits = plan(read_params().split)
    tested = [patient for split in splits for patient in split.patient[split.subset == "test"]]
    assert sorted(tested) == ["01", "02", "03", "04"]


@pytest.fixture
def dvc(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[tuple[str, ...]]]:
    """Put a stand-in in DVC's place, which fails in one fold where asked to; returns the list of its calls."""

    def stand_in(failing: int | None = None) -> list[tuple[str, ...]]:
        calls: list[tuple[str, ...]] = []

        def run(folder: Path, *arguments: str) -> int:
            calls.append(arguments)
            if arguments[:2] != ("exp", "run"):
                return 0
            assert read_params(folder / "params.yaml").evaluate.bootstrap == 123  # the user's, not the committed ones
            assert (folder / ".work").samefile(".work")  # where trainings go on
            number = next(int(word.removeprefix("split.fold=")) for word in arguments if word.startswith("split.fold="))
            split = plan(read_params().split)[number]
            (patient,) = split.patient[split.subset == "test"]
            results = folder / "results/evaluate" / NETWORK
            results.mkdir(parents=True, exist_ok=True)
            split.to_csv(folder / "results/split.csv", index=False)
            rows = table(patient, [1, 0], [0.9, 0.2 * number], 0.5)
            rows.to_csv(results / "predictions.csv", index=False)
            rows.to_csv(results / "objects.csv", index=False)
            counts = {"patient": [patient], "area_mm2": 0.01, "mitoses_per_mm2": 100.0, "detections_per_mm2": 100.0}
            pd.DataFrame(counts).to_csv(results / "fields.csv", index=False)
            write_json(results / "metrics.json", {level: {"threshold": 0.5} for level in ("patches", "fields")})
            write_json(folder / f"results/train/{NETWORK}.json", {"run_id": f"run{number}"})
            write_json(folder / f"models/{NETWORK}/start.json", {"source": "random"})
            return int(number == failing)

        for module in (crossvalidation, project_copy):
            monkeypatch.setattr(module, "run_dvc", run)
        return calls

    return stand_in


def test_the_command_writes_its_reports_and_leaves_the_rest_alone(repository, dvc, capsys):
    before = git("status", "--porcelain"), Path("params.yaml").read_text()
    calls = dvc()
    crossvalidate(NETWORK)
    assert (git("status", "--porcelain"), Path("params.yaml").read_text()) == before
    assert not list(Path(".dvc/tmp").iterdir())
    names = [f"crossvalidate-{NETWORK}-fold{number}" for number in range(4)]
    assert [call[3] for call in calls if call[:2] == ("exp", "run")] == names
    assert calls[-1][:2] == ("exp", "push") and calls[-1][-4:] == tuple(names)

    report = json.loads((OUT / f"{NETWORK}.json").read_text())
    assert [one["run_id"] for one in report["folds"]] == ["run0", "run1", "run2", "run3"]
    assert sorted(one["test"] for one in report["folds"]) == [["01"], ["02"], ["03"], ["04"]]
    assert report["dataset"]["md5"] == "0123456789abcdef0123456789abcdef.dir"
    assert report["params"]["evaluate"]["bootstrap"] == 123 and "fold" not in report["params"]["split"]
    assert report["start_weights"] == {"source": "random"} and len(report["digest"]) == 64
    assert report["pooled"]["fields"]["fp"] == 1  # 0.6 in fold 3
    assert len(pd.read_csv(OUT / f"{NETWORK}.csv")) == 8
    assert cv2.imread(str(OUT / f"{NETWORK}.png")).shape[1] > 1000
    assert list(pd.read_csv(OUT / f"{NETWORK}-objects.csv").fold) == [0, 0, 1, 1, 2, 2, 3, 3]

    said = " ".join(capsys.readouterr().out.split())
    assert "fold 1 (2 of 4): tests patient" in said
    for words in ("synthetic data", "random start weights", "test patches", "test fields", "not a result"):
        assert words in said


def test_a_failing_fold_ends_it_and_writes_nothing(repository, dvc):
    before = git("status", "--porcelain"), Path("params.yaml").read_text()
    calls = dvc(failing=1)
    with pytest.raises(
        InputError, match=rf"fold 1 \(2 of 4\) failed, .*`mitoscope crossvalidate {NETWORK}` goes on with it"
    ):
        crossvalidate(NETWORK)
    assert len([call for call in calls if call[:2] == ("exp", "run")]) == 2
    assert (git("status", "--porcelain"), Path("params.yaml").read_text()) == before
    assert not OUT.exists() and not list(Path(".dvc/tmp").iterdir())


def test_data_must_be_under_dvc(repository, dvc):
    Path("data.dvc").unlink()
    calls = dvc()
    with pytest.raises(InputError, match=r"data\.dvc: no such file; .*`dvc add data`"):
        crossvalidate(NETWORK)
    assert not calls


def test_a_second_cross_validation_is_kept_out(repository, dvc):
    dvc()
    Path(".work").mkdir()
    lock = f".work/crossvalidate-{NETWORK}.lock"
    with FileLock(lock), pytest.raises(InputError, match=r"another cross-validation of .* is still running"):
        crossvalidate(NETWORK)


@pytest.mark.parametrize("commands", [[], [("init", "--quiet")]], ids=["no repository", "no commit"])
def test_it_needs_a_commit(project, commands):
    for command in commands:
        git(*command)
    with pytest.raises(InputError, match="to be a git repository with a commit: `git init`"):
        crossvalidate(NETWORK)


def test_an_unknown_network_is_said_so(project):
    with pytest.raises(InputError, match=r"params\.yaml: train has no entry 'resnet'"):
        crossvalidate("resnet")


def test_a_fold_that_cannot_work_is_found_before_the_first_one_runs(repository, dvc):
    for annotations in Path("data").glob("03_*.csv"):
        annotations.write_text("")
    calls = dvc()
    with pytest.raises(InputError, match=r"with split\.fold . the .* patients \(03\) have no mitosis"):
        crossvalidate(NETWORK)
    assert not calls
