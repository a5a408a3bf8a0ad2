"""The MLflow store: which one, how to connect to it, and one clear line where it cannot be reached."""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from mitoscope.errors import InputError
from mitoscope.paths import WORK, absolute_sqlite, project

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "mitoscope"
_DATABASE_SERVERS = ("postgresql", "mysql", "mssql")
_UNOPENED = "the MLflow store cannot be opened ({}); MLFLOW_TRACKING_URI chooses another"

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
    uri = os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    if uri.startswith(("http://", "https://")):
        return Store(uri, None)
    return Store(absolute_sqlite(uri, folder), project(folder) / "mlartifacts")


def without_passwords(text: str) -> str:
    """`text` with *** for what logs in to the addresses in it: user:password@ and the query's password=..."""
    return re.sub(r"(\bpassword=)[^&\s]*", r"\1***", re.sub(r"://(?!/)\S*@", "://***@", text))


@contextmanager
def telling(what: str, place: Store, *errors: type[Exception]) -> Iterator[None]:
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


def connect(folder: Path = Path(), experiment: str = EXPERIMENT) -> "MlflowClient":
    """Connect to the store and make sure that it and an experiment exist; two processes may do so at once.

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
    lock = project(folder) / WORK / "mlflow.lock"
    lock.parent.mkdir(exist_ok=True)
    # The first process creates the database's tables; a second one that tried at the same time would crash.
    errors = (mlflow.MlflowException, SQLAlchemyError, ModuleNotFoundError)  # the last where a driver is missing
    with telling(_UNOPENED, place, *errors), FileLock(lock), _few_retries():
        if place.uri.startswith(_DATABASE_SERVERS):  # else MLflow asks again for minutes
            create_engine(place.uri).connect().close()
        client = mlflow.MlflowClient()
        if client.get_experiment_by_name(experiment) is None:
            location = None if place.artifacts is None else place.artifacts.as_uri()
            # The kind chooses the pages that the UI shows: those of trained models, not of language models.
            kind = {"mlflow.experimentKind": "custom_model_development"}
            try:
                client.create_experiment(experiment, location, kind)
            except mlflow.MlflowException as error:  # on a server another machine may have been quicker
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
        mlflow.set_experiment(experiment)  # refused where someone has deleted the experiment
    return client


def require_database(what: str) -> None:
    """Make sure that the project's own store is there, because connecting would make one wherever one stands.

    Raises:
        InputError: there is none here; the line begins with `what` was asked for.
    """
    database = store(Path()).uri.removeprefix("sqlite:///")
    if database.startswith("/") and not Path(database).exists():
        raise InputError(f"{what}: there is no MLflow store {database}; run this in the project's folder")


def exists(client: "MlflowClient", run_id: str) -> bool:
    """Whether the store has this run, not deleted."""
    import mlflow

    try:
        return bool(client.get_run(run_id).info.lifecycle_stage == "active")
    except mlflow.MlflowException:
        return False


def require(client: "MlflowClient", run_id: str) -> None:
    """Make sure that the store has this run, where a network was trained.

    Raises:
        InputError: it has not, as when another store is in use than at the training.
    """
    if not exists(client, run_id):
        raise InputError(
            f"{store(Path())}: has no run {run_id}, where the network was trained; set MLFLOW_TRACKING_URI as it "
            "was then, or train again with `dvc repro -f train@<network>`"
        )
