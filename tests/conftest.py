"""A small synthetic project to run stages in, and an MLflow store that is not the repository's."""

import contextlib
import gc
import os
import shutil
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from filelock import FileLock

# Networks this small gain nothing from threads, and on a busy machine threads wait for each other. Before torch comes.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Dask's processes begin with its packages, which is allowed on any system that the tests run on.
os.environ.setdefault("DASK_DISTRIBUTED__WORKER__MULTIPROCESSING_METHOD", "forkserver")

os.environ.pop("COLUMNS", None)  # pytest-xdist sets it to 80; then tables would fold, here and in the commands

from mitoscope.datasets.synthetic import synthesize
from tests import forkserver
from tests.postgresql import running_postgresql

if TYPE_CHECKING:
    from mitoscope.detection.detector import Detector
    from mitoscope.learning.devices import Device
    from mitoscope.learning.networks import PatchNetwork

NETWORK = "squeezenet1_1"  # 3 MB, where AlexNet has 228
Params = dict[str, Any]


def tiny_params() -> Params:
    """The settings of the small project."""
    return {
        "split": {"folds": 4},
        "extract": {"patch_um": 16},  # 32 px
        "weights": {NETWORK: "random"},
        "train": {
            NETWORK: {
                "model": {"input_size": 32},
                "sampling": {
                    "samples_per_epoch": 16,
                    "positive_fraction": 0.5,
                    "rotations": {"positive": [0, 45, 90], "negative": [0, 22.5]},
                    "near_um": 3.0,
                },
                "optimisation": {"epochs": 1, "batch_size": 8, "lr": 0.001, "weight_decay": 0.0, "patience": 1},
            }
        },
        "detection": {NETWORK: {"views": 1}},
        "search": {
            "trials": 0,
            "samples_per_epoch": 16,
            "lr": [1e-4, 1e-2],
            "rotations": {"positive": [[0, 45, 90], [0]], "negative": [[0], [0, 22.5]]},
        },
        "evaluate": {"bootstrap": 100},
        "promote": {"min_recall": 0.0, "min_f1": 0.0},
    }


def write_params(params: Params) -> None:
    """Make `params` the params.yaml of the working directory."""
    Path("params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


def pytest_configure() -> None:
    """Collect no garbage while the tests are imported; see below."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Leave modules and tests out of garbage collection: looking at them again and again took a fifth of the time."""
    gc.freeze()
    gc.enable()


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs an MLflow store as slow, and run whole pipelines first, so that the longest do not begin last."""
    for item in items:
        if "mlflow_store" in getattr(item, "fixturenames", ()):
            item.add_marker("slow")
    items.sort(key=lambda item: ("pipeline" not in item.path.parts, item.path.name != "test_pipeline.py"))


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A folder of all workers together."""
    base = tmp_path_factory.getbasetemp()
    return base if worker_id == "master" else base.parent  # master: there are no workers


def made_once(folder: Path, make: Callable[[Path], object]) -> Path:
    """Return `folder`, which the first worker that comes here makes with `make`."""
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            shutil.rmtree(unfinished := folder.with_suffix(".new"), ignore_errors=True)  # of one that failed
            unfinished.mkdir()
            make(unfinished)
            unfinished.rename(folder)
    return folder


@pytest.fixture(scope="session")
def raw(shared_folder: Path) -> Path:
    """A synthetic dataset: four patients with two fields of 0.01 mm2 each, 21 mitoses, none in 02_02."""
    return made_once(
        shared_folder / "raw", lambda folder: synthesize(folder, seed=3, patients=4, fields_per_patient=2, size=400)
    )


@pytest.fixture
def project(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: the raw dataset in data/ and the small settings, nothing run yet."""
    shutil.copytree(raw, tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    write_params(tiny_params())
    return tmp_path


@pytest.fixture(scope="session")
def _extracted(raw: Path, shared_folder: Path) -> Path:
    from mitoscope.stages.extract import extract
    from mitoscope.stages.search import search
    from mitoscope.stages.split import split

    def run_stages(folder: Path) -> None:
        shutil.copytree(raw, folder / "data")
        with contextlib.chdir(folder):
            write_params(tiny_params())
            split()
            extract()
            search(NETWORK)  # off

    return made_once(shared_folder / "extracted", run_stages)


@pytest.fixture
def extracted(_extracted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: the small project after the stages split, extract and search, which is off."""
    shutil.copytree(_extracted, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def _store_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture
def no_mlflow_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No store, experiment or run named by the environment, now and (MLflow sets some itself) afterwards."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_EXPERIMENT_ID", "MLFLOW_RUN_ID"):
        monkeypatch.setenv(name, os.environ.get(name, ""))  # so that it is put back whatever MLflow does to it
        monkeypatch.delenv(name)


@pytest.fixture
def mlflow_store(_store_folder: Path, no_mlflow_environment: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URI of a store for all tests together (making one takes seconds), in use for this test only."""
    import mlflow

    from mitoscope.tracking.store import connect

    uri = f"sqlite:///{_store_folder / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    connect(_store_folder)  # so that the artifacts lie there too
    yield uri
    while mlflow.active_run():
        mlflow.end_run()
    mlflow.set_tracking_uri("")
    mlflow.set_registry_uri("")


@pytest.fixture(scope="session")
def here() -> "Device":
    """This process alone, on the processor, in float32 on every machine."""
    from mitoscope.learning.devices import alone

    return replace(alone(), bf16=False)


@pytest.fixture
def float32_detectors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Detectors score in float32, also on a processor with bf16, for tests that compare with a GPU or with `here`."""
    from mitoscope.detection import detector
    from mitoscope.learning.devices import alone

    monkeypatch.setattr(detector, "alone", lambda device: replace(alone(device), bf16=False))


@cache
def _network_of_chance() -> "PatchNetwork":
    import torch

    from mitoscope.learning.networks import build

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build({"backbone": NETWORK, "head": "classifier", "patch_size": 32, "input_size": 32})
    with torch.no_grad():  # as drawn, the scores of all patches lie within 0.004 above 0.5
        model.inner.get_parameter("classifier.1.weight").mul_(30)
        model.inner.get_parameter("classifier.1.bias").copy_(torch.tensor([8.5, 5.0]))
    return model.eval()


def small_detector(run_id: str = "run", **changes: Any) -> "Detector":
    """A detector with a network of chance for the small project's fields, fold 0 of its split.

    `changes` replace attributes of the detector.
    """
    from mitoscope.detection.calibration import Calibration
    from mitoscope.detection.detector import Detector
    from mitoscope.detection.origin import Origin
    from mitoscope.params import Detection, Extract

    detection = Detection(views=2)
    origin = Origin(
        network=NETWORK,
        run_id=run_id,
        start_weights="random",
        dataset="synthetic",
        dataset_digest="",
        synthetic=True,
        microns_per_pixel=0.25,
        patients={"train": [], "validation": []},
        images=[],
    )
    parts: dict[str, Any] = {
        "model": deepcopy(_network_of_chance()),
        "extract": Extract(**tiny_params()["extract"]),
        "detection": detection,
        "head": None,
        "calibration": Calibration(detection.calibration, -1.0, 1.0),
        "threshold": 0.4,
        "patch_threshold": 0.5,
        "origin": origin,
    }
    return Detector(**parts | changes)


@pytest.fixture
def trained(extracted: Path, mlflow_store: str) -> str:
    """The small project with a detector of chance, saved and logged as the stages do. Returns the id of its run."""
    import mlflow

    from mitoscope.datasets.patches import read_patients
    from mitoscope.files import write_json
    from mitoscope.params import Detection
    from mitoscope.paths import Outputs
    from mitoscope.tracking.store import connect

    client = connect()
    experiment = client.get_experiment_by_name("mitoscope")
    assert experiment is not None
    run_id: str = client.create_run(experiment.experiment_id).info.run_id
    logged = mlflow.initialize_logged_model("detector", source_run_id=run_id)
    outputs = Outputs(NETWORK)
    small_detector(run_id).save(outputs.detector)
    patients = read_patients(outputs.split)
    report = {"run_id": run_id, "network": NETWORK, "start_weights": "random"}
    write_json(outputs.trained, report | {"patients": {name: patients[name] for name in ("train", "validation")}})
    detection = {"threshold": 0.4, "validation_fields": {"f1": 0.5}, "settings": Detection(views=2).model_dump()}
    write_json(outputs.detected, report | {"model_id": logged.model_id} | detection)
    return run_id


@pytest.fixture
def empty_registry(mlflow_store: str) -> Iterator[None]:
    """The store without registered models, now and afterwards."""
    import mlflow

    yield
    client = mlflow.MlflowClient()
    for model in client.search_registered_models():
        client.delete_registered_model(model.name)


@pytest.fixture(scope="session")
def programs(shared_folder: Path, worker_id: str) -> Path:
    """A folder with a `mitoscope`, a `dvc` and others that begin at once. All workers share its server."""
    lives_with = os.getpid() if worker_id == "master" else os.getppid()
    return forkserver.programs(shared_folder / "fork", lives_with)


@pytest.fixture(scope="module")
def postgresql() -> Iterator[str]:
    """The URL of an empty PostgreSQL database on a server of the module's own; skips where it is not installed."""
    with running_postgresql() as url:
        yield url
