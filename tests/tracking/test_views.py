"""The MLflow UI can read the view of the runs, and the runs have its columns."""

import json

import mlflow

from mitoscope.stages.evaluate import evaluate
from mitoscope.tracking.store import EXPERIMENT, connect
from mitoscope.tracking.views import TAG, VIEW, share_view
from tests.conftest import NETWORK


def columns(kind: str, state: dict) -> list[str]:
    """Names of the tags or metrics that a view shows."""
    return [name.removeprefix(f"{kind}.`")[:-1] for name in state["selectedColumns"] if name.startswith(f"{kind}.`")]


def test_the_view_is_well_formed_and_found_by_its_address(mlflow_store):
    client = connect()
    page = share_view(client)
    assert share_view(client) == page  # again: the same tag
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert page.startswith(f"#/experiments/{experiment.experiment_id}/runs?")
    assert page.endswith(f"viewStateShareKey={VIEW}")
    view = json.loads(experiment.tags[TAG])
    assert isinstance(view["name"], str) and isinstance(view["createdAt"], int)
    state = json.loads(view["state"])
    assert state["columnOrder"] == state["selectedColumns"] == list(state["columnWidths"])
    assert columns("tags", state) == ["network", "start_weights", "synthetic"]
    assert len(columns("metrics", state)) == 7
    assert len(experiment.tags[TAG]) < 5000  # MLflow's limit for a tag


def test_what_evaluate_logs_is_in_the_view(trained, mlflow_store):
    evaluate(NETWORK)
    client = connect()
    share_view(client)
    state = json.loads(json.loads(client.get_experiment_by_name(EXPERIMENT).tags[TAG])["state"])
    tested = [name for name in columns("metrics", state) if name.startswith("test")]
    fields = ["test_fields/f1", "test_fields/recall", "test_fields/precision"]
    assert tested == [*fields, "test/f1", "test/recall"]
    assert state["selectedColumns"][1:4] == [f"metrics.`{name}`" for name in fields]  # right after the run's name
    assert set(tested) <= set(mlflow.MlflowClient().get_run(trained).data.metrics)
