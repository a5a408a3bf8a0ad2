"""A whole cross-validation of a small network, and what a second one runs."""

import json
from typing import Any

import pandas as pd
import pytest

from tests.conftest import NETWORK, tiny_params

from .conftest import Params, Project, stages_in

pytestmark = pytest.mark.slow
COMMAND = ("mitoscope", "crossvalidate", NETWORK)
FOLDS = 3
# Results of the project's own split, which a cross-validation must leave alone.
OWN = (f"results/train/{NETWORK}.json", f"results/evaluate/{NETWORK}/metrics.json", f"models/{NETWORK}/detector.pt")


@pytest.fixture
def three_patients(project: Project) -> Project:
    """Three synthetic patients with two small fields each, a network of a few MB, and results of an own split."""

    def shrink(params: Params) -> None:
        tiny = tiny_params() | {"launch": "mitoscope", "split": {"folds": FOLDS, "fold": 1}}
        params.clear()
        params.update(tiny)

    project.run("mitoscope", "synthesize", "--patients", "3", "--fields", "2", "--size", "400", "--seed", "3")
    (project.folder / "data.dvc").unlink()
    project.run("dvc", "add", "--quiet", "data")
    project.change_params(shrink)
    project.run("dvc", "repro", "split")
    for path in OWN:
        (project.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (project.folder / path).write_text("own")
    return project


def test_every_patient_is_tested_and_a_second_run_runs_nothing(three_patients: Project) -> None:
    project = three_patients
    split = (project.folder / "results/split.csv").read_bytes()
    said = project.run(*COMMAND)
    prefix = "crossvalidation/dvc.yaml:"
    ran = [stage.removeprefix(prefix) for stage in stages_in(said) if stage.startswith(prefix)]
    per_fold = ("search", "train", "detector", "evaluate")
    folds_ran = [f"{stage}@{NETWORK}-{fold}" for stage in per_fold for fold in range(FOLDS)]
    assert sorted(ran) == sorted([*(f"split@{fold}" for fold in range(FOLDS)), *folds_ran, f"pool@{NETWORK}"])
    once = [stage for stage in stages_in(said) if not stage.startswith(prefix)]
    assert sorted(once) == ["extract", f"weights@{NETWORK}"]

    report: dict[str, Any] = json.loads((project.folder / f"results/crossvalidate/{NETWORK}.json").read_text())
    folds = report["folds"]
    assert sorted(patient for fold in folds for patient in fold["test"]) == ["01", "02", "03"]
    assert len({fold["run_id"] for fold in folds}) == FOLDS
    for level, counts in (("patches", ["mitoses"]), ("fields", ["mitoses", "detections", "tp", "fp", "fn"])):
        for name in counts:
            assert report["pooled"][level][name] == sum(fold[level][name] for fold in folds)
    objects = pd.read_csv(project.folder / f"results/crossvalidate/{NETWORK}-objects.csv", dtype={"patient": str})
    assert set(objects.fold) == set(range(FOLDS)) and set(objects.network) == {NETWORK}

    again = project.run(*COMMAND)
    assert not stages_in(again) and f"test fields of {FOLDS} folds" in again
    assert json.loads((project.folder / f"results/crossvalidate/{NETWORK}.json").read_text()) == report
    assert [(project.folder / path).read_text() for path in OWN] == ["own"] * len(OWN)
    assert (project.folder / "results/split.csv").read_bytes() == split
