"""One store, found from everywhere in the project, and one line where it cannot be reached."""

import os
import shlex
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import mlflow
import pytest
from click.testing import CliRunner
from filelock import FileLock, Timeout

from mitoscope.errors import InputError
from mitoscope.tracking.store import (
    EXPERIMENT,
    connect,
    exists,
    locked,
    open_store,
    require_run,
    store,
    without_passwords,
)
from tests.servers import free_port


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
def test_two_processes_make_a_fresh_store_together(no_mlflow_environment, tmp_path, programs):
    copy = tmp_path / ".dvc/tmp/exps/tmpabc"  # one of them in DVC's copy of the project
    copy.mkdir(parents=True)
    code = "from mitoscope.tracking.runs import connect; print(len(connect().search_experiments()))"
    folders = (tmp_path, copy)
    command = [programs / "python", "-c", code]
    both = [subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) for folder in folders]
    assert [process.communicate()[0].split()[-1] for process in both] == ["2", "2"]  # MLflow's Default and ours
    assert [process.returncode for process in both] == [0, 0]
    assert (tmp_path / "mlflow.db").exists() and not (copy / "mlflow.db").exists()


def test_connecting_again_finds_the_experiment(client):
    experiment = client.get_experiment_by_name(EXPERIMENT)
    again = connect().get_experiment_by_name(EXPERIMENT)
    assert experiment is not None and again is not None
    assert again.experiment_id == experiment.experiment_id
    assert Path(experiment.artifact_location.removeprefix("file://")).is_absolute()


def test_a_store_is_opened_without_an_experiment_and_leaves_no_trace_in_the_environment(own_store):
    client = open_store()
    assert [experiment.name for experiment in client.search_experiments()] == ["Default"]
    assert (
        "MLFLOW_TRACKING_URI" not in os.environ
    )  # MLflow sets it, and another project's would be taken for this one's


class TestADeletedExperiment:
    @pytest.fixture
    def deleted(self, client: mlflow.MlflowClient) -> Iterator[mlflow.MlflowClient]:
        """The tests' store, whose experiment has a run and is deleted for this test."""
        experiment = client.get_experiment_by_name(EXPERIMENT)
        assert experiment is not None
        self.run_id = client.create_run(experiment.experiment_id).info.run_id
        client.delete_experiment(experiment.experiment_id)
        yield client
        if client.get_experiment(experiment.experiment_id).lifecycle_stage == "deleted":
            client.restore_experiment(experiment.experiment_id)

    def test_it_can_be_read(self, deleted):
        client = open_store()
        assert require_run(client, self.run_id).info.run_id == self.run_id
        assert not exists(client, self.run_id)  # for writing

    def test_a_run_deleted_by_itself_is_gone(self, client):
        run_id = client.create_run(client.get_experiment_by_name(EXPERIMENT).experiment_id).info.run_id
        client.delete_run(run_id)
        with pytest.raises(InputError, match=f"there is no run {run_id}"):
            require_run(client, run_id)

    def test_who_writes_is_told_the_command_that_brings_it_back(self, deleted, mlflow_store):
        with pytest.raises(InputError) as caught:
            connect()
        said = str(caught.value)
        assert said.startswith(f"{mlflow_store}: the experiment 'mitoscope' was deleted; restore it with `mlflow ")
        run_remedy(said)
        assert connect() and exists(deleted, self.run_id)

    def test_the_command_names_the_store_where_no_variable_does(self, own_store, monkeypatch):
        client = connect()
        client.delete_experiment(client.get_experiment_by_name(EXPERIMENT).experiment_id)
        with pytest.raises(InputError) as caught:
            connect()
        assert f"`MLFLOW_TRACKING_URI=sqlite:///{own_store} mlflow " in str(caught.value)
        monkeypatch.chdir("/")
        run_remedy(str(caught.value))
        monkeypatch.chdir(own_store.parent)
        connect()


def run_remedy(line: str) -> None:
    """Run the command between backquotes of a line, with the variables before it."""
    from mlflow.cli import cli

    words = shlex.split(line.split("`")[1])
    command = words.index("mlflow")
    variables = dict(word.split("=", 1) for word in words[:command])
    if given := os.environ.get("MLFLOW_TRACKING_URI"):
        variables["MLFLOW_TRACKING_URI"] = given
    mlflow.set_tracking_uri(None)  # a process of its own has been told nothing
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        done = CliRunner().invoke(cli, words[command + 1 :])
    if given:
        os.environ["MLFLOW_TRACKING_URI"] = given
    assert done.exit_code == 0, done.output


class TestExists:
    def test_a_run_of_no_store_does_not(self, client):
        assert not exists(client, "0" * 32)

    def test_a_connection_that_died_is_no_answer(self, client, monkeypatch):
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        gone = mlflow.MlflowClient(f"http://127.0.0.1:{free_port()}")
        with pytest.raises(InputError, match=rf"cannot read run {'0' * 32} from .* \(Connection refused\)") as caught:
            exists(gone, "0" * 32)
        assert "\n" not in str(caught.value)


class TestLocked:
    """Who meets whom: a lock that is held keeps the others out."""

    @pytest.fixture(autouse=True)
    def _impatient(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("mitoscope.tracking.store.FileLock", partial(FileLock, timeout=0))

    def meet(self, one: Path, other: Path) -> bool:
        with locked("registry", one):
            try:
                with locked("registry", other):
                    return False
            except Timeout:
                return True

    def test_an_experiment_of_dvc_meets_its_project(self, no_mlflow_environment, tmp_path):
        copy = tmp_path / ".dvc/tmp/exps/tmpabc"
        copy.mkdir(parents=True)
        assert self.meet(tmp_path, copy)

    def test_two_projects_with_one_database_meet_and_else_do_not(self, no_mlflow_environment, tmp_path, monkeypatch):
        projects = [tmp_path / "one", tmp_path / "two"]
        for project in projects:
            project.mkdir()
        assert not self.meet(*projects)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/runs.db")
        assert self.meet(*projects)

    def test_a_folder_that_is_no_project_gets_none_for_a_server(self, no_mlflow_environment, tmp_path, monkeypatch):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
        with locked("registry", tmp_path):
            assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("scheme", ["http", "postgresql"])
def test_a_server_that_is_not_there_is_said_in_one_line_without_the_password(
    no_mlflow_environment, mlflow_store, tmp_path, monkeypatch, scheme
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "")  # so that it is put back
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{scheme}://someone:secret@127.0.0.1:9/runs")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")  # it tries as often, and does not wait
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_JITTER", "0")
    started = time.monotonic()
    with pytest.raises(InputError) as caught:
        connect()
    assert time.monotonic() - started < 20
    said = str(caught.value)
    assert said.startswith(f"{scheme}://***@127.0.0.1:9/runs: the MLflow store cannot be opened (")
    if scheme == "http":
        assert "opened (Connection refused); MLFLOW_TRACKING_URI chooses another" in said
    assert "MLFLOW_TRACKING_URI" in said and "secret" not in said and "\n" not in said
    assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ


def test_a_server_that_hangs_up_is_asked_four_times(no_mlflow_environment, mlflow_store, tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_JITTER", "0")
        asked = []

        def hang_up() -> None:
            for _ in range(8):  # MLflow's own patience
                connection, address = server.accept()
                asked.append(address)
                connection.close()

        threading.Thread(target=hang_up, daemon=True).start()
        with pytest.raises(InputError, match="the MLflow store cannot be opened"):
            connect()
        assert len(asked) == 4


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
