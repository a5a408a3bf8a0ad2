"""The MLflow store: which one, how to open it, and one clear line where it cannot be reached."""

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

    @property
    def database(self) -> Path | None:
        """The SQLite file, or None where the store is a server."""
        return Path(self.uri.removeprefix(_SQLITE)) if self.uri.startswith(f"{_SQLITE}/") else None


def store(folder: Path) -> Store:
    """The store of the project that `folder` is in; the same for a `dvc exp run` in a temporary copy of it."""
    uri = os.environ.get(_VARIABLE) or f"{_SQLITE}mlflow.db"
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
        reason = without_passwords((str(error).splitlines() or [type(error).__name__])[0])
        if cause := re.search(r"\[Errno -?\d+\] ([\w ,]+)", reason):  # at the end of a long line about retries
            reason = cause[1]
        raise InputError(f"{place}: {what.format(reason)}") from error


def locked(name: str, folder: Path = Path()) -> AbstractContextManager[object]:
    """What the processes that use one store hold in turn.

    It lies beside the database, so that all of them meet it, a `dvc exp run` in a copy of the project too. The users of
    a server share no folder; there the processes of one project take turns, and a folder that is no project gets none.
    """
    database = store(folder).database
    home = project(folder) if database is None else database.parent
    if not home.is_dir() or (database is None and not (home / "params.yaml").exists()):
        return nullcontext()
    (home / WORK).mkdir(exist_ok=True)
    return FileLock(home / WORK / f"{name}.lock")


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


def open_store(folder: Path = Path()) -> "MlflowClient":
    """Open the store, made where there is none; two processes may do so at once.

    It needs no experiment, so this is for what only reads; `connect` is for what writes runs.

    Raises:
        InputError: the store cannot be opened, as when its server does not answer within some 15 seconds, or the
            project was copied without the files of its runs.
    """
    import mlflow
    from sqlalchemy import create_engine
    from sqlalchemy.exc import SQLAlchemyError

    logging.getLogger("mlflow").setLevel(logging.WARNING)  # it tells of every table that it creates
    place, chosen = store(folder), os.environ.get(_VARIABLE)
    mlflow.set_tracking_uri(place.uri)
    mlflow.set_registry_uri(place.uri)
    if chosen is None:  # MLflow has set it, and `store` would take that for the user's choice
        os.environ.pop(_VARIABLE, None)
    if str(place) != place.uri:  # MLflow ends a run with a link to it, password and all
        os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    # The first process creates the database's tables; a second one that tried at the same time would crash.
    # ModuleNotFoundError: a database's driver is missing. OSError: a folder that may not be written.
    errors = (mlflow.MlflowException, SQLAlchemyError, ModuleNotFoundError, OSError)
    with telling(_UNOPENED, place, *errors), locked("mlflow", folder), _few_retries():
        if place.database is not None and place.artifacts is not None and place.database.parent == project(folder):
            follow_project(place.database, place.artifacts)
        if place.uri.startswith(_DATABASE_SERVERS):  # else MLflow asks again for minutes
            create_engine(place.uri).connect().close()
        client = mlflow.MlflowClient()
        if place.artifacts is None:  # nobody has asked the server yet
            client.search_experiments(max_results=1)
    return client


def connect(folder: Path = Path(), experiment: str = EXPERIMENT) -> "MlflowClient":
    """Open the store to write runs into an experiment, which is made where it is missing.

    Raises:
        InputError: as `open_store` does, or someone has deleted the experiment.
    """
    import mlflow

    client = open_store(folder)
    place = store(folder)
    with telling(_UNOPENED, place, mlflow.MlflowException), _few_retries():
        if line := how_to_restore(client, experiment, folder):
            raise InputError(line)
        if client.get_experiment_by_name(experiment) is None:
            location = None if place.artifacts is None else place.artifacts.as_uri()
            # The kind chooses the pages that the UI shows: those of trained models, not of language models.
            kind = {"mlflow.experimentKind": "custom_model_development"}
            try:
                client.create_experiment(experiment, location, kind)
            except mlflow.MlflowException as error:  # another process or machine may have been quicker
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
        mlflow.set_experiment(experiment)
    return client


def how_to_restore(client: "MlflowClient", experiment: str, folder: Path = Path()) -> str | None:
    """One line with the command that brings a deleted experiment back; None where it is not deleted."""
    found = client.get_experiment_by_name(experiment)
    if found is None or found.lifecycle_stage != "deleted":
        return None
    place = store(folder)
    # Where the variable is set, the user's own command finds it, and a password need not be shown.
    variable = "" if os.environ.get(_VARIABLE) else f"{_VARIABLE}={shlex.quote(place.uri)} "
    command = f"{variable}mlflow experiments restore --experiment-id {found.experiment_id}"
    return f"{place}: the experiment {experiment!r} was deleted; bring it back with `{command}`"


def require_database(what: str) -> None:
    """Make sure that the project's own store is there, because opening it would make one wherever one stands.

    Raises:
        InputError: the store is missing here; the line begins with `what` was asked for.
    """
    database = store(Path()).database
    if database is not None and not database.exists():
        raise InputError(f"{what}: there is no MLflow store {database}; run this in the project's folder")


def exists(client: "MlflowClient", run_id: str) -> bool:
    """Whether the store has this run, not deleted.

    Raises:
        InputError: the store does not answer; it may have the run all the same.
    """
    run = _get_run(client, run_id)
    return run is not None and run.info.lifecycle_stage == "active"


def require_run(client: "MlflowClient", run_id: str) -> "Run":
    """The run in which a network was trained; that of a deleted experiment can still be read.

    Raises:
        InputError: the store lacks it, as when another store is in use than at the training, or it was deleted.
    """
    run = _get_run(client, run_id)
    if run is not None and run.info.lifecycle_stage == "deleted":  # by itself, or with all the others
        experiment = client.get_experiment(run.info.experiment_id)
        run = run if experiment.lifecycle_stage == "deleted" else None
    if run is None:
        raise InputError(
            f"{store(Path())}: has no run {run_id}, where the network was trained; set MLFLOW_TRACKING_URI as it "
            "was then, or train again with `dvc repro -f train@<network>`"
        )
    return run


def _get_run(client: "MlflowClient", run_id: str) -> "Run | None":
    """A run, deleted or not; None where the store says that it has no such run."""
    import mlflow

    failed = f"the MLflow store cannot be asked for run {run_id} ({{}}); start this again when it can be reached"
    with telling(failed, store(Path()), mlflow.MlflowException):
        try:
            return client.get_run(run_id)
        except mlflow.MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
