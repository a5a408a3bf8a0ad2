"""Runs are kept in one place, whole, and a resumed training goes on in its own."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pandas as pd
import pytest
import torch
import yaml

from mitoscope import serving
from mitoscope.errors import InputError
from mitoscope.learning.checkpoints import save_network
from mitoscope.learning.networks import build
from mitoscope.tracking.runs import (
    EXPERIMENT,
    connect,
    exists,
    flatten,
    log_dataset,
    log_epochs,
    log_results,
    log_training,
    store,
    training_run,
    without_passwords,
)


@pytest.fixture
def client(mlflow_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> mlflow.MlflowClient:
    """Connected to the tests' store, from an empty working directory."""
    monkeypatch.chdir(tmp_path)
    return connect()


def epoch(number: int) -> dict[str, float]:
    return {"train/loss": 1 / number, "validation/f1": number / 10}


def steps(client: mlflow.MlflowClient, run_id: str, name: str) -> list[tuple[int, float]]:
    return sorted((metric.step, metric.value) for metric in client.get_metric_history(run_id, name))


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


@pytest.mark.parametrize("scheme", ["http", "postgresql+psycopg2", "postgresql"])
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


def test_a_store_that_stops_answering_ends_a_training_in_one_line(client, mlflow_store, tmp_path):
    with (
        pytest.raises(InputError, match=r"MLflow failed \(gone\); started again, the training goes on") as caught,
        training_run("alexnet", tmp_path / "run_id", {}, {}),
    ):
        raise mlflow.MlflowException("gone")
    assert str(caught.value).startswith(mlflow_store)


def test_a_run_holds_params_and_tags(client, tmp_path):
    params = {"train": {"lr": 0.1, "rotations": {"positive": (0, 45)}}, "launch": "mitoscope"}
    with training_run("alexnet", tmp_path / "work/run_id", params, {"synthetic": "true"}) as run_id:
        assert client.get_run(run_id).info.status == "RUNNING"
        log_dataset("some fields", "0123456789abcdef0123456789abcdef.dir", tmp_path)
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED" and run.info.run_name == "alexnet"
    assert run.data.params == {"train.lr": "0.1", "train.rotations.positive": "[0, 45]", "launch": "mitoscope"}
    assert run.data.tags["synthetic"] == "true"
    (dataset,) = run.inputs.dataset_inputs
    assert (dataset.dataset.name, dataset.dataset.digest[-4:]) == ("some fields", ".dir")
    assert (tmp_path / "work/run_id").read_text() == run_id


def test_a_killed_training_goes_on_in_its_run(client, tmp_path):
    file = tmp_path / "run_id"
    with pytest.raises(KeyboardInterrupt), training_run("alexnet", file, {"lr": 0.1}, {"a": "b"}) as first:
        log_epochs(first, [epoch(1)])
        raise KeyboardInterrupt
    assert client.get_run(first).info.status != "FINISHED"
    with training_run("alexnet", file, {"lr": 0.1}, {"a": "b"}) as second:
        log_epochs(second, [epoch(1), epoch(2)])
    assert second == first and client.get_run(first).info.status == "FINISHED"
    assert client.get_run(first).data.params == {"lr": "0.1"}
    assert steps(client, first, "train/loss") == [(1, 1.0), (2, 0.5)]


@pytest.mark.parametrize("left", ["deleted run", "run of another store"])
def test_a_run_that_is_gone_is_begun_anew(client, tmp_path, left):
    file = tmp_path / "run_id"
    file.write_text("0" * 32)
    if left == "deleted run":
        with training_run("alexnet", tmp_path / "other", {}, {}) as gone:
            pass
        client.delete_run(gone)
        file.write_text(gone)
        assert not exists(client, gone)
    old = file.read_text()
    with training_run("alexnet", file, {"lr": 0.2}, {}) as run_id:
        pass
    assert run_id != old and file.read_text() == run_id
    assert client.get_run(run_id).data.params == {"lr": "0.2"}


def test_epochs_are_logged_once_and_none_is_missed(client, tmp_path):
    history = [epoch(number) for number in range(1, 6)]
    with training_run("alexnet", tmp_path / "run_id", {}, {}) as run_id:
        for upto in (1, 2, 2, 5, 5):  # twice the same; then two that nobody logged at their time
            log_epochs(run_id, history[:upto])
    expected = [(number, 1 / number) for number in range(1, 6)]
    assert steps(client, run_id, "train/loss") == [(step, pytest.approx(value)) for step, value in expected]
    assert len(steps(client, run_id, "validation/f1")) == 5


def test_results_join_a_finished_run(client, tmp_path):
    with training_run("alexnet", tmp_path / "run_id", {}, {}) as run_id:
        model = mlflow.initialize_logged_model("best", source_run_id=run_id)
    (tmp_path / "predictions.csv").write_text("name\n")
    log_results(run_id, model.model_id, {"test/f1": 0.8}, {"tables": [tmp_path / "predictions.csv"]})
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED" and run.data.metrics["test/f1"] == 0.8
    assert [item.path for item in client.list_artifacts(run_id, "tables")] == ["tables/predictions.csv"]
    (metric,) = client.get_logged_model(model.model_id).metrics
    assert (metric.key, metric.value) == ("test/f1", 0.8)


def test_results_of_an_unknown_run_are_refused(client, mlflow_store):
    with pytest.raises(InputError, match=f"{mlflow_store}: has no run {'0' * 32}.*set MLFLOW_TRACKING_URI"):
        log_results("0" * 32, "m-1", {"test/f1": 0.8}, {})


@pytest.mark.slow
def test_the_logged_model_answers_as_the_network_does(client, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))  # MLflow adds the model's own code to it
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build({"arch": "alexnet", "patch_size": 48, "input_size": 64}).eval()
        patches = torch.randint(0, 256, (5, 48, 48, 3), dtype=torch.uint8)
    save_network(tmp_path / "best.pt", network, threshold=0.5)
    (tmp_path / "last.pt").write_bytes(b"last")
    (tmp_path / "curves.png").write_bytes(b"curves")
    table = pd.DataFrame({serving.INPUT: [serving.encode(patch.numpy()) for patch in patches]})
    with training_run("alexnet", tmp_path / "run_id", {}, {}) as run_id:
        model_id = log_training(
            model_code=Path(serving.__file__),
            network=tmp_path / "best.pt",
            example=table[:1],
            answer=pd.DataFrame({serving.PROBABILITY: [0.5], serving.MITOSIS: [True]}),
            requirements=["torch"],
            metrics={"validation/f1": 0.7},
            last_checkpoint=tmp_path / "last.pt",
            pictures=[tmp_path / "curves.png"],
        )
    model = mlflow.pyfunc.load_model(f"models:/{model_id}")
    with torch.inference_mode():
        expected = network(patches.permute(0, 3, 1, 2)).softmax(dim=1)[:, 1].double()
    for count in (1, 2, 5):
        answer = model.predict(table[:count])
        torch.testing.assert_close(torch.tensor(answer.probability.to_numpy()), expected[:count], atol=1e-5, rtol=1e-4)
        assert (answer.mitosis == (answer.probability >= 0.5)).all()

    logged = client.get_logged_model(model_id)
    assert {metric.key: metric.value for metric in logged.metrics} == {"best_validation/f1": 0.7}
    folder = Path(logged.artifact_location.removeprefix("file://"))
    names = {path.name for path in folder.rglob("*")}
    assert "best.pt" in names and "serving.py" in names
    assert not [name for name in names if name.endswith((".pkl", ".pickle", ".joblib"))]
    assert (
        "serving.py"
        in yaml.safe_load((folder / "MLmodel").read_text())["flavors"]["python_function"]["model_code_path"]
    )
    kept = {item.path for place in ("checkpoints", "pictures") for item in client.list_artifacts(run_id, place)}
    assert kept == {"checkpoints/last.pt", "pictures/curves.png"}


def test_flatten_names_every_entry():
    nested = {"a": {"b": {"c": 1}, "d": (0, 45)}, "e": None, "f": {}}
    assert flatten(nested) == {"a.b.c": 1, "a.d": [0, 45], "e": None}
    assert json.dumps(flatten(nested))
