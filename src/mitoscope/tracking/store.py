"""Choose and open the MLflow store; if that fails, the error is one line."""

import logging
import os
import re
import shlex
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from mitoscope.errors import InputError
from mitoscope.paths import WORK, absolute_sqlite, project
from mitoscope.tracking.relocation import follow_project

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

EXPERIMENT = "mitoscope"
_VARIABLE = "MLFLOW_TRACKING_URI"
_SQLITE = "sqlite:///"
_DATABASE_SERVERS = ("postgresql", "mysql", "mssql")
_UNOPENED = "the MLflow store cannot be opened ({}); MLFLOW_TRACKING_URI chooses another"

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")


@dataclass(frozen=True)
class Store:
    """Location of an MLflow store.

    Attributes:
        uri: MLflow tracking URI: MLFLOW_TRACKING_URI if set, else a SQLite file in the project.
        artifacts: folder of the runs' files; None if the tracking server chooses it.
    """

    uri: str
    artifacts: Path | None

    def __str__(self) -> str:
        """The URI without its password, for messages."""
        return without_passwords(self.uri)

    @property
    def database(self) -> Path | None:
        """The SQLite file; None if the store is a server."""
        return Path(self.uri.removeprefix(_SQLITE)) if self.uri.startswith(f"{_SQLITE}/") else None


def store(folder: Path) -> Store:
    """Return the store of the project in `folder`; a `dvc exp run` in a temporary copy uses the original's store."""
    uri = os.environ.get(_VARIABLE) or f"{_SQLITE}mlflow.db"
    if uri.startswith(("http://", "https://")):
        return Store(uri, None)
    return Store(absolute_sqlite(uri, folder), project(folder) / "mlartifacts")


def without_passwords(text: str) -> str:
    """Return `text` with *** instead of the credentials in its URLs: user:password@ and password=... in the query."""
    return re.sub(r"(\bpassword=)[^&\s]*", r"\1***", re.sub(r"://(?!/)\S*@", "://***@", text))


@contextmanager
def telling(what: str, place: Store, *errors: type[Exception]) -> Iterator[None]:
    """Turn `errors` into an InputError of one line that names the store; `what` has {} for the reason.

    The line contains no password.
    """
    try:
        yield
    except errors as error:
        reason = without_passwords((str(error).splitlines() or [type(error).__name__])[0])
        if cause := re.search(r"\[Errno -?\d+\] ([\w ,]+)", reason):  # follows a long text about retries
            reason = cause[1]
        raise InputError(f"{place}: {what.format(reason)}") from error


def locked(name: str, folder: Path = Path()) -> AbstractContextManager[object]:
    """Return a lock that the processes using one store hold one at a time.

    The lock file is next to the database, so a `dvc exp run` in a copy of the project uses it too. Users of a server
    share no folder: there the lock is per project, and outside a project there is no lock.
    """
    database = store(folder).database
    home = project(folder) if database is None else database.parent
    if not home.is_dir() or (database is None and not (home / "params.yaml").exists()):
        return nullcontext()
    (home / WORK).mkdir(exist_ok=True)
    return FileLock(home / WORK / f"{name}.lock")


@contextmanager
def _few_retries() -> Iterator[None]:
    """Give up on an unreachable server after seconds. During trainings MLflow's minutes of retries are right."""
    name = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
    if name in os.environ:
        yield
        return
    os.environ[name] = "3"
    try:
        yield
    finally:
        del os.environ[name]


def open_store(folder: Path = Path()) -> "MlflowClient":
    """Open the store to read from it, and create it if there is none; two processes may do so at once.

    To write runs, use `connect`, which also needs the experiment.

    Raises:
        InputError: the store cannot be opened, for example because its server does not answer within about 15 seconds,
            or the project was copied without the files of its runs.
    """
    import mlflow
    from sqlalchemy import create_engine
    from sqlalchemy.exc import SQLAlchemyError

    logging.getLogger("mlflow").setLevel(logging.WARNING)  # it logs every table that it creates
    place, chosen = store(folder), os.environ.get(_VARIABLE)
    mlflow.set_tracking_uri(place.uri)
    mlflow.set_registry_uri(place.uri)
    if chosen is None:  # MLflow sets it, and `store` would read that as the user's choice
        os.environ.pop(_VARIABLE, None)
    if str(place) != place.uri:  # MLflow prints a link at the end of a run, with the password
        os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    # The lock: a second process that creates the database's tables at the same time would crash.
    # ModuleNotFoundError: a database driver is missing. OSError: the folder is not writable.
    errors = (mlflow.MlflowException, SQLAlchemyError, ModuleNotFoundError, OSError)
    with telling(_UNOPENED, place, *errors), locked("mlflow", folder), _few_retries():
        if place.database is not None and place.artifacts is not None and place.database.parent == project(folder):
            follow_project(place.database, place.artifacts)
        if place.uri.startswith(_DATABASE_SERVERS):  # otherwise MLflow retries for minutes
            create_engine(place.uri).connect().close()
        client = mlflow.MlflowClient()
        if place.artifacts is None:  # the first request to the server
            client.search_experiments(max_results=1)
    return client


def connect(folder: Path = Path(), experiment: str = EXPERIMENT) -> "MlflowClient":
    """Open the store to write runs, and create the experiment if it is missing.

    Raises:
        InputError: as for `open_store`, or the experiment was deleted.
    """
    import mlflow

    client = open_store(folder)
    place = store(folder)
    with telling(_UNOPENED, place, mlflow.MlflowException), _few_retries():
        if line := how_to_restore(client, experiment, folder):
            raise InputError(line)
        if client.get_experiment_by_name(experiment) is None:
            location = None if place.artifacts is None else place.artifacts.as_uri()
            # The kind selects the pages of the UI: those for trained models instead of language models.
            kind = {"mlflow.experimentKind": "custom_model_development"}
            try:
                client.create_experiment(experiment, location, kind)
            except mlflow.MlflowException as error:  # another process or machine may have been faster
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
        mlflow.set_experiment(experiment)
    return client


def how_to_restore(client: "MlflowClient", experiment: str, folder: Path = Path()) -> str | None:
    """Return one line with the command that restores a deleted experiment; None if it is not deleted."""
    found = client.get_experiment_by_name(experiment)
    if found is None or found.lifecycle_stage != "deleted":
        return None
    place = store(folder)
    # If the variable is set, the user's command reads it too, so no password needs to be shown.
    variable = "" if os.environ.get(_VARIABLE) else f"{_VARIABLE}={shlex.quote(place.uri)} "
    command = f"{variable}mlflow experiments restore --experiment-id {found.experiment_id}"
    return f"{place}: the experiment {experiment!r} was deleted; restore it with `{command}`"


def require_database(what: str) -> None:
    """Check that the project's own store exists, because opening it would create one in any working directory.

    Raises:
        InputError: there is no store here; the message starts with `what`, the thing that was asked for.
    """
    database = store(Path()).database
    if database is not None and not database.exists():
        raise InputError(f"{what}: there is no MLflow store {database}; run this in the project's folder")


def exists(client: "MlflowClient", run_id: str) -> bool:
    """Whether the store contains this run and it is not deleted.

    Raises:
        InputError: the store cannot be reached, so this is unknown.
    """
    run = _get_run(client, run_id)
    return run is not None and run.info.lifecycle_stage == "active"


def require_run(client: "MlflowClient", run_id: str) -> "Run":
    """Return the run in which a network was trained, even if its experiment is deleted.

    Raises:
        InputError: the run was deleted, or it is not in the store, for example because the training used another store.
    """
    run = _get_run(client, run_id)
    if run is not None and run.info.lifecycle_stage == "deleted":  # alone, or with its experiment
        experiment = client.get_experiment(run.info.experiment_id)
        run = run if experiment.lifecycle_stage == "deleted" else None
    if run is None:
        raise InputError(
            f"{store(Path())}: there is no run {run_id}, in which the network was trained; set MLFLOW_TRACKING_URI to "
            "the store of the training, or train again with `dvc repro -f train@<network>`"
        )
    return run


def _get_run(client: "MlflowClient", run_id: str) -> "Run | None":
    """Return a run, deleted or not; None if the store does not contain it."""
    import mlflow

    failed = f"cannot read run {run_id} from the MLflow store ({{}}); run this again when the store can be reached"
    with telling(failed, store(Path()), mlflow.MlflowException):
        try:
            return client.get_run(run_id)
        except mlflow.MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
