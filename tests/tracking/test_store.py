"""One store, found from everywhere in the project, and one line where it cannot be reached."""

import os
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pytest

from mitoscope.errors import InputError
from mitoscope.tracking.store import EXPERIMENT, connect, store, without_passwords


@pytest.fixture
def client(mlflow_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> mlflow.MlflowClient:
    """Connected to the tests' store, from an empty working directory."""
    monkeypatch.chdir(tmp_path)
    return connect()


class TestStore:
    """Where it is; nothing is opened here."""

    def test_it_is_a_file_of_the_project(self, no_mlflow_environment, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        place = store(Path())
        assert place.uri == f"sqlite:///{tmp_path}/mlflow.db"  # absolute
        assert place.artifacts == tmp_path / "mlartifacts"

    @pytest.mark.parametrize("copy", [".dvc/tmp/exps/tmpabc", ".dvc/tmp/exps/standalone/tmp1/deeper"])
    def test_a_copy_that_dvc_runs_an_experiment_in_uses_the_projects(self, no_mlflow_environment, tmp_path, copy):
        assert store(tmp_path / copy) == store(tmp_path)

    def test_other_folders_named_tmp_are_projects_of_their_own(self, no_mlflow_environment, tmp_path):
        assert store(tmp_path / "tmp" / "exps") != store(tmp_path)

    @pytest.mark.parametrize("uri", ["http://127.0.0.1:5000", "https://mlflow.example.org"])
    def test_a_server_named_by_the_environment_wins(self, no_mlflow_environment, tmp_path, monkeypatch, uri):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        assert (store(tmp_path).uri, store(tmp_path).artifacts) == (uri, None)

    def test_a_file_named_by_the_environment_wins(self, no_mlflow_environment, tmp_path, monkeypatch):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////elsewhere/runs.db")
        assert store(tmp_path).uri == "sqlite:////elsewhere/runs.db"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///runs.db")  # relative to the project, wherever it is used
        assert store(tmp_path / ".dvc/tmp/exps/a").uri == f"sqlite:///{tmp_path}/runs.db"

    def test_an_empty_variable_is_none(self, no_mlflow_environment, tmp_path, monkeypatch):
        before = store(tmp_path)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
        assert store(tmp_path) == before


@pytest.mark.slow
def test_two_processes_make_a_fresh_store_together(no_mlflow_environment, tmp_path):
    copy = tmp_path / ".dvc/tmp/exps/tmpabc"  # one of them in DVC's copy of the project
    copy.mkdir(parents=True)
    code = "from mitoscope.tracking.runs import connect; print(len(connect().search_experiments()))"
    folders = (tmp_path, copy)
    both = [subprocess.Popen([sys.executable, "-c", code], cwd=f, stdout=subprocess.PIPE, text=True) for f in folders]
    assert [process.communicate()[0].split()[-1] for process in both] == ["2", "2"]  # MLflow's Default and ours
    assert [process.returncode for process in both] == [0, 0]
    assert (tmp_path / "mlflow.db").exists() and not (copy / "mlflow.db").exists()


def test_connecting_again_finds_the_experiment(client):
    experiment = client.get_experiment_by_name(EXPERIMENT)
    again = connect().get_experiment_by_name(EXPERIMENT)
    assert experiment is not None and again is not None
    assert again.experiment_id == experiment.experiment_id
    assert Path(experiment.artifact_location.removeprefix("file://")).is_absolute()


def test_a_deleted_experiment_is_said_in_one_line(client):
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    client.delete_experiment(experiment.experiment_id)
    try:
        with pytest.raises(InputError, match=r"the MLflow store cannot be opened .*deleted") as caught:
            connect()
        assert "\n" not in str(caught.value)
    finally:
        client.restore_experiment(experiment.experiment_id)


@pytest.mark.parametrize("scheme", ["http", "postgresql"])
def test_a_server_that_is_not_there_is_said_in_one_line_without_the_password(
    no_mlflow_environment, mlflow_store, tmp_path, monkeypatch, scheme
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "")  # so that it is put back
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{scheme}://someone:secret@127.0.0.1:9/runs")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")  # half the wait
    started = time.monotonic()
    with pytest.raises(InputError) as caught:
        connect()
    assert time.monotonic() - started < 40  # and not MLflow's own minutes
    said = str(caught.value)
    assert said.startswith(f"{scheme}://***@127.0.0.1:9/runs: the MLflow store cannot be opened (")
    if scheme == "http":
        assert "opened (Connection refused); MLFLOW_TRACKING_URI chooses another" in said
    assert "MLFLOW_TRACKING_URI" in said and "secret" not in said and "\n" not in said
    assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("to http://me:sec/r@t@host:1/api failed (a@b)", "to http://***@host:1/api failed (a@b)"),
        ("postgresql:///runs?user=me&password=secret&host=/tmp", "postgresql:///runs?user=me&password=***&host=/tmp"),
        ("sqlite:////home/me@work/runs.db", "sqlite:////home/me@work/runs.db"),
    ],
)
def test_passwords_are_not_shown(text, shown):
    assert without_passwords(text) == shown
