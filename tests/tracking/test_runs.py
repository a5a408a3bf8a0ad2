"""Runs are kept in one place, whole, and a resumed training goes on in its own."""

import json
import shutil
import sqlite3
import sys
from pathlib import Path

import mlflow
import pytest
import yaml
from mlflow.entities import LoggedModelStatus

from mitoscope.errors import InputError
from mitoscope.tracking import runs
from mitoscope.tracking.models import detector_file
from mitoscope.tracking.runs import flatten, log_dataset, log_epochs, log_results, log_training, training_run
from mitoscope.tracking.store import connect, exists
from tests.tracking.conftest import log_text_as_detector


def epoch(number: int) -> dict[str, float]:
    return {"train/loss": 1 / number, "validation/f1": number / 10}


def steps(client: mlflow.MlflowClient, run_id: str, name: str) -> list[tuple[int, float]]:
    return sorted((metric.step, metric.value) for metric in client.get_metric_history(run_id, name))


def test_a_store_that_stops_answering_ends_a_training_in_one_line(client, mlflow_store, tmp_path):
    with (
        pytest.raises(InputError, match=r"MLflow failed \(gone\); run this again to continue the training") as caught,
        training_run("small", tmp_path / "run_id", {}, {}),
    ):
        raise mlflow.MlflowException("gone")
    assert str(caught.value).startswith(mlflow_store)


def test_a_run_holds_params_and_tags(client, tmp_path):
    params = {"train": {"lr": 0.1, "rotations": {"positive": (0, 45)}}, "launch": "mitoscope"}
    with training_run("small", tmp_path / "work/run_id", params, {"synthetic": "true"}) as run_id:
        assert client.get_run(run_id).info.status == "RUNNING"
        log_dataset("some fields", "0123456789abcdef0123456789abcdef.dir", tmp_path)
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED" and run.info.run_name == "small"
    assert run.data.params == {"train.lr": "0.1", "train.rotations.positive": "[0, 45]", "launch": "mitoscope"}
    assert run.data.tags["synthetic"] == "true"
    (dataset,) = run.inputs.dataset_inputs
    assert (dataset.dataset.name, dataset.dataset.digest[-4:]) == ("some fields", ".dir")
    assert (tmp_path / "work/run_id").read_text() == run_id


def test_a_killed_training_goes_on_in_its_run(client, tmp_path):
    file = tmp_path / "run_id"
    with pytest.raises(KeyboardInterrupt), training_run("small", file, {"lr": 0.1}, {"a": "b"}) as first:
        log_epochs(first, [epoch(1)])
        raise KeyboardInterrupt
    assert client.get_run(first).info.status != "FINISHED"
    with training_run("small", file, {"lr": 0.1}, {"a": "b"}) as second:
        log_epochs(second, [epoch(1), epoch(2)])
    assert second == first and client.get_run(first).info.status == "FINISHED"
    assert client.get_run(first).data.params == {"lr": "0.1"}
    assert steps(client, first, "train/loss") == [(1, 1.0), (2, 0.5)]


@pytest.mark.parametrize("left", ["deleted run", "run of another store", "empty file"])
def test_a_run_that_is_gone_is_begun_anew(client, tmp_path, left):
    file = tmp_path / "run_id"
    file.write_text("" if left == "empty file" else "0" * 32)
    if left == "deleted run":
        with training_run("small", tmp_path / "other", {}, {}) as gone:
            pass
        client.delete_run(gone)
        file.write_text(gone)
        assert not exists(client, gone)
    old = file.read_text()
    with training_run("small", file, {"lr": 0.2}, {}) as run_id:
        pass
    assert run_id != old and file.read_text() == run_id
    assert client.get_run(run_id).data.params == {"lr": "0.2"}


def test_a_store_that_does_not_answer_starts_no_second_run(own_store, tmp_path):
    file = tmp_path / "run_id"
    with training_run("small", file, {}, {}) as run_id:
        pass
    rename(own_store, "runs", "unreachable")
    with pytest.raises(InputError, match=f"cannot read run {run_id}"), training_run("small", file, {}, {}):
        pytest.fail("the block must not run")
    rename(own_store, "unreachable", "runs")
    client = connect()
    assert file.read_text() == run_id
    assert len(client.search_runs([client.get_experiment_by_name("mitoscope").experiment_id])) == 1


def rename(database: Path, old: str, new: str) -> None:
    with sqlite3.connect(database) as connection:
        connection.execute(f"ALTER TABLE {old} RENAME TO {new}")
    connection.close()


def test_epochs_are_logged_once_and_none_is_missed(client, tmp_path):
    history = [epoch(number) for number in range(1, 6)]
    with training_run("small", tmp_path / "run_id", {}, {}) as run_id:
        for upto in (1, 2, 2, 5, 5):  # twice the same; then two that nobody logged at their time
            log_epochs(run_id, history[:upto])
    expected = [(number, 1 / number) for number in range(1, 6)]
    assert steps(client, run_id, "train/loss") == [(step, pytest.approx(value)) for step, value in expected]
    assert len(steps(client, run_id, "validation/f1")) == 5


def test_results_join_a_finished_run(client, tmp_path):
    with training_run("small", tmp_path / "run_id", {}, {}) as run_id:
        model = mlflow.initialize_logged_model("best", source_run_id=run_id)
    (tmp_path / "predictions.csv").write_text("name\n")
    log_results(run_id, model.model_id, {"test/f1": 0.8}, {"tables": [tmp_path / "predictions.csv"]})
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED" and run.data.metrics["test/f1"] == 0.8
    assert [item.path for item in client.list_artifacts(run_id, "tables")] == ["tables/predictions.csv"]
    (metric,) = client.get_logged_model(model.model_id).metrics
    assert (metric.key, metric.value) == ("test/f1", 0.8)


def test_results_of_an_unknown_run_are_rejected(client, mlflow_store):
    with pytest.raises(InputError, match=f"{mlflow_store}: there is no run {'0' * 32}.*set MLFLOW_TRACKING_URI"):
        log_results("0" * 32, "m-1", {"test/f1": 0.8}, {})


def test_the_things_of_a_training_are_on_its_run(client, tmp_path):
    for name in ("last.pt", "curves.png"):
        (tmp_path / name).touch()
    with training_run("small", tmp_path / "run_id", {}, {}) as run_id:
        log_training(
            metrics={"validation/f1": 0.7}, last_checkpoint=tmp_path / "last.pt", pictures=[tmp_path / "curves.png"]
        )
    assert client.get_run(run_id).data.metrics["best_validation/f1"] == 0.7
    files = {item.path for folder in ("checkpoints", "pictures") for item in client.list_artifacts(run_id, folder)}
    assert files == {"checkpoints/last.pt", "pictures/curves.png"}


class TestLogDetector:
    """Of a run that has ended. `project` is a copy of one whose run has a detector, "first"."""

    @pytest.fixture
    def project(self, logged_project: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        shutil.copytree(logged_project[0], tmp_path / "project")
        monkeypatch.chdir(tmp_path / "project")
        monkeypatch.setattr(sys, "path", list(sys.path))  # MLflow adds the model's own code to it
        return tmp_path / "project"

    @pytest.fixture
    def run_id(self, logged_project: tuple[Path, str]) -> str:
        return logged_project[1]

    def test_it_is_a_model_of_code_and_the_run_stays_as_it_ended(self, project, run_id):
        client = connect()
        before = client.get_run(run_id)
        model_id = log_text_as_detector(run_id, project, "second")
        after = client.get_run(run_id)
        assert (after.info.status, after.info.end_time) == ("FINISHED", before.info.end_time)
        assert {*after.data.metrics} == {*before.data.metrics} and mlflow.active_run() is None
        assert after.data.metrics["validation_fields/f1"] == 0.06
        assert model_id in {output.model_id for output in after.outputs.model_outputs}

        logged = client.get_logged_model(model_id)
        assert (logged.name, logged.source_run_id, logged.status) == ("detector", run_id, LoggedModelStatus.READY)
        metrics = {metric.key: metric.value for metric in logged.metrics}
        assert metrics == {"validation_fields/f1": 0.06, "best_validation/best_f1": 0.5}  # the training's is of step 0
        folder = Path(logged.artifact_location.removeprefix("file://"))
        flavor = yaml.safe_load((folder / "MLmodel").read_text())["flavors"]["python_function"]
        assert flavor["artifacts"]["detector"]["path"] == "artifacts/detector.pt"
        assert (folder / "code/package/serve.py").exists() and "serve.py" in flavor["model_code_path"]
        assert not [path for path in folder.rglob("*") if path.suffix in (".pkl", ".pickle", ".joblib")]
        model = mlflow.pyfunc.load_model(f"models:/{model_id}")
        assert model.predict(mlflow.pyfunc.load_model(f"models:/{model_id}").input_example).answer[0] == "second"

    def test_the_newest_is_the_runs_and_the_others_stay(self, project, run_id):
        for text in ("second", "third"):
            log_text_as_detector(run_id, project, text)
        with detector_file(f"runs:/{run_id}/detector") as path:
            assert path.read_text() == "third"
        with detector_file("models:/mitoscope/1") as path:
            assert path.read_text() == "first"

    def test_one_that_was_interrupted_is_replaced_and_later_removed(self, project, run_id, monkeypatch):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(mlflow.pyfunc, "save_model", interrupt)  # MLflow leaves the model as a kill does
            log_text_as_detector(run_id, project, "half")
        client = connect()
        assert self.statuses(client, run_id) == ["PENDING", "READY"]
        assert client.get_run(run_id).info.status == "FINISHED"
        log_text_as_detector(run_id, project, "second")
        with detector_file(f"runs:/{run_id}/detector") as path:
            assert path.read_text() == "second"
        assert self.statuses(client, run_id) == ["PENDING", "READY", "READY"]  # a process may be logging it just now
        monkeypatch.setattr(runs, "_ABANDONED_HOURS", 0)
        log_text_as_detector(run_id, project, "third")
        assert self.statuses(client, run_id) == ["READY", "READY", "READY"]

    def test_one_that_failed_is_removed(self, project, run_id, monkeypatch):
        with monkeypatch.context() as patch, pytest.raises(InputError, match=r"MLflow failed \(disk full\)"):
            patch.setattr(mlflow.pyfunc, "save_model", fail)
            log_text_as_detector(run_id, project, "half")
        log_text_as_detector(run_id, project, "second")
        assert self.statuses(connect(), run_id) == ["READY", "READY"]

    def test_a_run_that_is_not_there_is_said(self, project):
        with pytest.raises(InputError, match=f"there is no run {'0' * 32}"):
            log_text_as_detector("0" * 32, project, "second")

    def statuses(self, client: mlflow.MlflowClient, run_id: str) -> list[str]:
        experiment = client.get_run(run_id).info.experiment_id
        return sorted(str(model.status) for model in client.search_logged_models([experiment]))


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def fail(*_: object, **__: object) -> None:
    raise mlflow.MlflowException("disk full")


def test_flatten_names_every_entry():
    nested = {"a": {"b": {"c": 1}, "d": (0, 45)}, "e": None, "f": {}}
    assert flatten(nested) == {"a.b.c": 1, "a.d": [0, 45], "e": None}
    assert json.dumps(flatten(nested))
