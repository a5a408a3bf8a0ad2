"""ONNX Runtime gives torch's answers."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from scipy.stats import spearmanr

from mitoscope.exporting.onnx import Run, export_network, open_network, quantise, torch_network
from mitoscope.learning.augment import crop
from mitoscope.learning.networks import PatchNetwork, build, head_names

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


def test_weights_of_repeated_inputs_are_added(patches, tmp_path):
    """AlexNet's own head repeats a last level of one position 36 times at this input size."""
    model = build({"backbone": "alexnet", "head": "classifier", "patch_size": 32, "input_size": 64}).eval()
    export_network(model, tmp_path / "network.onnx", features=False)
    weights = sum(parameter.nbytes for parameter in model.parameters())
    assert (tmp_path / "network.onnx").stat().st_size < weights * 0.4
    with torch.inference_mode():
        expected = model(torch.from_numpy(patches)).numpy()
    assert expected.std() > 1e-4
    found = answers(open_network(tmp_path / "network.onnx"), patches)["logits"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_int8_is_smaller_and_keeps_the_order_of_the_patches(exported, patches, tmp_path):
    _, path, features = exported
    small = tmp_path / "small.onnx"
    quantise(path, small, [patches[:32], patches[32:]])
    assert [file.name for file in tmp_path.iterdir()] == ["small.onnx"]
    assert small.stat().st_size < path.stat().st_size / 2
    exact, rounded = (answers(open_network(file), patches) for file in (path, small))
    if features:  # by channel; those that are nearly constant have no order
        lively = np.flatnonzero(exact["features"].std(axis=0) > 0.2)
        pairs = [(exact["features"][:, channel], rounded["features"][:, channel]) for channel in lively]
    else:
        pairs = [(exact["logits"] @ [-1, 1], rounded["logits"] @ [-1, 1])]
    assert len(pairs) >= 1 and not np.array_equal(*pairs[0])
    assert np.median([spearmanr(*pair).statistic for pair in pairs]) > 0.9


def test_the_last_layer_keeps_its_weights(exported, patches, tmp_path):
    """SqueezeNet's own head ends in a convolution, the pooled one in a linear layer."""
    model, path, _ = exported
    quantise(path, tmp_path / "small.onnx", [patches[:32]])
    kept = [onnx.numpy_helper.to_array(weight) for weight in onnx.load(tmp_path / "small.onnx").graph.initializer]
    last = dict(model.inner.named_parameters())[head_names(model.inner)[-2]].detach().numpy()
    assert any(array.shape in (last.shape, last.T.shape) and array.dtype == np.float32 for array in kept)
    assert sum(array.dtype == np.int8 for array in kept) > 10
