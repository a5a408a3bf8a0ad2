"""Log trainings, detectors and test results to MLflow: one run per trained network."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Any

from mitoscope.files import write_text
from mitoscope.tracking.store import connect, exists, require_run, store, telling

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.models import ModelSignature

DETECTOR = "detector"  # name of the logged models, and of the file in them
_TRAINING_FAILED = "MLflow failed ({}); run this again to continue the training from its last epoch"
_LOGGING_FAILED = "MLflow failed ({}); run this again"
_ABANDONED_HOURS = 1  # logging a detector takes seconds


@contextmanager
def training_run(name: str, run_id_file: Path, params: Mapping[str, Any], tags: Mapping[str, str]) -> Iterator[str]:
    """Open the run of a training, with system metrics, and yield its id.

    The id is stored in `run_id_file`. If this file names a run in this store, that run is resumed; otherwise a new run
    starts with `params` and `tags`.

    Raises:
        InputError: the store cannot be opened, its experiment was deleted, or it fails during the block.
    """
    import mlflow

    client = connect()
    run_id = run_id_file.read_text(encoding="utf-8").strip() if run_id_file.exists() else ""
    if run_id and not exists(client, run_id):
        run_id = ""
    with (
        telling(_TRAINING_FAILED, store(Path()), mlflow.MlflowException),
        mlflow.start_run(run_id=run_id or None, run_name=None if run_id else name, log_system_metrics=True) as run,
    ):
        if not run_id:
            mlflow.log_params(flatten(params))
            mlflow.set_tags(dict(tags))
            write_text(run_id_file, run.info.run_id)
        try:
            yield run.info.run_id
        except KeyboardInterrupt:
            mlflow.end_run("KILLED")
            raise


def log_dataset(name: str, digest: str, source: Path) -> None:
    """Log a dataset as input of the active run; `digest` has at most 36 characters, like a DVC md5 with `.dir`."""
    import mlflow
    from mlflow.data.meta_dataset import MetaDataset
    from mlflow.data.sources import LocalArtifactDatasetSource  # type: ignore[attr-defined]

    place = LocalArtifactDatasetSource(str(source))
    mlflow.log_input(MetaDataset(place, name=name, digest=digest), "training")  # type: ignore[abstract]


def log_epochs(run_id: str, history: Sequence[Mapping[str, float]]) -> None:
    """Log the epochs that are not in the run yet, so a resumed run gets each epoch exactly once."""
    import mlflow

    logged = {metric.step for metric in mlflow.MlflowClient().get_metric_history(run_id, "train/loss")}
    for step, epoch in enumerate(history, start=1):
        if step not in logged:
            mlflow.log_metrics(dict(epoch), step=step, run_id=run_id)


def log_training(*, metrics: Mapping[str, float], last_checkpoint: Path, pictures: Sequence[Path]) -> None:
    """Log the results of a training to the active run.

    Args:
        metrics: metrics of the best epoch; logged as `best_<name>` with four digits, all of which MLflow shows.
        last_checkpoint: checkpoint file of the last epoch; logged in the folder `checkpoints`.
        pictures: learning curves and other pictures; logged in the folder `pictures`.
    """
    import mlflow

    mlflow.log_metrics({f"best_{name}": round(value, 4) for name, value in metrics.items()})
    mlflow.log_artifact(str(last_checkpoint), "checkpoints")
    for picture in pictures:
        mlflow.log_artifact(str(picture), "pictures")


def log_detector(
    run_id: str,
    *,
    model_code: Path,
    package: Path,
    detector: Path,
    example: "pd.DataFrame",
    signature: "ModelSignature",
    requirements: list[str],
    params: Mapping[str, Any],
    metrics: Mapping[str, float],
) -> str:
    """Log a detector as a model of the run that trained its network; the run stays ended.

    One run can have several detectors; `runs:/<run id>/detector` is the newest.

    Args:
        run_id: id of the training's run.
        model_code: module that loads and serves the model ("models from code", so nothing is unpickled).
        package: folder of the Python package that `model_code` needs; logged with the model.
        detector: detector file.
        example: example input table.
        signature: input and output columns.
        requirements: pip requirements of the model; MLflow would guess them otherwise.
        params: detection settings; logged to the model, since one run can have several detectors.
        metrics: metrics of the detector; logged to the model and to the run.

    Returns:
        The id of the logged model.

    Raises:
        InputError: the store cannot be opened, its experiment was deleted, it does not contain the run, or it fails.
    """
    import mlflow
    from mlflow.models import Model

    client = connect()
    with telling(_LOGGING_FAILED, store(Path()), mlflow.MlflowException):
        run = require_run(client, run_id)
        _remove_half_detectors(client, run.info.experiment_id, run_id)
        # `mlflow.pyfunc.log_model` takes no run id, so it would have to reopen the run.
        info = Model.log(
            artifact_path=None,
            name=DETECTOR,
            flavor=mlflow.pyfunc,
            run_id=run_id,
            python_model=str(model_code),
            artifacts={DETECTOR: str(detector)},
            code_paths=[str(package)],
            signature=signature,
            input_example=example,
            pip_requirements=requirements,
            params=flatten(params),
        )
        mlflow.log_metrics(dict(metrics), run_id=run_id, model_id=info.model_id)
    return str(info.model_id)


def _remove_half_detectors(client: "MlflowClient", experiment_id: str, run_id: str) -> None:
    """Delete a run's detectors whose logging failed, or has been pending for more than `_ABANDONED_HOURS`."""
    from mlflow.entities import LoggedModelStatus

    youngest = (time() - _ABANDONED_HOURS * 3600) * 1000
    found = client.search_logged_models([experiment_id], f"name = '{DETECTOR}' AND source_run_id = '{run_id}'")
    for model in found:
        failed = model.status == LoggedModelStatus.FAILED
        if failed or (model.status == LoggedModelStatus.PENDING and model.creation_timestamp <= youngest):
            client.delete_logged_model(model.model_id)


def log_results(run_id: str, model_id: str, metrics: Mapping[str, float], files: Mapping[str, Sequence[Path]]) -> None:
    """Log test metrics to a finished run and its model, and `files` (folder in the run -> files) to the run.

    Raises:
        InputError: the store does not contain the run, for example because the training used another store.
    """
    import mlflow

    client = connect()
    with telling(_LOGGING_FAILED, store(Path()), mlflow.MlflowException):
        require_run(client, run_id)
        mlflow.log_metrics(dict(metrics), run_id=run_id, model_id=model_id)
        for folder, paths in files.items():
            for path in paths:
                client.log_artifact(run_id, str(path), folder)


def flatten(params: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested settings to `block.entry` names."""
    flat: dict[str, Any] = {}
    for name, value in params.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = list(value) if isinstance(value, tuple) else value
    return flat
