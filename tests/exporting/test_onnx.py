"""ONNX Runtime gives torch's answers."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from mitoscope.errors import InputError
from mitoscope.exporting.onnx import Run, export_network, open_network, quantise, torch_network
from mitoscope.learning.augment import crop
from mitoscope.learning.networks import PatchNetwork

from .conftest import with_head

pytestmark = pytest.mark.slow
HEADS = ("classifier", "pooled")


@pytest.fixture(scope="module", params=HEADS)
def exported(request, tmp_path_factory) -> tuple[PatchNetwork, Path, bool]:
    """A network, its file, and whether its features are an output."""
    model, features = with_head(request.param).model, request.param == "pooled"
    path = tmp_path_factory.mktemp("onnx") / "network.onnx"
    export_network(model, path, features=features)
    return model, path, features


@pytest.fixture(scope="module")
def patches(windows) -> np.ndarray:
    return crop(windows.read(np.arange(64)), 0, 32).contiguous().numpy()


def answers(run: Run, patches: np.ndarray) -> dict[str, np.ndarray]:
    found = run(patches)
    assert all(len(output) == len(patches) and output.dtype == np.float32 for output in found.values())
    return found


def test_one_file_gives_torchs_answers_in_batches_of_any_size(exported, patches):
    model, path, features = exported
    assert [file.name for file in path.parent.iterdir()] == ["network.onnx"]  # the weights are in it
    run, expected = open_network(path), answers(torch_network(model, features=features), patches)
    assert set(expected) == ({"logits", "features"} if features else {"logits"})
    for size in (1, 7, 64):
        for name, output in answers(run, patches[:size]).items():
            np.testing.assert_allclose(output, expected[name][:size], rtol=0, atol=1e-4)
    assert expected["logits"].std() > 0 or features  # a new pooled head has weights of 0


def test_int8_is_smaller_and_keeps_the_order(exported, patches, tmp_path):
    _, path, features = exported
    small = tmp_path / "small.onnx"
    quantise(path, small, [patches[:32], patches[32:]])
    assert [file.name for file in tmp_path.iterdir()] == ["small.onnx"]
    assert small.stat().st_size < path.stat().st_size / 2
    name = "features" if features else "logits"
    exact, rounded = (answers(open_network(file), patches)[name].ravel() for file in (path, small))
    assert np.corrcoef(exact, rounded)[0, 1] > 0.95
    assert not np.array_equal(exact, rounded)


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs the package onnx: install the extra mitoscope\[onnx\]"):
        export_network(with_head("classifier").model, tmp_path / "network.onnx", features=False)
    assert not list(tmp_path.iterdir())
