"""The UI opens on the view of the networks."""

import json
import os
import socket
import sys
from pathlib import Path

import pytest

from mitoscope.commands.ui import ui
from mitoscope.errors import InputError
from mitoscope.tracking.store import EXPERIMENT, Store, connect
from mitoscope.tracking.views import TAG


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, a project by its params.yaml."""
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").touch()
    return tmp_path


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The programs that this process would have become."""
    programs: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda program, arguments: programs.append([program, *arguments]))
    monkeypatch.setenv("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    monkeypatch.setenv("MLFLOW_BACKEND_STORE_URI", "")  # so that it is put back
    return programs


def test_the_server_starts_on_the_store_and_the_view_is_there(project, mlflow_store, started, capsys):
    ui("127.0.0.1", 5123)
    ((program, *arguments),) = started
    assert program == sys.executable and arguments[1:4] == ["-m", "mlflow", "ui"]
    options = dict(zip(arguments[4::2], arguments[5::2], strict=True))
    assert os.environ["MLFLOW_BACKEND_STORE_URI"] == mlflow_store and options["--port"] == "5123"
    assert mlflow_store not in arguments  # a password in it would be seen
    assert options["--artifacts-destination"] == str(project / "mlartifacts")
    experiment = connect().get_experiment_by_name(EXPERIMENT)
    assert json.loads(experiment.tags[TAG])["name"]
    address = f"http://127.0.0.1:5123/#/experiments/{experiment.experiment_id}/runs?"
    assert address in capsys.readouterr().out


def test_a_port_that_is_taken_is_said_at_once(project, mlflow_store, started):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(InputError, match=f"port {port} of 127.0.0.1 is not available .*; choose another with"):
            ui("127.0.0.1", port)
    assert started == []


def test_runs_on_a_server_are_not_served_twice(project, mlflow_store, started, monkeypatch, capsys):
    monkeypatch.setattr("mitoscope.commands.ui.store", lambda folder: Store("http://somewhere:5000/", None))
    ui("127.0.0.1", 5000)
    assert started == []
    assert "http://somewhere:5000/#/experiments/" in capsys.readouterr().out


def test_a_deleted_experiment_can_be_looked_at_and_is_said_with_the_remedy(project, mlflow_store, started, capsys):
    client = connect()
    experiment = client.get_experiment_by_name(EXPERIMENT)
    client.delete_experiment(experiment.experiment_id)
    try:
        ui("127.0.0.1", 5123)
    finally:
        client.restore_experiment(experiment.experiment_id)
    assert len(started) == 1
    said = capsys.readouterr().out
    assert f"`mlflow experiments restore --experiment-id {experiment.experiment_id}`" in said
    assert "http://127.0.0.1:5123/#/experiments " in said


def test_in_a_folder_of_the_project_nothing_is_made(no_mlflow_environment, project, started, monkeypatch):
    (project / "docs").mkdir()
    monkeypatch.chdir(project / "docs")
    with pytest.raises(InputError, match=r"ui: there is no MLflow store .*; run this in the project's folder"):
        ui("127.0.0.1", 5123)
    assert not list((project / "docs").iterdir()) and started == []
