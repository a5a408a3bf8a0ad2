"""Log searches to MLflow: one run per study with a nested run per trial, in an experiment of their own."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from mitoscope.tracking.runs import flatten
from mitoscope.tracking.store import connect, exists

EXPERIMENT = "mitoscope search"
# Outcome of a trial -> status of its run. Pruning is not a failure.
_STATUS = {
    "complete": "FINISHED",
    "pruned": "KILLED",
    "diverged": "KILLED",
    "interrupted": "KILLED",
    "lost": "KILLED",
    "surplus": "KILLED",
    "failed": "FAILED",
}
Outcome = Literal["complete", "pruned", "diverged", "interrupted", "lost", "surplus", "failed"]


def open_study(run_id: str | None, name: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> str:
    """Open the run of a study and return its id.

    Args:
        run_id: id of the run to continue; if it is None or not in the store, a new run starts.
        name: name of a new run.
        params: params of a new run.
        tags: tags of a new run.

    Raises:
        InputError: the store cannot be opened, or its experiment was deleted.
    """
    client = connect(experiment=EXPERIMENT)
    if run_id is not None and exists(client, run_id):
        client.update_run(run_id, status="RUNNING")
        return run_id
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None  # created by `connect`
    new: str = client.create_run(experiment.experiment_id, run_name=name, tags=dict(tags)).info.run_id
    for key, value in flatten(params).items():
        client.log_param(new, key, value)
    return new


def close_leftovers(parent: str, alive: Collection[str]) -> None:
    """End the runs of trials that were killed before the study recorded their run.

    Args:
        parent: run id of the study.
        alive: run ids of the trials that are running.
    """
    from mlflow import MlflowClient

    client = MlflowClient()
    experiment = client.get_run(parent).info.experiment_id
    query = f"tags.`mlflow.parentRunId` = '{parent}' and tags.outcome = 'running'"
    for run in client.search_runs([experiment], query):
        if run.info.run_id not in alive:
            close_trial(run.info.run_id, "lost")


def open_trial(parent: str, number: int) -> str:
    """Open the run of a trial, nested in the run of its study, and return its id."""
    from mlflow import MlflowClient

    client = MlflowClient()
    experiment = client.get_run(parent).info.experiment_id
    tags = {"mlflow.parentRunId": parent, "trial": str(number), "outcome": "running"}
    return str(client.create_run(experiment, run_name=f"trial {number}", tags=tags).info.run_id)


def log_params(run_id: str, params: Mapping[str, Any]) -> None:
    """Log the settings of a trial."""
    from mlflow import MlflowClient

    client = MlflowClient()
    for key, value in params.items():
        client.log_param(run_id, key, value)


def log_epoch(run_id: str, metrics: Mapping[str, float], step: int) -> None:
    """Log an epoch of a trial."""
    import mlflow

    mlflow.log_metrics(dict(metrics), step=step, run_id=run_id)


def close_trial(run_id: str, outcome: Outcome) -> None:
    """End the run of a trial and set its tag `outcome`; do nothing if the store does not contain the run."""
    from mlflow import MlflowClient

    client = MlflowClient()
    if exists(client, run_id):
        client.set_tag(run_id, "outcome", outcome)
        client.set_terminated(run_id, _STATUS[outcome])


def close_study(
    run_id: str, status: str, metrics: Mapping[str, float] | None = None, files: Sequence[Path] = ()
) -> None:
    """Log metrics and files to the run of a study, and end it."""
    import mlflow

    client = mlflow.MlflowClient()
    mlflow.log_metrics(dict(metrics or {}), run_id=run_id)
    for path in files:
        client.log_artifact(run_id, str(path))
    client.set_terminated(run_id, status)
