"""Any network runs through the pipeline: one entry in params.yaml is enough."""

import json
from pathlib import Path

import pytest

from mitoscope.detection.detector import Detector
from mitoscope.learning.checkpoints import load_network
from mitoscope.paths import Outputs
from mitoscope.stages.detector import detector
from mitoscope.stages.evaluate import evaluate
from mitoscope.stages.search import search
from mitoscope.stages.settings import settings
from mitoscope.stages.train import train
from mitoscope.stages.weights import weights
from tests.conftest import NETWORK, tiny_params, write_params

pytestmark = pytest.mark.slow
OTHERS = {
    "resnet18": {"head": "pooled"},
    "efficientnet_b0": {"head": "pooled"},
    "small": {"backbone": "timm/resnet10t", "head": "pooled"},
}


@pytest.mark.parametrize("network", OTHERS)
def test_a_network_is_one_entry(extracted: Path, mlflow_store: str, network: str) -> None:
    params = tiny_params()
    entry = params["train"][NETWORK]
    entry["model"] |= OTHERS[network]
    params |= {"train": {network: entry}, "weights": {network: "random"}, "detection": {}}
    if OTHERS[network]["head"] == "pooled":
        params["detection"] = {network: {"refit_fields": True}}
    write_params(params)
    settings()
    for stage in (weights, search, train, detector, evaluate):
        stage(network)
    outputs = Outputs(network)
    found = Detector.load(outputs.detector)
    assert found.model.backbone == OTHERS[network].get("backbone", network)
    assert (found.head is not None) == (OTHERS[network]["head"] == "pooled")
    assert load_network(outputs.weights)[0].describe() == found.model.describe()
    metrics = json.loads((outputs.evaluated / "metrics.json").read_text())
    assert metrics["fields"]["mitoses"] > 0 and 0 <= metrics["fields"]["f1"] <= 1
