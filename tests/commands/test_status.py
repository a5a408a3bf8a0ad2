"""Where a project stands, in each state on its way, with the command that comes next."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from dvc.repo import Repo

from mitoscope.commands.status import status
from mitoscope.errors import InputError
from mitoscope.files import write_json
from mitoscope.paths import REGISTRY, Outputs
from tests.conftest import NETWORK
from tests.results import change, read, write_results

pytestmark = pytest.mark.slow  # DVC


@pytest.fixture
def said(project, capsys, monkeypatch):
    """The lines of `status` by their names; the project is under DVC with one stage."""
    Repo.init(no_scm=True).close()
    Path("dvc.yaml").write_text("stages: {split: {cmd: 'mkdir results', deps: [data], outs: [results/split.csv]}}")
    monkeypatch.setattr("mitoscope.commands.status.console.width", 300)

    def run() -> dict[str, str]:
        capsys.readouterr()
        status()
        lines = capsys.readouterr().out.splitlines()
        return dict(re.split("  +", line.strip(), maxsplit=1) for line in lines)

    return run


def test_without_data_it_says_how_to_bring_some(said):
    shutil.rmtree("data")
    lines = said()
    assert lines["data"] == "no folder data/" and "pipeline" not in lines
    assert lines["next"].startswith("dvc pull data.dvc")


def test_a_wrong_name_is_for_validate(said):
    Path("data/wrong.png").touch()
    lines = said()
    assert "data/wrong.png: no patient id" in lines["data"] and lines["next"] == "mitoscope validate"


def test_what_has_not_run_is_out_of_date(said):
    lines = said()
    assert lines["data"].startswith("8 fields of 4 patients") and lines["data"].endswith("synthetic")
    assert lines["pipeline"] == "out of date: split" and lines["next"] == "dvc repro"
    assert lines["test fields"] == "no network has been evaluated" and lines["champion"] == "none yet"


@pytest.fixture
def up_to_date(said):
    """A pipeline with nothing to run, results of a network, and DVC's hash of the data."""
    Path("dvc.yaml").write_text("stages: {}")
    Path("data.dvc").write_text("outs: [{md5: abc.dir, path: data}]")
    write_results(dataset_digest="abc.dir")
    return said


def leave_crossvalidation(digest: str) -> None:
    fields = {"f1": 0.621, "intervals": {"f1": [0.56, 0.66]}}
    report = {"dataset": {"md5": digest}, "folds": [{}] * 4, "pooled": {"fields": fields}}
    write_json(Path(f"results/crossvalidate/{NETWORK}.json"), report)


def leave_registry(*, version: int, champion: int | None) -> None:
    """What `promote` leaves after it has judged the detector."""
    detectors = {NETWORK: read(Outputs(NETWORK).detected)["model_id"]}
    write_json(REGISTRY, {"versions": {NETWORK: version}, "model_ids": detectors, "champion": champion})


def test_scores_and_champion_are_shown_as_they_were_left(up_to_date):
    lines = up_to_date()
    assert lines["pipeline"] == "up to date" and lines["next"] == "mitoscope promote"
    assert lines["test fields"] == f"{NETWORK}: F1 33.3 [11, 55] %, 4 in 2 fields, from random weights, synthetic"
    leave_crossvalidation("abc.dir")
    leave_registry(version=2, champion=2)
    lines = up_to_date()
    assert lines["cross-validation"] == f"{NETWORK}: F1 62.1 [56, 66] %, 4 folds, synthetic"
    assert lines["champion"] == f"version 2, {NETWORK}" and lines["next"].startswith("mitoscope compare")


def test_results_of_other_data_are_said_to_be(up_to_date):
    leave_crossvalidation("of others")
    write_results(dataset_digest="of others")
    lines = up_to_date()
    assert lines["test fields"].endswith("(from other data)")
    assert lines["cross-validation"].endswith("(from other data)")


def test_a_network_that_did_not_pass_is_not_to_be_promoted_again(up_to_date):
    leave_registry(version=1, champion=None)
    lines = up_to_date()
    assert lines["champion"].startswith("none: no detector has passed") and "compare" in lines["next"]


def test_a_detector_that_is_newer_than_the_last_promotion_is_to_be_promoted(up_to_date):
    leave_registry(version=1, champion=1)
    for path in (Outputs(NETWORK).detected, Outputs(NETWORK).evaluated / "test_set.json"):
        change(path, model_id="a newer one")
    lines = up_to_date()
    assert lines["champion"] == f"version 1, {NETWORK}" and lines["next"] == "mitoscope promote"
    write_json(REGISTRY, {"versions": {NETWORK: 1}, "champion": 1})  # as an older version left it
    assert up_to_date()["next"] == "mitoscope promote"


def test_results_that_cannot_be_used_are_named(up_to_date):
    Outputs(NETWORK).detected.write_text("{")
    lines = up_to_date()
    assert "is not a JSON file" in lines["test fields"] and lines["next"] == "dvc repro"


def test_a_pipeline_that_dvc_cannot_read_is_one_line(up_to_date):
    Path("dvc.yaml").write_text("stages: {split: {cmd: 'echo ${nothing}'}}")
    with pytest.raises(InputError, match=r"^dvc\.yaml: .*nothing.*correct dvc\.yaml or params\.yaml$"):
        up_to_date()


def test_it_answers_while_another_command_holds_dvcs_lock(said):
    code = "from dvc.repo import Repo\nwith Repo().lock: print('held', flush=True); input()"
    holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        lines = said()
    finally:
        holder.communicate(b"\n")
    assert lines["pipeline"].startswith("unknown while another DVC command") and "wait" in lines["next"]


def test_it_answers_while_dvc_runs_a_stage(up_to_date):
    locks = Path(".dvc/tmp/rwlock")
    locks.parent.mkdir(exist_ok=True)
    write_json(
        locks, {"write": {str(Path("results").resolve()): {"pid": os.getppid(), "cmd": "dvc repro"}}, "read": {}}
    )
    assert up_to_date()["pipeline"].startswith("unknown while another DVC command")
    write_json(locks, {"write": {}, "read": {}})
    assert up_to_date()["pipeline"] == "up to date"
