"""Read finished trainings from the MLflow store, and add files to their runs."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from mitoscope.tracking.store import EXPERIMENT, connect, open_store, require_run

if TYPE_CHECKING:
    from mlflow.entities import Run

_LOGGED_AT_THE_END = "best_validation/best_f1"


@dataclass(frozen=True)
class Training:
    """The run of a training.

    Attributes:
        run_id: MLflow's id of the run.
        name: name of the run.
        started: start time, UTC.
        digest: logged digest of the dataset; empty if no dataset was logged.
        params: logged settings, as text.
        tags: network, start weights, git commit ...
        metrics: last value of each metric.
    """

    run_id: str
    name: str
    started: datetime
    digest: str
    params: Mapping[str, str]
    tags: Mapping[str, str]
    metrics: Mapping[str, float]


def training(run_id: str) -> Training:
    """Return the training whose run has this id.

    Raises:
        InputError: the store cannot be opened or does not contain the run.
    """
    return _read(require_run(open_store(), run_id))


def finished_trainings(digest: str) -> list[Training]:
    """Return all finished trainings on a dataset with this digest, newest first; the experiment may be deleted."""
    import mlflow
    from mlflow.entities import ViewType

    experiment = open_store().get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        return []
    deleted = experiment.lifecycle_stage == "deleted"  # its runs are then deleted too
    found = mlflow.search_runs(
        [experiment.experiment_id],
        run_view_type=ViewType.ALL if deleted else ViewType.ACTIVE_ONLY,
        filter_string=f"attributes.status = 'FINISHED' and dataset.digest = '{digest}'",
        order_by=["attributes.start_time DESC"],
        output_format="list",
    )
    assert isinstance(found, list)
    return [_read(run) for run in found if _LOGGED_AT_THE_END in run.data.metrics]


def fetch(run_id: str, artifact: str, folder: Path) -> Path | None:
    """Download a file of a run into `folder` and return its path; None if the run has no such file."""
    client = open_store()
    if artifact not in {item.path for item in client.list_artifacts(run_id, str(Path(artifact).parent))}:
        return None
    return Path(client.download_artifacts(run_id, artifact, str(folder)))


def log_text(run_ids: Iterable[str], text: str, name: str) -> None:
    """Log `text` as the file `name` of each run; this replaces an earlier file of that name.

    Raises:
        InputError: the store cannot be opened, or its experiment was deleted.
    """
    client = connect()
    for run_id in run_ids:
        client.log_text(run_id, text, name)


def _read(run: "Run") -> Training:
    datasets = [item.dataset.digest for item in run.inputs.dataset_inputs] if run.inputs else []
    return Training(
        run_id=run.info.run_id,
        name=run.info.run_name,
        started=datetime.fromtimestamp(run.info.start_time / 1000, UTC),
        digest=datasets[0] if datasets else "",
        params=run.data.params,
        tags=run.data.tags,
        metrics=run.data.metrics,
    )
