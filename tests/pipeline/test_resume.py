"""A training that loses its machine goes on in the same run. Beside test_pipeline.py, so that both run at once."""

import os
import signal
import time
from pathlib import Path

import mlflow
import pytest

from .conftest import FIRST, Params, Project, trained

pytestmark = pytest.mark.slow
NETWORK = "mobilenet_v3_small"


def test_killed_training_goes_on_where_it_was(project: Project) -> None:
    def lengthen(params: Params) -> None:
        # A network of a few MB: larger checkpoints would take a minute to write.
        block = params["train"][FIRST]
        block["optimisation"]["epochs"] = 4
        block["sampling"]["samples_per_epoch"] = 48
        params["train"], params["weights"], params["detection"] = {NETWORK: block}, {NETWORK: "random"}, {}

    project.change_params(lengthen)
    project.run("dvc", "pull", "data.dvc")
    training = project.start("dvc", "repro", f"train@{NETWORK}")
    last: list[Path] = []
    deadline = time.monotonic() + 300
    while not last and time.monotonic() < deadline:
        last = list((project.folder / ".work").glob(f"train-{NETWORK}-*/last.pt"))
        time.sleep(0.02)
    os.killpg(training.pid, signal.SIGKILL)  # the stage and DVC at once, as when a machine loses its power
    training.wait()
    assert last, "no checkpoint appeared"
    run_id = (last[0].parent / "run_id").read_text()

    said = project.run("dvc", "repro", f"train@{NETWORK}")
    assert trained(project, NETWORK)["run_id"] == run_id
    client = mlflow.MlflowClient(f"sqlite:///{project.folder / 'mlflow.db'}")
    steps = [metric.step for metric in client.get_metric_history(run_id, "validation/f1")]
    assert steps == [1, 2, 3, 4]
    assert client.get_run(run_id).info.status == "FINISHED"
    assert "epoch 4/4" in said
    assert not last[0].parent.exists()
