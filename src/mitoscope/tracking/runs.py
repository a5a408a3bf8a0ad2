"""Runs in MLflow: one per trained network, holding everything that can be asked about it later."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mitoscope.tracking.store import connect, exists, require, store, telling

if TYPE_CHECKING:
    import pandas as pd

_FAILED = "MLflow failed ({}); started again, the training goes on from its last epoch"


@contextmanager
def training_run(name: str, run_id_file: Path, params: Mapping[str, Any], tags: Mapping[str, str]) -> Iterator[str]:
    """Open the run of a training, with system metrics; yields its id.

    The id is kept in `run_id_file`: where that names a run of this store, the run goes on, which its killed
    predecessor left; else a new one begins and gets `params` and `tags`.

    Raises:
        InputError: the store cannot be opened, or stops answering on the way.
    """
    import mlflow

    client = connect()
    run_id = run_id_file.read_text().strip() if run_id_file.exists() else None
    if run_id is not None and not exists(client, run_id):
        run_id = None
    with (
        telling(_FAILED, store(Path()), mlflow.MlflowException),
        mlflow.start_run(run_id=run_id, run_name=None if run_id else name, log_system_metrics=True) as run,
    ):
        if run_id is None:
            mlflow.log_params(flatten(params))
            mlflow.set_tags(dict(tags))
            run_id_file.parent.mkdir(parents=True, exist_ok=True)
            run_id_file.write_text(run.info.run_id)
        try:
            yield run.info.run_id
        except KeyboardInterrupt:
            mlflow.end_run("KILLED")
            raise


def log_dataset(name: str, digest: str, source: Path) -> None:
    """Log a dataset as input of the active run; `digest` has at most 36 characters, as a DVC md5 with `.dir` has."""
    import mlflow
    from mlflow.data.meta_dataset import MetaDataset
    from mlflow.data.sources import LocalArtifactDatasetSource  # type: ignore[attr-defined]

    place = LocalArtifactDatasetSource(str(source))
    mlflow.log_input(MetaDataset(place, name=name, digest=digest), "training")  # type: ignore[abstract]


def log_epochs(run_id: str, history: Sequence[Mapping[str, float]]) -> None:
    """Log the epochs that the run lacks; so a resumed run gets none twice and misses none."""
    import mlflow

    logged = {metric.step for metric in mlflow.MlflowClient().get_metric_history(run_id, "train/loss")}
    for step, epoch in enumerate(history, start=1):
        if step not in logged:
            mlflow.log_metrics(dict(epoch), step=step, run_id=run_id)


def log_training(
    *,
    model_code: Path,
    network: Path,
    example: "pd.DataFrame",
    answer: "pd.DataFrame",
    requirements: list[str],
    metrics: Mapping[str, float],
    last_checkpoint: Path,
    pictures: Sequence[Path],
) -> str:
    """Log what a training gave to the active run; returns the id of the logged model `best`.

    Args:
        model_code: the module that loads and serves the model; its package travels with the model.
        network: file of the best epoch.
        example: a table that the model takes.
        answer: what it answers.
        requirements: pip requirements of the model, given so that MLflow need not guess them.
        metrics: of the best epoch; logged on the run and beside the model as `best_<name>`.
        last_checkpoint: file of the last epoch.
        pictures: the learning curves and what else shows how it learned.
    """
    import mlflow
    from mlflow.models import infer_signature

    info = mlflow.pyfunc.log_model(
        name="best",
        python_model=str(model_code),
        artifacts={"network": str(network)},
        code_paths=[str(model_code.parents[1])],
        signature=infer_signature(example, answer),
        input_example=example,
        pip_requirements=requirements,
    )
    mlflow.log_metrics({f"best_{name}": value for name, value in metrics.items()}, model_id=info.model_id)
    mlflow.log_artifact(str(last_checkpoint), "checkpoints")
    for picture in pictures:
        mlflow.log_artifact(str(picture), "pictures")
    return str(info.model_id)


def log_results(run_id: str, model_id: str, metrics: Mapping[str, float], files: Mapping[str, Sequence[Path]]) -> None:
    """Log the test metrics on a finished run and its model, and `files` (folder of the run -> files) on the run.

    Raises:
        InputError: the store does not have the run, as when another store is in use than at the training.
    """
    import mlflow

    client = connect()
    require(client, run_id)
    mlflow.log_metrics(dict(metrics), run_id=run_id, model_id=model_id)
    for folder, paths in files.items():
        for path in paths:
            client.log_artifact(run_id, str(path), folder)


def flatten(params: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as `block.entry` names."""
    flat: dict[str, Any] = {}
    for name, value in params.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = list(value) if isinstance(value, tuple) else value
    return flat
