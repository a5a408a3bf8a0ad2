"""Where a network starts is as params.yaml says, and is written down."""

import hashlib
import json
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.models import get_model, get_model_weights

from mitoscope.errors import InputError
from mitoscope.files import hash_file
from mitoscope.learning import checkpoints
from mitoscope.stages.weights import weights
from tests.conftest import write_params

pytestmark = pytest.mark.slow

NETWORK = "mobilenet_v3_small"  # two layers in its head, and batch normalisation


@pytest.fixture
def no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No cached weights, and a proxy that answers nothing; returns the folder of the cached weights."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    # urllib keeps the proxies of its first call for the whole process, this test's for all later ones.
    monkeypatch.setattr(urllib.request, "_opener", None)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch/hub/checkpoints"


def start_from(wanted: str, network: str = NETWORK, **model: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Run the stage with `weights: wanted` and these entries of the model block; returns what it wrote."""
    write_params({"weights": {network: wanted}, "train": {network: {"model": model}}})
    weights(network)
    folder = Path("models") / network
    return torch.load(folder / "start.pt", weights_only=True), json.loads((folder / "start.json").read_text())


def other_weights(**options: Any) -> dict[str, Tensor]:
    """A state dict that the seeds of these tests do not give."""
    with torch.random.fork_rng():
        torch.manual_seed(12345)
        state: dict[str, Tensor] = get_model(NETWORK, weights=None, **options).state_dict()
    return state


def is_feature(name: str) -> bool:
    return name.startswith("features.")


def test_random_weights_are_the_seeds(project):
    first, start = start_from("random")
    again, _ = start_from("random")
    other, _ = start_from("random", seed=1)
    fresh = get_model(NETWORK, weights=None, num_classes=2).state_dict()
    assert {name: tensor.shape for name, tensor in first.items()} == {n: t.shape for n, t in fresh.items()}
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["features.0.0.weight"], other["features.0.0.weight"])
    assert start["source"] == "random" and start["file"] is start["sha256"] is None and start["seed"] == 0
    assert start["random_parameters"] == "all"


def test_a_file_gives_all_but_the_head(project):
    given = other_weights()  # with ImageNet's 1000 classes
    torch.save(given, "own.pt")
    state, start = start_from("own.pt")
    head = ["classifier.3.weight", "classifier.3.bias"]
    assert all(torch.equal(state[name], given[name]) for name in given if name not in head)
    assert [len(state[name]) for name in head] == [2, 2]
    assert start == {
        "source": "own.pt",
        "file": "own.pt",
        "sha256": hashlib.sha256(Path("own.pt").read_bytes()).hexdigest(),
        "random_parameters": head,
        "seed": 0,
    }


def test_a_file_may_hold_the_features_only(project):
    given = {name: tensor for name, tensor in other_weights().items() if is_feature(name)}
    torch.save(given, "features.pt")
    state, start = start_from("features.pt")
    assert all(torch.equal(state[name], tensor) for name, tensor in given.items())
    assert start["source"] == "features.pt (features only)"
    assert start["random_parameters"] == [name for name in state if not is_feature(name)]


def test_a_pooled_head_takes_the_features_of_a_whole_file(project):
    given = other_weights()
    torch.save(given, "whole.pt")
    state, start = start_from("whole.pt", head="pooled")
    assert start["source"] == "whole.pt (features only)"
    assert start["random_parameters"] == [f"classifier.{n}.{kind}" for n in (0, 2) for kind in ("weight", "bias")]
    features = {name: tensor for name, tensor in given.items() if is_feature(name)}
    assert all(torch.equal(state[name], tensor) for name, tensor in features.items())


def test_networks_side_by_side_start_from_a_file_each(project):
    model = {"backbone": f"{NETWORK}+squeezenet1_1", "head": "pooled"}
    first, second = other_weights(), get_model("squeezenet1_1", weights=None).state_dict()
    torch.save(first, "first.pt")
    torch.save(second, "second.pt")
    state, start = start_from("first.pt + second.pt", "both", **model)
    assert start["source"] == "first.pt+second.pt (features only)"
    assert start["sha256"] == f"{hash_file(Path('first.pt'))}+{hash_file(Path('second.pt'))}"
    assert torch.equal(state["features.parts.0.0.0.weight"], first["features.0.0.weight"])
    assert torch.equal(state["features.parts.1.0.weight"], second["features.0.weight"])
    with pytest.raises(InputError, match=r"weights\.both: .*\+squeezenet1_1 needs 2 files, joined by \+"):
        start_from("first.pt", "both", **model)


def save_broken(case: str, path: Path) -> None:
    if case == "garbage":
        path.write_bytes(b"hello")
    elif case == "truncated":
        torch.save(other_weights(), path)
        path.write_bytes(path.read_bytes()[:100_000])
    elif case == "list":
        torch.save([1, 2], path)
    elif case == "code":
        torch.save(get_model(NETWORK, weights=None), path)  # a whole pickled module
    elif case == "another network":
        torch.save(get_model("squeezenet1_1", weights=None).state_dict(), path)
    elif case == "another shape":
        torch.save(other_weights() | {"features.0.0.weight": torch.zeros(8, 3, 3, 3)}, path)
    elif case == "features lack one":
        torch.save({name: t for name, t in other_weights().items() if name != "features.5.block.1.0.weight"}, path)


@pytest.mark.parametrize(
    ("case", "complaint"),
    [
        ("missing", r"own\.pt: no such file"),
        ("garbage", r"own\.pt: is truncated, or is not a checkpoint"),
        ("truncated", r"own\.pt: is truncated, or is not a checkpoint"),
        ("list", r"own\.pt: contains list"),
        ("code", r"own\.pt: is truncated, or is not a checkpoint that can be read safely"),
        ("another network", r"own\.pt: features\.\S+ (is not a tensor of|has shape)"),
        ("another shape", r"own\.pt: features\.0\.0\.weight has shape \(8, 3, 3, 3\)"),
        ("features lack one", r"own\.pt: lacks features\.5\.block\.1\.0\.weight"),
    ],
)
def test_a_bad_file_is_rejected(project, case, complaint):
    save_broken(case, Path("own.pt"))
    with pytest.raises(InputError, match=complaint) as caught:
        start_from("own.pt")
    assert "\n" not in str(caught.value)
    assert not Path("models").exists()


def test_auto_without_network_starts_random_and_says_so(project, no_network, capsys):
    started = time.monotonic()
    state, start = start_from("auto")
    assert time.monotonic() - started < 15
    said = capsys.readouterr().out
    assert f"warning: {NETWORK} starts from RANDOM weights" in said and "are not available" in said
    assert f"dvc repro -f weights@{NETWORK}" in said
    assert start["source"] == "random"
    random, _ = start_from("random")
    assert all(torch.equal(state[name], random[name]) for name in state)


def test_imagenet_without_network_is_one_line_with_the_remedies(project, no_network):
    with pytest.raises(InputError, match=f"ImageNet weights of {NETWORK} are not available .*set weights.{NETWORK} in"):
        start_from("imagenet")
    assert not Path("models").exists()


def test_what_has_no_imagenet_weights_starts_random_or_says_so(project, capsys):
    """Timm's networks: their weights are not downloaded. The network has a name of the user's own."""
    backbone = "timm/test_resnet"
    _, start = start_from("auto", "mine", backbone=backbone)
    said = capsys.readouterr().out
    assert (
        "warning: mine starts from RANDOM weights" in said
        and f"mitoscope downloads no ImageNet weights for {backbone}" in said
    )
    assert (start["source"], start["random_parameters"]) == ("random", "all")
    before = Path("models/mine/start.pt").read_bytes()
    with pytest.raises(
        InputError, match=f"ImageNet weights of {backbone} are not available .*set weights.mine in"
    ) as caught:
        start_from("imagenet", "mine", backbone=backbone)
    assert "\n" not in str(caught.value)
    assert Path("models/mine/start.pt").read_bytes() == before


@pytest.mark.parametrize("wanted", ["auto", "imagenet"])
@pytest.mark.parametrize("cache", ["torch's", "ours"])
def test_a_cached_file_of_another_hash_is_rejected(project, no_network, wanted, cache):
    name = get_model_weights(NETWORK)["IMAGENET1K_V1"].url.rsplit("/", 1)[-1]
    path = (no_network if cache == "torch's" else Path(".work/imagenet")) / name
    path.parent.mkdir(parents=True)
    checkpoints.save(path, other_weights())
    with pytest.raises(InputError, match=f"{path}: its SHA-256 does not match the one in its name; delete the"):
        start_from(wanted)


@pytest.mark.parametrize("wanted", ["auto", "random"])
def test_an_unknown_network_is_named(project, no_network, wanted):
    with pytest.raises(InputError, match=r"params\.yaml: .*no_such_net"):
        start_from(wanted, "no_such_net")


def test_a_network_that_has_no_block_is_named(project):
    with pytest.raises(InputError, match=r"train has no entry 'another'; it has \S+"):
        weights("another")
