"""Stores of a project's own, made in no time, and a project whose run has a detector."""

import contextlib
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from mlflow.models import infer_signature
from mlflow.tracking._tracking_service.utils import _artifact_repos_cache

from mitoscope.tracking import registry
from mitoscope.tracking.runs import log_detector, log_training, training_run
from mitoscope.tracking.store import connect
from tests.programs import PROGRAMS


@pytest.fixture
def client(mlflow_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> mlflow.MlflowClient:
    """Connected to the tests' store, from an empty working directory."""
    monkeypatch.chdir(tmp_path)
    return connect()


@pytest.fixture(scope="session")
def _empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("empty") / "mlflow.db"


@pytest.fixture
def own_store(_empty_store: Path, mlflow_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a project with an empty store of its own, which no variable names. Returns the file."""
    if not _empty_store.exists():  # MLflow takes seconds to make one
        copy_schema(Path(mlflow_store.removeprefix("sqlite:///")), _empty_store)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").touch()
    return Path(shutil.copy(_empty_store, tmp_path))


def copy_schema(old: Path, new: Path) -> None:
    """Make the SQLite store `new` with the tables of `old` and nothing in them."""
    with contextlib.closing(sqlite3.connect(old)) as source, contextlib.closing(sqlite3.connect(new)) as target:
        target.execute("BEGIN")
        for (statement,) in source.execute("SELECT sql FROM sqlite_master WHERE sql NOT NULL ORDER BY type = 'index'"):
            target.execute(statement)
        for table in ("alembic_version", "workspaces"):
            rows = source.execute(f"SELECT * FROM {table}").fetchall()
            if rows:
                target.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(rows[0]))})", rows)
        target.commit()


def log_text_as_detector(run_id: str, folder: Path, text: str) -> str:
    """Log a detector whose file holds `text`, with a model that answers it; returns the id of the logged model."""
    package = folder / "package"
    package.mkdir(exist_ok=True)
    shutil.copy(PROGRAMS / "answer.py", package / "serve.py")
    (folder / "detector.pt").write_text(text)
    example = pd.DataFrame({"row": ["x", "y"]})
    return log_detector(
        run_id,
        model_code=package / "serve.py",
        package=package,
        detector=folder / "detector.pt",
        example=example,
        signature=infer_signature(example, pd.DataFrame({"answer": [text]})),
        requirements=["pandas"],
        params={"detection": {"views": 2}},
        metrics={"validation_fields/f1": len(text) / 100},
    )


@pytest.fixture(scope="session")
def _logged(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return {}


@pytest.fixture
def logged_project(
    _logged: dict[str, str], own_store: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, str]:
    """A project whose run has files and a detector, "first", the champion, for all tests together: copy it.

    Returns its folder, and the id of the run.
    """
    if not _logged:
        folder = tmp_path_factory.mktemp("logged") / "original project"
        folder.mkdir()
        shutil.copy(own_store, folder)
        with contextlib.chdir(folder):
            (folder / "params.yaml").touch()
            (folder / "last.pt").write_text("last")
            with training_run("net", folder / "run_id", {"lr": 0.1}, {"network": "net"}) as run_id:
                log_training(metrics={"validation/best_f1": 0.5}, last_checkpoint=folder / "last.pt", pictures=[])
            model_id = log_text_as_detector(run_id, folder, "first")
            registry.make_champion(registry.register(model_id, run_id, {}, "a card"))
        _logged.update(folder=str(folder), run_id=run_id)
    _artifact_repos_cache.clear()  # where the run's files are: a process works in one checkout, a test does in several
    return Path(_logged["folder"]), _logged["run_id"]


@pytest.fixture
def new_model(empty_registry: None, client: mlflow.MlflowClient) -> Callable[..., tuple[str, str]]:
    """Makes a logged model, of a new run or of the one given; returns the ids of both."""

    def make(run_id: str | None = None) -> tuple[str, str]:
        if run_id is None:
            experiment = client.get_experiment_by_name("mitoscope")
            assert experiment is not None
            run_id = client.create_run(experiment.experiment_id).info.run_id
        return mlflow.initialize_logged_model("detector", source_run_id=run_id).model_id, run_id

    return make
