"""A network with merged repeats gives what the whole one gives, from weights of the same file."""

import pytest
import torch
from torch import nn

from mitoscope.learning.merging import merge_repeats
from mitoscope.learning.networks import build, start_state


def network(backbone, head="classifier"):
    description = {"backbone": backbone, "head": head, "patch_size": 32, "input_size": 64}
    return build(description, start_state(backbone, None, 0, head)[0]).inner.eval()


@pytest.fixture(scope="module")
def alexnet():
    return network("alexnet")


@pytest.fixture(scope="module")
def vgg():
    return network("vgg11_bn")


def images(side, count=3):
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(1))


def both(inner, side):
    """The logits of a network and of its merged one."""
    merged = merge_repeats(inner, side)
    assert merged is not inner
    with torch.inference_mode():
        return merged(images(side)), inner(images(side))


@pytest.mark.parametrize("side", [64, 96, 128, 160])  # the last level has 1, 2, 3 and 4 positions on a side, the pool 6
def test_alexnet_gives_the_same(alexnet, side):
    found, expected = both(alexnet, side)
    assert expected.std() > 1e-3
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("side", [32, 64, 96, 128])  # 1, 2, 3 and 4 positions, the pool 7
def test_vgg_gives_the_same_and_keeps_its_statistics(vgg, side):
    before = vgg.features[1].running_mean.clone()
    found, expected = both(vgg, side)
    assert expected.std() > 1e-3
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert torch.equal(vgg.features[1].running_mean, before)


@pytest.mark.parametrize("side", [192, 224, 256])  # 5, 6 and 7 positions
def test_few_repeats_stay(alexnet, side):
    assert merge_repeats(alexnet, side) is alexnet


def test_the_network_stays_as_it_is(alexnet):
    layers, weight = list(alexnet.classifier), alexnet.classifier[1].weight.clone()
    merged = merge_repeats(alexnet, 64)
    assert list(alexnet.classifier) == layers and torch.equal(alexnet.classifier[1].weight, weight)
    assert [layer.in_features for layer in merged if isinstance(layer, nn.Linear)] == [256, 4096, 4096]
    assert merged[-1] is alexnet.classifier[-1]  # shares the other weights


def test_other_networks_stay_as_they_are():
    for inner in (network("squeezenet1_1"), network("alexnet", "pooled")):
        assert merge_repeats(inner, 64) is inner
