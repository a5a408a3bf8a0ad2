"""Detectors for all tests of the room together, and fields to look at."""

from pathlib import Path

import pytest
import torch

from mitoscope.datasets.readers import Image, read_image
from mitoscope.detection.calibration import Calibration
from mitoscope.detection.detector import Detector
from mitoscope.detection.field_head import FieldHead
from mitoscope.detection.stored import read_samples
from mitoscope.learning.devices import alone
from mitoscope.learning.networks import PatchNetwork, build
from mitoscope.learning.scoring import pool_patches
from mitoscope.params import Detection
from tests.conftest import NETWORK, small_detector

KINDS = ("classifier", "calibrated", "field head")


@pytest.fixture(scope="session")
def patches(_extracted: Path) -> Path:
    """The patch store of the small project. Only to be read."""
    return _extracted / "patches"


@pytest.fixture(scope="session")
def split(_extracted: Path) -> Path:
    """The split of the small project. Only to be read."""
    return _extracted / "results/split.csv"


@pytest.fixture(scope="session")
def images(raw: Path) -> list[Image]:
    """Two fields of two patients, at 0.25 um per pixel."""
    return [read_image(raw / f"{name}.jpg") for name in ("01_01", "03_02")]


@pytest.fixture(scope="session")
def pooled() -> PatchNetwork:
    """A network of chance with a pooled head."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build({"backbone": NETWORK, "head": "pooled", "patch_size": 32, "input_size": 32}).eval()


@pytest.fixture(scope="session")
def detectors(patches: Path, split: Path, pooled: PatchNetwork) -> dict[str, Detector]:
    """A detector of each of KINDS. Nothing changes them but `to`."""
    plain = Detection(views=2)
    refitted = plain.model_copy(update={"refit_fields": True})
    training, _ = read_samples(patches, split, "train")
    features = pool_patches(pooled, training.windows, alone(), views=2)
    head = FieldHead.fit(features, training.windows.store, training.labels, refitted.field_head)
    return {
        "classifier": small_detector(detection=plain, calibration=None),
        "calibrated": small_detector(detection=plain, calibration=Calibration(plain.calibration, -1.0, 1.0)),
        "field head": small_detector(model=pooled, detection=refitted, head=head, calibration=None),
    }


@pytest.fixture(params=KINDS)
def detector(request: pytest.FixtureRequest, detectors: dict[str, Detector]) -> Detector:
    """Each of KINDS in turn."""
    return detectors[request.param]
