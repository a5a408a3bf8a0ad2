"""Runs in MLflow: one per trained network, holding everything that can be asked about it later."""

import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from mitoscope.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient

EXPERIMENT = "mitoscope"
_SQLITE = "sqlite:///"
_DATABASE_SERVERS = ("postgresql", "mysql", "mssql")
_UNOPENED = "the MLflow store cannot be opened ({}); MLFLOW_TRACKING_URI chooses another"
_FAILED = "MLflow failed ({}); started again, the training goes on from its last epoch"

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")


@dataclass(frozen=True)
class Store:
    """Where runs live.

    Attributes:
        uri: MLflow tracking URI: MLFLOW_TRACKING_URI if set, else a SQLite file in the project.
        artifacts: folder of the runs' files, or None where the tracking server decides.
    """

    uri: str
    artifacts: Path | None

    def __str__(self) -> str:
        """The URI as it may be shown: without the password in it."""
        return without_passwords(self.uri)


def store(folder: Path) -> Store:
    """The store of the project that `folder` is in; the same for a `dvc exp run` in a temporary copy of it."""
    project = folder.resolve()
    for parent in project.parents:  # DVC runs queued experiments in .dvc/tmp/exps/...
        if parent.name == "tmp" and parent.parent.name == ".dvc":
            project = parent.parent.parent
            break
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"{_SQLITE}mlflow.db"
    if uri.startswith(("http://", "https://")):
        return Store(uri, None)
    if uri.startswith(_SQLITE):  # a relative path would name another file in every folder
        uri = f"{_SQLITE}{project / uri.removeprefix(_SQLITE)}"
    return Store(uri, project / "mlartifacts")


def without_passwords(text: str) -> str:
    """`text` with *** for what logs in to the addresses in it: user:password@ and the query's password=..."""
    return re.sub(r"(\bpassword=)[^&\s]*", r"\1***", re.sub(r"://(?!/)\S*@", "://***@", text))


@contextmanager
def _telling(what: str, place: Store, *errors: type[Exception]) -> Iterator[None]:
    """Turn `errors` into one line that names the store, without its password; `what` has {} for the reason."""
    try:
        yield
    except errors as error:
        reason = without_passwords(str(error).splitlines()[0])
        if cause := re.search(r"\[Errno -?\d+\] ([\w ,]+)", reason):  # at the end of a long line about retries
            reason = cause[1]
        raise InputError(f"{place}: {what.format(reason)}") from error


@contextmanager
def _few_retries() -> Iterator[None]:
    """Give up on a server that does not answer after seconds. During a training MLflow's own minutes are right."""
    name = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
    if name in os.environ:
        yield
        return
    os.environ[name] = "3"
    try:
        yield
    finally:
        del os.environ[name]


def connect(folder: Path = Path()) -> "MlflowClient":
    """Connect to the store and make sure that it and the experiment exist; two processes may do so at once.

    Raises:
        InputError: the store cannot be opened, as when its server does not answer within some 15 seconds.
    """
    import mlflow
    from sqlalchemy import create_engine
    from sqlalchemy.exc import SQLAlchemyError

    logging.getLogger("mlflow").setLevel(logging.WARNING)  # it tells of every table that it creates
    place = store(folder)
    mlflow.set_tracking_uri(place.uri)
    mlflow.set_registry_uri(place.uri)
    if str(place) != place.uri:  # MLflow ends a run with a link to it, password and all
        os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    # Beside the database: a `dvc exp run` in a temporary copy of the project must meet the same lock.
    project = folder.resolve() if place.artifacts is None else place.artifacts.parent
    lock = project / ".work" / "mlflow.lock"
    lock.parent.mkdir(exist_ok=True)
    # The first process creates the database's tables; a second one that tried at the same time would crash.
    errors = (mlflow.MlflowException, SQLAlchemyError, ModuleNotFoundError)  # the last where a driver is missing
    with _telling(_UNOPENED, place, *errors), FileLock(lock), _few_retries():
        if place.uri.startswith(_DATABASE_SERVERS):  # else MLflow asks again for minutes
            create_engine(place.uri).connect().close()
        client = mlflow.MlflowClient()
        if client.get_experiment_by_name(EXPERIMENT) is None:
            location = None if place.artifacts is None else place.artifacts.as_uri()
            # The kind chooses the pages that the UI shows: those of trained models, not of language models.
            kind = {"mlflow.experimentKind": "custom_model_development"}
            try:
                client.create_experiment(EXPERIMENT, location, kind)
            except mlflow.MlflowException as error:  # on a server another machine may have been quicker
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
        mlflow.set_experiment(EXPERIMENT)  # refused where someone has deleted the experiment
    return client


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
        _telling(_FAILED, store(Path()), mlflow.MlflowException),
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


def exists(client: "MlflowClient", run_id: str) -> bool:
    """Whether the store has this run, not deleted."""
    import mlflow

    try:
        return bool(client.get_run(run_id).info.lifecycle_stage == "active")
    except mlflow.MlflowException:
        return False


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
        code_paths=[str(model_code.parent)],
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
    if not exists(client, run_id):
        raise InputError(
            f"{store(Path())}: has no run {run_id}, where the network was trained; set MLFLOW_TRACKING_URI as it "
            "was then, or train again with `dvc repro -f train@<network>`"
        )
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
