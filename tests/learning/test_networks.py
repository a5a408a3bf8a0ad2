"""Networks that cannot be fed wrongly, and where their weights start."""

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from mitoscope.learning.backbones import Backbone
from mitoscope.learning.networks import PatchNetwork, build, check_forward, head_names, start_state
from mitoscope.learning.pooling import CentrePooled

SMALL = "shufflenet_v2_x0_5"


def different_patches(count: int, size: int) -> Tensor:
    """Coarse coloured tiles: as different from each other as pixels can be, and still there after a resize."""
    tiles = torch.randint(0, 256, (count, 3, 4, 4), generator=torch.Generator().manual_seed(0))
    return F.interpolate(tiles.float(), size=size, mode="nearest").to(torch.uint8)


def untrained(backbone: str, head: str = "classifier", patch_size: int = 32, input_size: int = 32) -> PatchNetwork:
    description = {"backbone": backbone, "head": head, "patch_size": patch_size, "input_size": input_size}
    model = build(description, start_state(backbone, None, seed=0, head=head)[0])
    assert model.describe() == description
    return model


@pytest.mark.parametrize(("backbone", "input_size"), [("squeezenet1_1", 64), (SMALL, 48)])
def test_patches_in_two_logits_out(backbone, input_size):
    model = untrained(backbone, patch_size=48, input_size=input_size).eval()
    patches = different_patches(3, 48)
    with torch.inference_mode():
        logits = model(patches)
        assert logits.shape == (3, 2) and logits.dtype == torch.float32
        assert not torch.allclose(logits[0], logits[1])  # it looks at the pixels
        for wrong in (patches.float(), patches[0], patches[:, :2], patches[..., :47], patches.permute(0, 2, 3, 1)):
            with pytest.raises(ValueError, match=r"expected \(N, 3, 48, 48\) uint8"):
                model(wrong)


def test_pixels_are_normalised_as_imagenet_weights_expect():
    model = untrained(SMALL, patch_size=8, input_size=8)
    model.inner = nn.Identity()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    for value in (0, 255):
        images = model(torch.full((1, 3, 8, 8), value, dtype=torch.uint8))
        torch.testing.assert_close(images[0, :, 0, 0], (value / 255 - mean) / std)


class Two(Backbone):
    """Two levels: the images as they are, and at half the size."""

    def __init__(self, levels: int = 2) -> None:
        super().__init__()
        self.channels = [1] * levels

    def forward(self, images):
        return [images, F.avg_pool2d(images, 2)] if len(self.channels) == 2 else [images]

    def places(self):
        return {}


def test_a_pooled_head_takes_the_middle_of_every_level():
    """Worked by hand: a map as it is, and half of it after pooling."""
    head = CentrePooled(Two())
    head.classifier = nn.Identity()  # what the linear layer would see
    maps = torch.full((1, 1, 8, 8), 9.0)  # the border, which must not count
    maps[..., 2:6, 2:6] = torch.tensor([[-4.0, 1, 0, 0], [3, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 8]])
    # The level at 4 x 4 has 2 x 2 in its middle: the means of the four quarters above, 0 where negative.
    expected = torch.tensor([[8.0, 12 / 16, 2.0, 2.0 / 4]]).log1p()
    torch.testing.assert_close(head(maps), expected)


@pytest.mark.parametrize(("side", "mean"), [(1, 0.0), (2, 1.5), (3, 4.0), (5, 12.0)])
def test_the_middle_of_a_small_map_is_rounded_outwards(side, mean):
    head = CentrePooled(Two(levels=1))
    head.classifier = nn.Identity()
    maps = torch.arange(side * side, dtype=torch.float32).reshape(1, 1, side, side)
    assert head(maps)[0, 1].expm1().item() == pytest.approx(mean, abs=1e-5)


def test_a_pooled_head_takes_the_features_alone():
    whole, _ = start_state("squeezenet1_1", None, seed=5, head="classifier")
    state, missing = start_state("squeezenet1_1", whole, seed=6, head="pooled")
    assert missing == [f"classifier.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")]
    assert not state["classifier.2.weight"].any()
    assert all(torch.equal(state[name], whole[name]) for name in state if name.startswith("features."))
    with pytest.raises(ValueError, match="the weights do not fit squeezenet1_1"):
        build({"backbone": "squeezenet1_1", "head": "classifier", "patch_size": 64, "input_size": 64}, state)


def test_the_features_of_a_pooled_head_start_another():
    first = untrained(SMALL, "pooled").inner.state_dict()
    again, missing = start_state(SMALL, first, seed=9, head="pooled")
    assert all(torch.equal(again[name], first[name]) for name in again if name.startswith("features."))
    assert len(missing) == 4 and all(name.startswith("classifier.") for name in missing)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "head", "input_size", "lr"),
    [
        ("resnet18", "classifier", 32, 1e-3),
        ("resnet18", "pooled", 32, 1e-3),
        ("densenet121", "pooled", 32, 1e-3),
        ("timm/test_convnext", "pooled", 64, 1e-2),
    ],
)
def test_one_batch_can_be_learnt_by_heart(backbone, head, input_size, lr):
    model = untrained(backbone, head, input_size=input_size).train()
    patches, labels = different_patches(16, 32), torch.arange(16) % 2
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, fused=True)
    losses = []
    with torch.random.fork_rng():
        torch.manual_seed(0)  # dropout
        while len(losses) < 60 and (not losses or losses[-1] >= 0.05):
            loss = F.cross_entropy(model(patches), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert losses[0] > 0.5 and losses[-1] < 0.05, losses


@pytest.mark.parametrize(
    ("backbone", "head", "layers"),
    [
        ("squeezenet1_1", "classifier", ["classifier.1"]),
        (SMALL, "classifier", ["fc"]),
        (SMALL, "pooled", ["classifier.0", "classifier.2"]),
    ],
)
def test_with_a_frozen_backbone_only_the_head_learns(backbone, head, layers):
    model = untrained(backbone, head, input_size=64)
    model.freeze_all_but_head()
    expected = {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}
    assert set(head_names(model.inner)) == expected
    assert {name for name, parameter in model.inner.named_parameters() if parameter.requires_grad} == expected

    before = {name: tensor.clone() for name, tensor in model.inner.state_dict().items()}
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(2):  # a pooled head begins with zeros, which let nothing through to the layer before it
        F.cross_entropy(model(different_patches(4, 32)), torch.tensor([0, 1, 0, 1])).backward()
        optimizer.step()
    after = model.inner.state_dict()  # with the statistics of batch normalisation
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    statistics = {f"classifier.0.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")}
    assert changed == expected | (statistics if head == "pooled" else set())


def test_a_random_start_is_the_seeds_and_leaves_other_chance_alone():
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first, missing = start_state(SMALL, None, seed=1, head="classifier")
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(8)
    again, _ = start_state(SMALL, None, seed=1, head="classifier")
    other, _ = start_state(SMALL, None, seed=2, head="classifier")
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["conv1.0.weight"], other["conv1.0.weight"])
    model = build({"backbone": SMALL, "head": "classifier", "patch_size": 32, "input_size": 32}, first)
    assert missing == [name for name, _ in model.inner.named_parameters()]  # everything starts random


@pytest.fixture(scope="module")
def foreign():
    """A network of a thousand classes, as ImageNet's are, whose every tensor is told from a fresh one's."""
    from torchvision.models import get_model

    with torch.random.fork_rng():
        torch.manual_seed(99)
        state = get_model(SMALL, num_classes=1000).state_dict()
    return {name: tensor + 1 for name, tensor in state.items()}


def test_weights_of_other_classes_give_their_features(foreign):
    state, missing = start_state(SMALL, foreign, seed=1, head="classifier")
    fresh, _ = start_state(SMALL, None, seed=1, head="classifier")
    assert missing == ["fc.weight", "fc.bias"]
    assert state["fc.weight"].shape[0] == 2 and torch.equal(state["fc.weight"], fresh["fc.weight"])
    assert all(torch.equal(state[name], foreign[name]) for name in foreign if name not in missing)
    build({"backbone": SMALL, "head": "classifier", "patch_size": 32, "input_size": 32}, state)


def test_weights_of_the_features_alone_will_do():
    whole, _ = start_state("mobilenet_v3_small", None, seed=5, head="classifier")
    features = {name: tensor for name, tensor in whole.items() if name.startswith("features.")}
    state, missing = start_state("mobilenet_v3_small", features, seed=6, head="classifier")
    assert missing == [f"classifier.{layer}.{kind}" for layer in (0, 3) for kind in ("weight", "bias")]
    assert all(torch.equal(state[name], tensor) for name, tensor in features.items())
    assert not torch.equal(state["classifier.0.weight"], whole["classifier.0.weight"])


@pytest.mark.parametrize("head", ["classifier", "pooled"])
def test_densenets_old_names_are_understood(head):
    whole, _ = start_state("densenet121", None, seed=5, head="classifier")
    old = {}
    for name, tensor in whole.items():
        for layer in ("norm", "conv"):
            for number in "12":
                name = name.replace(f".{layer}{number}.", f".{layer}.{number}.")
        if not name.endswith("num_batches_tracked"):  # the old files have no such counters
            old[name] = tensor
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    state, missing = start_state("densenet121", old, seed=6, head=head)
    assert all(name.startswith("classifier.") for name in missing)
    assert all(torch.equal(state[name], whole[name]) for name in whole if not name.startswith("classifier."))


def without(state, *names):
    return {name: tensor for name, tensor in state.items() if name not in names}


@pytest.mark.parametrize("head", ["classifier", "pooled"])
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda state: state | {"layer9.weight": torch.zeros(1)}, "layer9.weight is not a tensor of"),
        (lambda state: state | {"conv1.0.weight": torch.zeros(3, 3)}, r"conv1.0.weight has shape \(3, 3\)"),
        (lambda state: without(state, "conv1.0.weight"), "lacks .*conv1.0.weight and 0 more"),
        (lambda state: without(state, "conv1.1.running_mean"), "lacks .*conv1.1.running_mean"),
        (lambda state: {name: state[name] for name in ("fc.weight", "fc.bias")}, "contains no weights of"),
        (lambda state: {}, "contains no weights of"),
    ],
    ids=["foreign name", "wrong shape", "part of the features", "no statistics", "head alone", "nothing"],
)
def test_weights_that_do_not_fit_are_rejected(foreign, head, spoil, message):
    with pytest.raises(ValueError, match=message):
        start_state(SMALL, spoil(foreign), seed=1, head=head)


def test_another_networks_weights_are_rejected():
    other, _ = start_state("squeezenet1_1", None, seed=1, head="classifier")
    with pytest.raises(ValueError, match="is not a tensor of"):
        start_state(SMALL, other, seed=1, head="classifier")
    with pytest.raises(ValueError, match="the weights do not fit") as refusal:
        build({"backbone": SMALL, "head": "classifier", "patch_size": 32, "input_size": 32}, other)
    assert len(str(refusal.value)) < 300  # not the names of all its tensors


class Failing(nn.Module):
    """Fails as it is told."""

    def __init__(self, failure: object) -> None:
        super().__init__()
        self.failure, self.weight = failure, nn.Parameter(torch.zeros(1))

    def forward(self, images):
        if isinstance(self.failure, BaseException):
            raise self.failure
        return self.failure


def test_a_network_that_works_is_left_as_it_is():
    model = untrained(SMALL).eval()
    before = {name: tensor.clone() for name, tensor in model.inner.state_dict().items()}
    check_forward(model)
    assert not model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.inner.state_dict().items())


def test_why_a_network_does_not_work_is_said_in_one_line():
    with pytest.raises(ValueError, match=r"Output size is too small") as caught:
        check_forward(untrained("squeezenet1_1", input_size=16))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (torch.zeros(2, 5), r"^returns \(2, 5\) instead of \(2, 2\) logits$"),
        ((torch.zeros(2, 2),) * 2, r"^returns tuple instead of \(2, 2\) logits: networks with several outputs are not"),
        (KeyError(), "^KeyError$"),
        (TypeError("one\n  two"), "^one two$"),
    ],
    ids=["other size", "several", "without a word", "several lines"],
)
def test_what_a_network_gives_instead_is_said(failure, message):
    model = untrained(SMALL)
    model.inner = Failing(failure)
    with pytest.raises(ValueError, match=message):
        check_forward(model)


@pytest.mark.parametrize(
    "failure",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes."),
    ],
    ids=["python", "cuda", "cpu"],
)
def test_too_little_memory_is_no_fault_of_the_settings(failure):
    model = untrained(SMALL)
    model.inner = Failing(failure)
    with pytest.raises((MemoryError, torch.OutOfMemoryError)):
        check_forward(model)


@pytest.mark.parametrize(
    ("backbone", "head", "expected"),
    [("alexnet", "classifier", True), ("alexnet", "pooled", True), ("squeezenet1_1", "classifier", False)],
)
def test_the_last_layer_computes_in_float32(backbone, head, expected):
    model = build({"backbone": backbone, "head": head, "patch_size": 32, "input_size": 64}).eval()
    assert model.in_bfloat16 == expected
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        logits = model(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
    assert (logits.dtype == torch.float32) == expected


@pytest.mark.parametrize("backbone", ["regnet_y_400mf", "squeezenet1_1"])  # some layers of others draw theirs
def test_a_network_with_weights_draws_none(backbone):
    description = {"backbone": backbone, "head": "classifier", "patch_size": 32, "input_size": 224}
    state = {name: tensor.double() for name, tensor in build(description).inner.state_dict().items()}
    before = torch.get_rng_state()
    found = build(description, state).inner.state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(found[name].double(), tensor) for name, tensor in state.items())
    assert {tensor.dtype for name, tensor in found.items() if "batches" not in name} == {torch.float32}


@pytest.mark.parametrize("backbone", ["shufflenet_v2_x0_5", "squeezenet1_1"])
def test_a_networks_own_last_layer_keeps_its_random_weights_and_names(backbone):
    torch.manual_seed(4)
    expected = torchvision.models.get_model(backbone, num_classes=2).state_dict()
    torch.manual_seed(4)
    description = {"backbone": backbone, "head": "classifier", "patch_size": 32, "input_size": 64}
    found = build(description).inner.state_dict()
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
