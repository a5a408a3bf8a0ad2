"""Where a project stands, in each state on its way, with the command that comes next."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from dvc.repo import Repo

from mitoscope.commands.status import status
from mitoscope.files import write_json
from mitoscope.paths import REGISTRY
from tests.conftest import NETWORK
from tests.results import write_results


@pytest.fixture
def said(project, capsys, monkeypatch):
    """The lines of `status` by their names; the project is under DVC with one stage."""
    Repo.init(no_scm=True).close()
    Path("dvc.yaml").write_text("stages: {split: {cmd: 'mkdir results', deps: [data], outs: [results/split.csv]}}")
    monkeypatch.setattr("mitoscope.commands.status.console.width", 140)

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


def test_scores_and_champion_are_shown_as_they_were_left(said):
    Path("dvc.yaml").write_text("stages: {}")
    write_results()
    lines = said()
    assert lines["pipeline"] == "up to date" and lines["next"] == "mitoscope promote"
    assert lines["test fields"] == f"{NETWORK}: F1 33.3 [11, 55] %, 4 in 2 fields, from random weights"
    pooled = {"f1": 0.621, "intervals": {"f1": [0.56, 0.66]}}
    write_json(Path(f"results/crossvalidate/{NETWORK}.json"), {"folds": [{}] * 4, "pooled": {"fields": pooled}})
    write_json(REGISTRY, {"versions": {NETWORK: 2}, "champion": 2})
    lines = said()
    assert lines["cross-validation"] == f"{NETWORK}: F1 62.1 [56, 66] %, 4 folds"
    assert lines["champion"].startswith(f"version 2, {NETWORK}") and lines["next"].startswith("mitoscope compare")


def test_it_answers_while_another_command_holds_dvcs_lock(said):
    code = "from dvc.repo import Repo\nwith Repo().lock: print('held', flush=True); input()"
    holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        lines = said()
    finally:
        holder.communicate(b"\n")
    assert lines["pipeline"].startswith("unknown while another DVC command") and "wait" in lines["next"]
