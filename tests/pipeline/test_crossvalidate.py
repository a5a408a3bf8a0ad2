"""A whole cross-validation of a small network, interrupted in its second training, started again, and repeated."""

import json
import signal
import time
from pathlib import Path
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
        tiny["train"][NETWORK]["optimisation"] |= {"epochs": 4, "patience": 4}  # long enough to be interrupted
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


def interrupt_in_second_training(project: Project) -> str:
    """Start the command and end it, and nothing else, by SIGTERM in the second fold; returns that training's run."""
    running = project.start(*COMMAND)
    last: list[Path] = []
    deadline = time.monotonic() + 400
    while not last and running.poll() is None and time.monotonic() < deadline:
        last = list((project.folder / ".work").glob(f"train-{NETWORK}-fold1-*/last.pt"))
        time.sleep(0.02)
    running.send_signal(signal.SIGTERM)
    assert running.wait(120) == 130
    assert last and last[0].exists(), "the training did not end with its checkpoint"
    return (last[0].parent / "run_id").read_text()


def test_interrupted_it_goes_on_and_a_second_run_runs_nothing(three_patients: Project) -> None:
    project = three_patients
    split = (project.folder / "results/split.csv").read_bytes()
    run_id = interrupt_in_second_training(project)
    first = json.loads((project.folder / f"crossvalidation/{NETWORK}/fold-0/results/train/{NETWORK}.json").read_text())

    said = project.run(*COMMAND)
    prefix = "crossvalidation/dvc.yaml:"
    ran = [stage.removeprefix(prefix) for stage in stages_in(said) if stage.startswith(prefix)]
    later = [f"{stage}@{NETWORK}-{fold}" for stage in ("detector", "evaluate") for fold in range(FOLDS)]
    assert sorted(ran) == sorted([f"train@{NETWORK}-1", f"train@{NETWORK}-2", *later, f"pool@{NETWORK}"])
    assert stages_in(said) == [prefix + stage for stage in ran]  # nothing is extracted twice

    report: dict[str, Any] = json.loads((project.folder / f"results/crossvalidate/{NETWORK}.json").read_text())
    folds = report["folds"]
    assert sorted(patient for fold in folds for patient in fold["test"]) == ["01", "02", "03"]
    assert [fold["run_id"] for fold in folds][:2] == [first["run_id"], run_id]
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
