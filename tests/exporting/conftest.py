"""Detectors of chance, with the network's own head and with a field head."""

from typing import Any

import numpy as np
import pytest
import torch

from mitoscope.detection.detector import Detector
from mitoscope.detection.field_head import FieldHead
from mitoscope.learning.batches import Windows
from mitoscope.learning.networks import build
from mitoscope.params import Detection
from tests.conftest import NETWORK, small_detector


def with_head(head: str, **detection: Any) -> Detector:
    """A detector with the head `classifier` or `pooled`; a field head weighs the features of the latter."""
    if head == "classifier":
        return small_detector(detection=Detection(**detection))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build({"backbone": NETWORK, "head": head, "patch_size": 32, "input_size": 64}).eval()
    settings = Detection(refit_fields=True, **detection)
    rng, count = np.random.default_rng(0), model.pooled.channels
    weights = rng.normal(size=count).astype(np.float32) / 30
    field_head = FieldHead(settings.field_head, np.zeros(count, np.float32), np.ones(count, np.float32), weights, -0.5)
    return small_detector(model=model, detection=settings, head=field_head, calibration=None)


@pytest.fixture(scope="session")
def windows() -> Windows:
    """300 windows of noise with blurred blots, more than a batch."""
    rng = np.random.default_rng(1)
    light = rng.integers(60, 255, (300, 1, 1, 3))
    return Windows.of(np.clip(rng.normal(light, 25, (300, 46, 46, 3)), 0, 255).astype(np.uint8))
