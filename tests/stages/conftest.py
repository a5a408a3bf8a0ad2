"""The small project at later stages: each is run once for all tests, which work in copies of it."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from mitoscope.stages.detector import detector
from mitoscope.stages.train import train
from mitoscope.stages.weights import weights
from tests.conftest import NETWORK, Params, tiny_params, write_params


def mined_params() -> Params:
    """The small settings with a second epoch, which mines, and two views of each candidate."""
    params = tiny_params()
    params["train"][NETWORK]["optimisation"]["epochs"] = 2
    params["train"][NETWORK]["sampling"]["mining"] = {"start_epoch": 1, "every": 1}
    params["detection"][NETWORK]["views"] = 2
    return params


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Tensors this small gain nothing from threads, and on a busy machine threads wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@contextlib.contextmanager
def in_project(folder: Path, store: Path) -> Iterator[None]:
    """Work in the project `folder` with the tests' MLflow store, as the fixtures that run stages once do.

    The experiments are made first, so that their files lie beside the store and not in a project that comes and goes.
    """
    import mlflow

    from mitoscope.tracking import searches
    from mitoscope.tracking.store import connect

    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(folder):
        for name in ("MLFLOW_REGISTRY_URI", "MLFLOW_EXPERIMENT_ID", "MLFLOW_RUN_ID"):
            patch.delenv(name, raising=False)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store / 'mlflow.db'}")
        connect(store, searches.EXPERIMENT)
        connect(store)
        yield
    mlflow.set_tracking_uri("")
    mlflow.set_registry_uri("")


@pytest.fixture(scope="session")
def _experiments(_store_folder: Path) -> None:
    with in_project(_store_folder, _store_folder):
        pass


@pytest.fixture
def mlflow_store(_experiments: None, mlflow_store: str) -> str:
    """As for all tests, with the experiment of the searches."""
    return mlflow_store


@pytest.fixture(scope="session")
def _ready(_extracted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ready")
    shutil.copytree(_extracted, folder, dirs_exist_ok=True)
    with contextlib.chdir(folder):
        weights(NETWORK)
    return folder


@pytest.fixture
def ready(_ready: Path, mlflow_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The small project with all that a training needs."""
    shutil.copytree(_ready, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def _detected(_ready: Path, _store_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("detected")
    shutil.copytree(_ready, folder, dirs_exist_ok=True)
    with in_project(folder, _store_folder):
        write_params(mined_params())
        for stage in (train, detector):
            stage(NETWORK)
    return folder


@pytest.fixture
def detected(_detected: Path, mlflow_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: the small project with `mined_params` after the stages weights, train and detector.

    Its run in MLflow is the same for all tests.
    """
    shutil.copytree(_detected, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path
