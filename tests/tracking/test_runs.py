"""Runs are kept in one place, whole, and a resumed training goes on in its own."""

import json
import sys
from pathlib import Path

import mlflow
import pandas as pd
import pytest
import torch
import yaml

from mitoscope.errors import InputError
from mitoscope.learning.checkpoints import save_network
from mitoscope.learning.networks import build
from mitoscope.serving import pyfunc as serving
from mitoscope.tracking.runs import flatten, log_dataset, log_epochs, log_results, log_training, training_run
from mitoscope.tracking.store import connect, exists


@pytest.fixture
def client(mlflow_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> mlflow.MlflowClient:
    """Connected to the tests' store, from an empty working directory."""
    monkeypatch.chdir(tmp_path)
    return connect()


def epoch(number: int) -> dict[str, float]:
    return {"train/loss": 1 / number, "validation/f1": number / 10}


def steps(client: mlflow.MlflowClient, run_id: str, name: str) -> list[tuple[int, float]]:
    return sorted((metric.step, metric.value) for metric in client.get_metric_history(run_id, name))


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
