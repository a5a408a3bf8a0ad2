"""One detector of chance, once logged for all tests of the package, and images as a client sends them."""

import base64
import contextlib
import io
import json
import os
import struct
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import numpy.typing as npt
import pytest
from mlflow.pyfunc import PyFuncModel
from mlflow.pyfunc.scoring_server import invocations
from PIL import Image as Pillow

from mitoscope.datasets.readers import read_image
from mitoscope.detection.detector import Detector
from mitoscope.params import Detection, Extract
from mitoscope.serving.package import describe
from mitoscope.tracking.runs import log_detector
from mitoscope.tracking.store import connect
from tests.conftest import small_detector

SIZE = 32  # px; side of a patch
Pixels = npt.NDArray[Any]
NOISE = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3)).astype(np.uint8)


def text(image: Pixels, kind: str, **options: Any) -> str:
    """Base64 of `encoded`."""
    return base64.b64encode(encoded(image, kind, **options)).decode()


def encoded(image: Pixels, kind: str, **options: Any) -> bytes:
    """The content of a file of this kind: PNG, JPEG, TIFF, ..."""
    file = io.BytesIO()
    Pillow.fromarray(image).save(file, kind, **options)
    return file.getvalue()


def claiming(width: int, height: int) -> str:
    """Base64 of `claiming_bytes`."""
    return base64.b64encode(claiming_bytes(width, height)).decode()


def claiming_bytes(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims so many pixels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + header + pixels + chunk(b"IEND", b"")


def expected_answer(detector: Detector, image: Pixels, microns: float | None = None) -> dict[str, Any]:
    """What the served model must say of a field."""
    found = detector.detect(image, microns)
    mitoses = [
        {"row": row, "col": col, "probability": probability}
        for (row, col), probability in zip(found.points.tolist(), found.probabilities.tolist(), strict=True)
    ]
    return {"mitoses": mitoses, "threshold": detector.threshold}


def post(model: PyFuncModel, body: Any) -> tuple[int, Any]:
    """What MLflow's server does with a JSON request, without the server; the status and the answer."""
    try:
        answer = invocations(json.dumps(body).encode(), "application/json", model, model.metadata.get_input_schema())
    except mlflow.MlflowException as error:  # as the server's `_async_catch_mlflow_exception`
        return error.get_http_status_code(), json.loads(error.serialize_as_json())
    return answer.status, json.loads(answer.response)


@pytest.fixture(scope="session")
def detector() -> Detector:
    """A network of chance, with settings that it must bring along itself."""
    detection = Detection(views=2, suppress_um=6.0)
    return small_detector(
        extract=Extract(patch_um=16, stain="macenko"), detection=detection, threshold=0.5, patch_threshold=0.502
    )


@pytest.fixture(scope="session")
def image(raw: Path) -> Pixels:
    """A field of 400 x 400 px."""
    return read_image(sorted(raw.glob("*_01.jpg"))[0])


@dataclass(frozen=True)
class Logged:
    """A detector in MLflow.

    Attributes:
        model_id: of the logged model, in the store of `mlflow_store`.
        folder: of the logged model.
    """

    model_id: str
    folder: Path


@pytest.fixture(scope="session")
def logged(detector: Detector, _store_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Logged:
    """The detector, logged as stage `detector` does."""
    path = tmp_path_factory.mktemp("logged") / "detector.pt"
    detector.save(path)
    with pytest.MonkeyPatch.context() as patching, contextlib.chdir(path.parent):
        for name in ("MLFLOW_REGISTRY_URI", "MLFLOW_EXPERIMENT_ID", "MLFLOW_RUN_ID"):
            patching.setenv(name, os.environ.get(name, ""))
            patching.delenv(name)
        patching.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{_store_folder / 'mlflow.db'}")
        patching.setattr(sys, "path", list(sys.path))  # MLflow adds the model's own code to it
        client = connect(_store_folder)
        experiment = client.get_experiment_by_name("mitoscope")
        assert experiment is not None
        run_id = client.create_run(experiment.experiment_id).info.run_id
        parts = describe(detector, NOISE)
        model_id = log_detector(run_id, detector=path, params={}, metrics={}, **parts._asdict())
        folder = Path(client.get_logged_model(model_id).artifact_location.removeprefix("file://"))
        mlflow.set_tracking_uri("")
        mlflow.set_registry_uri("")
    return Logged(model_id, folder)


@pytest.fixture(scope="session")
def served(logged: Logged) -> PyFuncModel:
    """The logged model as MLflow's server loads it."""
    with pytest.MonkeyPatch.context() as patching:
        patching.setattr(sys, "path", list(sys.path))
        return mlflow.pyfunc.load_model(str(logged.folder))
