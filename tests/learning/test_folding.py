"""A folded network gives what the whole one gives, from weights of the same file."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mitoscope.learning.folding import fold
from mitoscope.learning.networks import build, start_state


def network(backbone, head="classifier"):
    description = {"backbone": backbone, "head": head, "patch_size": 32, "input_size": 64}
    return build(description, start_state(backbone, None, 0, head)[0]).inner.eval()


@pytest.fixture(scope="module")
def alexnet():
    return network("alexnet")


@pytest.fixture(scope="module")
def vgg():
    return network("vgg11")


def images(side, count=3):
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("side", [64, 96, 128, 160, 224, 256])  # the last level: 1, 2, 3, 4, 6 and 7 positions wide
def test_alexnet_gives_the_same(alexnet, side):
    folded = fold(alexnet)
    with torch.inference_mode():
        expected = alexnet(images(side))
        for _ in range(2):  # the second call uses the same sums
            torch.testing.assert_close(folded(images(side)), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("side", [64, 96])
def test_vgg_gives_the_same(vgg, side):
    with torch.inference_mode():
        torch.testing.assert_close(fold(vgg)(images(side)), vgg(images(side)), rtol=1e-5, atol=1e-6)


def test_field_of_another_shape_than_a_square(alexnet):
    wide = torch.randn(2, 3, 96, 160, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        torch.testing.assert_close(fold(alexnet)(wide), alexnet(wide), rtol=1e-5, atol=1e-6)


def test_bfloat16_rounds_as_little(alexnet):
    with torch.inference_mode():
        exact = alexnet(images(96, 64))
        with torch.autocast("cpu", torch.bfloat16):
            rounded, folded = alexnet(images(96, 64)), fold(alexnet)(images(96, 64))
    assert folded.dtype == torch.float32  # the last layer
    assert (folded - exact).square().mean() < 1.2 * (rounded - exact).square().mean()


def test_a_fifth_of_alexnets_products_is_saved(alexnet):
    flops, folded = [], fold(alexnet)
    with torch.inference_mode():
        folded(images(96))  # the sums, once
        for inner in (alexnet, folded):
            with FlopCounterMode(display=False) as counter:
                inner(images(96))
            flops.append(counter.get_total_flops())
    assert flops[1] / flops[0] == pytest.approx(0.79, abs=0.01)


def test_the_weights_stay_as_they_are(alexnet):
    before = {name: tensor.clone() for name, tensor in alexnet.state_dict().items()}
    with torch.inference_mode():
        fold(alexnet)(images(64))
    assert {type(layer) for layer in alexnet.classifier} >= {nn.Dropout}
    for name, tensor in alexnet.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_other_networks_stay_as_they_are():
    for inner in (network("squeezenet1_1"), network("alexnet", "pooled")):
        assert fold(inner) is inner
