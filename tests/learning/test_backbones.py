"""Networks from torchvision and timm, with their own head and with the pooled one."""

import sys

import pytest
import torch
from torchvision.models import get_model

from mitoscope.errors import InputError
from mitoscope.learning.backbones import find, imagenet_weights
from mitoscope.learning.checkpoints import load_network, save_network
from mitoscope.learning.networks import build, check_forward, head_names, start_state
from mitoscope.learning.side_by_side import together

pytestmark = pytest.mark.slow

# Channels of the levels: the last activation at each resolution. Source: the tables of the networks' papers; timm's are
# small ones for tests.
CHANNELS = {
    "resnet18": [64, 64, 128, 256, 512],
    "efficientnet_b0": [16, 24, 40, 112, 1280],
    "convnext_tiny": [96, 192, 384, 768],
    "regnet_y_400mf": [32, 48, 104, 208, 440],
    "mnasnet0_5": [8, 16, 24, 48, 1280],
    "timm/test_resnet": [32, 32, 48, 192, 96],
    "timm/test_convnext": [24, 32, 48, 64],
}
LARGE = ("convnext_tiny", "regnet_y_400mf", "mnasnet0_5")


def trained_elsewhere(backbone: str) -> dict[str, torch.Tensor]:
    """The state dict of the whole network with 7 classes, as its own package makes it."""
    source, _, name = backbone.rpartition("/")
    with torch.random.fork_rng():
        torch.manual_seed(99)
        if source == "timm":
            import timm

            return timm.create_model(name, num_classes=7).state_dict()
        return get_model(name, num_classes=7).state_dict()


@pytest.mark.parametrize("head", ["classifier", "pooled"])
@pytest.mark.parametrize(
    "backbone", [pytest.param(name, marks=pytest.mark.slow) if name in LARGE else name for name in CHANNELS]
)
def test_a_network_starts_works_and_comes_back_from_its_file(tmp_path, backbone, head):
    file = trained_elsewhere(backbone)
    state, missing = start_state(backbone, file, seed=1, head=head)
    model = build({"backbone": backbone, "head": head, "patch_size": 32, "input_size": 64}, state)
    assert missing == head_names(model.inner)  # all else is the file's
    if head == "pooled":
        assert model.inner.features.channels == CHANNELS[backbone]
        assert model.pooled.channels == 2 * sum(CHANNELS[backbone])
        places = {name: place for name, place in model.inner.features.places().items() if place}
        assert {f"features.{place}" for place in places.values()} == set(state) - {
            name for name in state if name.startswith("classifier.")
        }
        assert all(torch.equal(state[f"features.{place}"], file[name]) for name, place in places.items())
    else:
        assert all(torch.equal(state[name], file[name]) for name in state if name not in missing)
    check_forward(model)

    save_network(tmp_path / "best.pt", model, threshold=0.5)
    loaded, _ = load_network(tmp_path / "best.pt")
    patches = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    with torch.inference_mode():
        logits = model.eval()(patches)
        assert logits.shape == (2, 2) and torch.equal(loaded(patches), logits)


def test_the_levels_of_published_figures_stay():
    """AlexNet's are an exception to the rule; those of a DenseNet (this one stands for the larger ones) are not."""
    levels = {name: find(name)[0].backbone(name).levels for name in ("alexnet", "densenet121")}
    assert levels["alexnet"] == ("1", "4", "7", "9", "11")
    assert levels["densenet121"] == ("relu0", "denseblock1", "denseblock2", "denseblock3", "norm5")


@pytest.mark.parametrize("name", ["squeezenet1_1", "shufflenet_v2_x0_5", "mobilenet_v2", "mobilenet_v3_small"])
def test_levels_are_the_last_activations_before_the_resolution_changes(name):
    """And no later layer changes them in place."""
    features = find(name)[0].backbone(name).eval()
    seen = []
    for layer_name, layer in features.named_children():
        layer.register_forward_hook(lambda _, __, output, name=layer_name: seen.append((name, output.clone())))
    with torch.no_grad():
        levels = features(torch.rand(1, 3, 64, 64))
    sides = [output.shape[-1] for _, output in seen] + [0]
    last = [output for (_, output), side, after in zip(seen, sides, sides[1:], strict=False) if side != after]
    assert len(levels) == len(last) == len(features.channels) >= 4
    assert all(torch.equal(level, output) for level, output in zip(levels, last, strict=True))
    assert [level.shape[1] for level in levels] == features.channels


@pytest.mark.slow
def test_levels_come_with_their_channels_first():
    """Timm's Sequencer has them last."""
    features = find("timm/sequencer2d_s")[0].backbone("sequencer2d_s").eval()
    with torch.no_grad():
        levels = features(torch.zeros(1, 3, 32, 32))
    assert [level.shape[1] for level in levels] == features.channels == [192, 384, 384]


@pytest.mark.parametrize(("name", "colour"), [("timm/test_resnet", 0.5), ("timm/test_byobnet", 0.485)])
def test_timms_weights_get_the_colours_that_they_expect(name, colour):
    model = build({"backbone": name, "head": "classifier", "patch_size": 8, "input_size": 8})
    model.inner = torch.nn.Identity()
    black = model(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))[0, 0, 0, 0]
    deviation = {0.5: 0.5, 0.485: 0.229}[colour]
    assert black.item() == pytest.approx(-colour / deviation)


@pytest.mark.parametrize(
    ("name", "head", "message"),
    [
        ("alexnett", "classifier", "torchvision has no classification network 'alexnett'"),
        ("fcn_resnet50", "classifier", "torchvision has no classification network 'fcn_resnet50'"),
        pytest.param(
            "swin_t", "pooled", "no pooled head for swin_t, because its layers do not", marks=pytest.mark.slow
        ),
        ("timm/alexnett", "pooled", "timm has no network 'alexnett'"),
        ("timm/hf-hub:timm/resnet18", "classifier", "timm has no network 'hf-hub:timm/resnet18'"),
        ("timm/resnet18.nowhere", "classifier", "timm cannot build resnet18.nowhere"),
        ("hub/resnet18", "classifier", "networks come from timm and torchvision, not from 'hub'"),
    ],
)
def test_what_there_is_not_is_named(name, head, message):
    with pytest.raises(ValueError, match=message):
        start_state(name, None, seed=1, head=head)


def test_networks_side_by_side_give_the_levels_of_each(tmp_path):
    names = ("resnet18", "squeezenet1_1")
    both, files = "+".join(names), [trained_elsewhere(name) for name in names]
    state, missing = start_state(both, together(both, files), seed=1, head="pooled")
    model = build({"backbone": both, "head": "pooled", "patch_size": 32, "input_size": 64}, state).eval()
    assert missing == head_names(model.inner)  # all else is the files'
    save_network(tmp_path / "best.pt", model)
    again, _ = load_network(tmp_path / "best.pt")

    patches = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    features, alone = [], 0
    with torch.no_grad():
        for name, file in zip(names, files, strict=True):
            single, _ = start_state(name, file, seed=1, head="pooled")
            one = build({"backbone": name, "head": "pooled", "patch_size": 32, "input_size": 64}, single).eval()
            features.append(one.pooled.pool(one.prepare(patches)))
            alone += one.pooled.channels
        found = again.pooled.pool(again.prepare(patches))
    assert again.pooled.channels == alone == found.shape[1]
    assert torch.equal(found, torch.cat(features, dim=1))


@pytest.mark.parametrize(
    ("name", "head", "message"),
    [
        ("resnet18+squeezenet1_1", "classifier", "have no head of their own; set model.head to pooled"),
        ("resnet18+timm/test_resnet", "pooled", "normalised in different ways"),
        ("resnet18+resnet9", "pooled", "no classification network 'resnet9'"),
        ("resnet18+torchvision/resnet18", "pooled", "names a network twice"),
        ("resnet18+", "pooled", "no classification network ''"),
        ("side_by_side/resnet18", "pooled", "networks come from timm and torchvision, not from 'side_by_side'"),
    ],
)
def test_networks_that_cannot_stand_side_by_side_are_named(name, head, message):
    with pytest.raises(ValueError, match=message):
        build({"backbone": name, "head": head, "patch_size": 32, "input_size": 64})


def test_a_missing_package_names_its_extra(tmp_path, monkeypatch):
    description = {"backbone": "timm/test_byobnet", "head": "pooled", "patch_size": 32, "input_size": 64}
    save_network(tmp_path / "best.pt", build(description))
    monkeypatch.setitem(sys.modules, "timm", None)  # as if it were not installed
    with pytest.raises(ValueError, match=r"install the extra mitoscope\[timm\]"):
        build(description)
    with pytest.raises(InputError, match=rf"^{tmp_path}/best.pt: .*install the extra mitoscope\[timm\]"):
        load_network(tmp_path / "best.pt")


def test_where_imagenet_weights_are():
    found = imagenet_weights("resnet18")
    assert found == ("https://download.pytorch.org/models/resnet18-f37072fd.pth", "resnet18-f37072fd.pth", "f37072fd")
    with pytest.raises(ValueError, match="torchvision has no network 'alexnett' with ImageNet weights"):
        imagenet_weights("alexnett")
    with pytest.raises(
        ValueError, match="mitoscope downloads no ImageNet weights for timm/resnet18: save its state dict"
    ):
        imagenet_weights("timm/resnet18")
