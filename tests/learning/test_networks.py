"""Networks that cannot be fed wrongly, and where their weights start."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mitoscope.learning.networks import CentrePooled, build, head_names, start_state
from mitoscope.params import POOLED_NETWORKS

SMALL = "shufflenet_v2_x0_5"
# The smallest inputs that the two real networks take with ease.
REAL = [("alexnet", 64), ("densenet161", 32)]


def different_patches(count: int, size: int) -> torch.Tensor:
    """Coarse coloured tiles: as different from each other as pixels can be, and still there after a resize."""
    tiles = torch.randint(0, 256, (count, 3, 4, 4), generator=torch.Generator().manual_seed(0))
    return F.interpolate(tiles.float(), size=size, mode="nearest").to(torch.uint8)


@pytest.mark.parametrize(("arch", "input_size"), REAL)
def test_patches_in_two_logits_out(arch, input_size):
    network = build({"arch": arch, "patch_size": 48, "input_size": input_size}).eval()
    patches = different_patches(3, 48)
    with torch.inference_mode():
        logits = network(patches)
        assert logits.shape == (3, 2) and logits.dtype == torch.float32
        assert not torch.allclose(logits[0], logits[1])  # it looks at the pixels
        for wrong in (patches.float(), patches[0], patches[:, :2], patches[..., :47], patches.permute(0, 2, 3, 1)):
            with pytest.raises(ValueError, match=r"expected \(N, 3, 48, 48\) uint8"):
                network(wrong)
    assert network.describe() == {"arch": arch, "head": "classifier", "patch_size": 48, "input_size": input_size}


def test_pixels_are_normalised_as_imagenet_weights_expect():
    network = build({"arch": SMALL, "patch_size": 8, "input_size": 8})
    network.network = torch.nn.Identity()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    for value in (0, 255):
        images = network(torch.full((1, 3, 8, 8), value, dtype=torch.uint8))
        torch.testing.assert_close(images[0, :, 0, 0], (value / 255 - mean) / std)


@pytest.mark.parametrize("arch", POOLED_NETWORKS)
def test_a_pooled_head_sees_every_level(arch):
    description = {"arch": arch, "head": "pooled", "patch_size": 64, "input_size": 64}
    state, _ = start_state(arch, None, seed=0, head="pooled")
    network = build(description, state).eval()
    assert network.describe() == description
    seen = {}
    network.network.classifier.register_forward_pre_hook(lambda _, inputs: seen.update(pooled=inputs[0]))
    patches = torch.full((2, 3, 64, 64), 200, dtype=torch.uint8)
    patches[1, :, 28:36, 28:36] = 20  # a dark spot in the middle of the second
    with torch.inference_mode():
        assert network(patches).shape == (2, 2)
    plain, spotted = seen["pooled"]
    start = 0
    for channels in network.network.levels.values():  # the largest activations of a level, then its means
        for values in (slice(start, start + channels), slice(start + channels, start + 2 * channels)):
            assert not torch.allclose(plain[values], spotted[values]), start
        start += 2 * channels
    assert start == len(plain)


def test_a_pooled_head_takes_the_middle_of_every_level():
    """Two levels, worked by hand: a map as it is, and half of it after pooling."""
    features = nn.Sequential(nn.Identity(), nn.AvgPool2d(2))
    network = CentrePooled(features, {"0": 1, "1": 1})
    network.classifier = nn.Identity()  # what the linear layer would see
    maps = torch.full((1, 1, 8, 8), 9.0)  # the border, which must not count
    maps[..., 2:6, 2:6] = torch.tensor([[-4.0, 1, 0, 0], [3, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 8]])
    # The level at 4 x 4 has 2 x 2 in its middle: the means of the four quarters above, 0 where negative.
    expected = torch.tensor([[8.0, 12 / 16, 2.0, 2.0 / 4]]).log1p()
    torch.testing.assert_close(network(maps), expected)


@pytest.mark.parametrize(("side", "mean"), [(1, 0.0), (2, 1.5), (3, 4.0), (5, 12.0)])
def test_the_middle_of_a_small_map_is_rounded_outwards(side, mean):
    network = CentrePooled(nn.Sequential(nn.Identity()), {"0": 1})
    network.classifier = nn.Identity()
    maps = torch.arange(side * side, dtype=torch.float32).reshape(1, 1, side, side)
    assert network(maps)[0, 1].expm1().item() == pytest.approx(mean, abs=1e-5)


def test_a_pooled_head_takes_the_features_alone():
    whole, _ = start_state("alexnet", None, seed=5)
    state, missing = start_state("alexnet", whole, seed=6, head="pooled")
    assert missing == [f"classifier.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")]
    assert not state["classifier.2.weight"].any()
    assert all(torch.equal(state[name], whole[name]) for name in state if name.startswith("features."))
    with pytest.raises(ValueError, match="the weights do not fit alexnet"):
        build({"arch": "alexnet", "head": "classifier", "patch_size": 64, "input_size": 64}, state)
    with pytest.raises(ValueError, match=f"a pooled head is for alexnet and densenet161, not for {SMALL}"):
        start_state(SMALL, None, seed=0, head="pooled")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arch", "head", "input_size", "lr"),
    [
        ("alexnet", "classifier", 64, 3e-4),
        ("alexnet", "pooled", 64, 3e-4),
        ("densenet161", "classifier", 32, 1e-3),
        ("densenet161", "pooled", 32, 1e-3),
    ],
)
def test_one_batch_can_be_learnt_by_heart(arch, head, input_size, lr):
    state, _ = start_state(arch, None, seed=0, head=head)
    network = build({"arch": arch, "head": head, "patch_size": 32, "input_size": input_size}, state).train()
    patches, labels = different_patches(16, 32), torch.arange(16) % 2
    optimizer = torch.optim.AdamW(network.parameters(), lr=lr, fused=True)
    losses = []
    with torch.random.fork_rng():
        torch.manual_seed(0)  # dropout
        while len(losses) < 60 and (not losses or losses[-1] >= 0.05):
            loss = F.cross_entropy(network(patches), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert losses[0] > 0.5 and losses[-1] < 0.05, losses


@pytest.mark.parametrize(
    ("arch", "input_size", "head", "layers"),
    [
        ("alexnet", 64, "classifier", ["classifier.6"]),
        ("densenet161", 32, "classifier", ["classifier"]),
        ("densenet161", 32, "pooled", ["classifier.0", "classifier.2"]),
    ],
)
def test_with_a_frozen_body_only_the_head_learns(arch, input_size, head, layers):
    network = build({"arch": arch, "head": head, "patch_size": 32, "input_size": input_size})
    network.freeze_all_but_head()
    expected = {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}
    assert set(head_names(network.network)) == expected
    assert {name for name, parameter in network.network.named_parameters() if parameter.requires_grad} == expected

    before = {name: tensor.clone() for name, tensor in network.network.state_dict().items()}
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.01)
    for _ in range(2):  # a pooled head begins with zeros, which let nothing through to the layer before it
        F.cross_entropy(network(different_patches(4, 32)), torch.tensor([0, 1, 0, 1])).backward()
        optimizer.step()
    after = network.network.state_dict()  # with the statistics of batch normalisation
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    statistics = {f"classifier.0.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")}
    assert changed == expected | (statistics if head == "pooled" else set())


def test_a_random_start_is_the_seeds_and_leaves_other_chance_alone():
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first, missing = start_state(SMALL, None, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(8)
    again, _ = start_state(SMALL, None, seed=1)
    other, _ = start_state(SMALL, None, seed=2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["conv1.0.weight"], other["conv1.0.weight"])
    network = build({"arch": SMALL, "patch_size": 32, "input_size": 32}, first)
    assert missing == [name for name, _ in network.network.named_parameters()]  # everything starts random


@pytest.fixture(scope="module")
def foreign():
    """A network of a thousand classes, as ImageNet's are, whose every tensor is told from a fresh one's."""
    from torchvision.models import get_model

    with torch.random.fork_rng():
        torch.manual_seed(99)
        state = get_model(SMALL, num_classes=1000).state_dict()
    return {name: tensor + 1 for name, tensor in state.items()}


def test_weights_of_other_classes_give_their_features(foreign):
    state, missing = start_state(SMALL, foreign, seed=1)
    fresh, _ = start_state(SMALL, None, seed=1)
    assert missing == ["fc.weight", "fc.bias"]
    assert state["fc.weight"].shape[0] == 2 and torch.equal(state["fc.weight"], fresh["fc.weight"])
    assert all(torch.equal(state[name], foreign[name]) for name in foreign if name not in missing)
    build({"arch": SMALL, "patch_size": 32, "input_size": 32}, state)


def test_weights_of_the_features_alone_will_do():
    whole, _ = start_state("alexnet", None, seed=5)
    features = {name: tensor for name, tensor in whole.items() if name.startswith("features.")}
    state, missing = start_state("alexnet", features, seed=6)
    assert missing == [f"classifier.{layer}.{kind}" for layer in (1, 4, 6) for kind in ("weight", "bias")]
    assert all(torch.equal(state[name], tensor) for name, tensor in features.items())
    assert not torch.equal(state["classifier.1.weight"], whole["classifier.1.weight"])


def test_densenets_old_names_are_understood():
    whole, _ = start_state("densenet161", None, seed=5)
    old = {}
    for name, tensor in whole.items():
        for layer in ("norm", "conv"):
            for number in "12":
                name = name.replace(f".{layer}{number}.", f".{layer}.{number}.")
        if not name.endswith("num_batches_tracked"):  # the old files have no such counters
            old[name] = tensor
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    state, missing = start_state("densenet161", old, seed=6)
    assert missing == ["classifier.weight", "classifier.bias"]
    assert all(torch.equal(state[name], whole[name]) for name in whole if name not in missing)


def without(state, *names):
    return {name: tensor for name, tensor in state.items() if name not in names}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda state: state | {"layer9.weight": torch.zeros(1)}, "layer9.weight is no tensor of"),
        (lambda state: state | {"conv1.0.weight": torch.zeros(3, 3)}, r"conv1.0.weight has shape \(3, 3\)"),
        (lambda state: without(state, "conv1.0.weight"), "lacks conv1.0.weight and 0 more"),
        (lambda state: without(state, "conv1.1.running_mean"), "lacks conv1.1.running_mean"),
        (lambda state: {name: state[name] for name in ("fc.weight", "fc.bias")}, "holds no weights of"),
        (lambda state: {}, "holds no weights of"),
    ],
    ids=["foreign name", "wrong shape", "part of the features", "no statistics", "head alone", "nothing"],
)
def test_weights_that_do_not_fit_are_refused(foreign, spoil, message):
    with pytest.raises(ValueError, match=message):
        start_state(SMALL, spoil(foreign), seed=1)


def test_another_networks_weights_are_refused():
    other, _ = start_state("squeezenet1_1", None, seed=1)
    with pytest.raises(ValueError, match="is no tensor of"):
        start_state(SMALL, other, seed=1)
    with pytest.raises(ValueError, match="the weights do not fit") as refusal:
        build({"arch": SMALL, "patch_size": 32, "input_size": 32}, other)
    assert len(str(refusal.value)) < 300  # not the names of all its tensors


def test_an_unknown_network_is_refused():
    with pytest.raises(ValueError, match="alexnett"):
        start_state("alexnett", None, seed=1)
    with pytest.raises(ValueError, match="alexnett"):
        build({"arch": "alexnett", "patch_size": 32, "input_size": 32})
