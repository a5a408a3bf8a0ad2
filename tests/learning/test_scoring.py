"""Probabilities of many patches, and the negatives that are taken for mitoses."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import logit
from torch.utils.flop_counter import FlopCounterMode

from mitoscope.learning.augment import crop
from mitoscope.learning.batches import Windows
from mitoscope.learning.networks import build, start_state
from mitoscope.learning.pooling import LastLayer
from mitoscope.learning.scoring import mine, pool_patches, score_patches
from mitoscope.params import Sampling


def untrained(backbone, head, input_size):
    description = {"backbone": backbone, "head": head, "patch_size": 32, "input_size": input_size}
    return build(description, start_state(backbone, None, 3, head)[0]).eval()


@pytest.fixture
def model():
    return untrained("shufflenet_v2_x0_5", "classifier", 64)


@pytest.fixture
def pooled():
    return untrained("squeezenet1_1", "pooled", 64)


def test_scores_do_not_depend_on_the_batch_and_come_in_order(model, here, coloured):
    patches = coloured([0, 1, 1] * 100)  # more than one batch
    model, calls = model.train(), []
    probabilities = score_patches(model, patches.windows, here, on_batch=lambda *call: calls.append(call))
    assert calls == [(256, 300), (300, 300)]
    assert not model.training
    assert probabilities.dtype == np.float64 and probabilities.shape == (300,)
    for index in (0, 1, 299):
        patch = patches.windows.read(np.array([index]))[..., 7:39, 7:39]
        with torch.inference_mode():
            expected = model(patch).softmax(dim=1)[0, 1]
        assert probabilities[index] == pytest.approx(float(expected), abs=1e-6)


def test_repeated_inputs_are_multiplied_once(here, coloured):
    alexnet, patches = untrained("alexnet", "classifier", 96), coloured([0, 1] * 100)
    with FlopCounterMode(display=False) as counter:
        probabilities = score_patches(alexnet.train(), patches.windows, here)
    scored = counter.get_total_flops()
    whole = alexnet.eval()
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        expected = whole(crop(patches.windows.read(np.arange(200)), 0, 32)).softmax(dim=1)[:, 1]
    assert scored / counter.get_total_flops() == pytest.approx(0.8, abs=0.02)
    np.testing.assert_allclose(probabilities, expected, rtol=0, atol=1e-6)


def test_the_views_of_a_patch_are_its_mirror_images_and_turns(pooled, here, coloured):
    torch.nn.init.normal_(pooled.inner.classifier[-1].weight, generator=torch.Generator().manual_seed(0))
    windows = coloured([0, 1, 0]).windows
    windows.stores[0][:, 10:30, 20:24] = 0  # a bar off the middle: no view of it is like another
    pixels = windows.read(np.arange(3))
    turns = [
        np.rot90(crop(pixels, angle, 32).numpy(), quarters, axes=(2, 3))
        for angle, quarters in ((0, 0), (0, 2), (45, 0), (45, 3))
    ]
    views = [view for turned in turns for view in (turned, turned[..., ::-1])]
    with torch.inference_mode():
        logits = torch.stack([pooled(torch.from_numpy(view.copy())).double() for view in views])
    log_odds = (logits[..., 1] - logits[..., 0]).numpy()  # (8, 3)
    found = {count: logit(score_patches(pooled, windows, here, views=count)) for count in (1, 2, 4, 8)}
    for count, mean in found.items():
        np.testing.assert_allclose(mean, log_odds[:count].mean(axis=0), rtol=1e-3)
    assert np.abs(np.diff(list(found.values()), axis=0)).max(axis=1).min() > 0.05  # more views, other answers


@pytest.mark.parametrize(("views", "tolerance"), [(2, 1e-4), (4, 1e-4), (8, 0.02)])  # 45 degrees are interpolated
def test_a_mirrored_patch_has_the_same_score(pooled, here, coloured, views, tolerance):
    torch.nn.init.normal_(pooled.inner.classifier[-1].weight, generator=torch.Generator().manual_seed(0))
    windows = coloured([0, 1, 0]).windows
    windows.stores[0][:, 10:30, 20:24] = 0
    mirrored = Windows([store[:, :, ::-1] for store in windows.stores], windows.store, windows.record)
    differences = []
    for count in (1, views):
        one, other = (logit(score_patches(pooled, seen, here, views=count)) for seen in (windows, mirrored))
        differences.append(np.abs(one - other).max())
    assert differences[0] > 0.05 and differences[1] < tolerance, differences


@pytest.mark.parametrize("network", ["model", "pooled"])
def test_bfloat16_keeps_the_scale_of_the_scores(network, here, coloured, request):
    """The last layer and the softmax are in float32: bfloat16 has 2 to 3 digits, and none between 0.998 and 1."""
    model = request.getfixturevalue(network)
    last = next(module for module in model.modules() if isinstance(module, LastLayer))
    torch.nn.init.normal_(last.weight, generator=torch.Generator().manual_seed(0))
    windows = coloured([0, 1] * 20).windows
    exact, rounded = (logit(score_patches(model, windows, replace(here, bf16=bf16))) for bf16 in (False, True))
    assert not np.array_equal(exact, rounded)
    assert np.corrcoef(exact, rounded)[0, 1] > 0.99
    assert np.unique(rounded).size == np.unique(exact).size


def test_a_network_whose_last_layer_is_a_convolution_is_scored_in_float32(here, coloured):
    model, windows = untrained("squeezenet1_1", "classifier", 64), coloured([0, 1]).windows
    exact, also_exact = (score_patches(model, windows, replace(here, bf16=bf16)) for bf16 in (False, True))
    np.testing.assert_array_equal(exact, also_exact)


def mine_in(model, patches, device, samples=1000, **changed):
    sampling = Sampling(samples_per_epoch=samples, rotations={"positive": [0], "negative": [0]})
    return mine(model, patches, device, sampling=sampling, **({"epoch": 2, "known": None} | changed))


def test_mining_scores_the_negatives_alone(model, here, coloured):
    patches, calls = coloured([0, 1, 0, 1, 0, 0]), []
    hardness, figures = mine_in(model, patches, here, on_batch=lambda *call: calls.append(call))
    assert calls == [(4, 4)]
    everything = score_patches(model, patches.windows, here)
    np.testing.assert_allclose(hardness, np.where(patches.labels == 0, everything, 0), atol=1e-6)
    negatives = hardness[patches.labels == 0]
    assert figures == pytest.approx(
        {
            "mining/false_positives": (negatives >= 0.5).sum(),
            "mining/mean_score": negatives.mean(),
            "mining/effective_negatives": negatives.sum() ** 2 / (negatives**2).sum(),
        }
    )


def test_mining_scores_a_sample_and_keeps_what_it_knows_of_the_others(model, here, coloured):
    patches = coloured([0] * 20 + [1])
    everything, _ = mine_in(model, patches, here)
    first, _ = mine_in(model, patches, here, samples=3)
    assert (first > 0).sum() == 6
    second, _ = mine_in(model, patches, here, samples=3, known=first, epoch=3)
    assert 6 < (second > 0).sum() <= 12
    for found in (first, second):
        np.testing.assert_allclose(found[found > 0], everything[found > 0], atol=1e-6)


def test_what_a_pooled_head_sees_is_the_mean_over_the_views(pooled, here, coloured):
    windows = coloured([0, 1, 0]).windows
    middle = windows.read(np.arange(3))[..., 7:39, 7:39]
    with torch.inference_mode():
        straight, mirrored = (pooled.pooled.pool(pooled.prepare(view)) for view in (middle, middle.flip(3)))
        logits = pooled.inner.classifier(straight)
        np.testing.assert_allclose(logits, pooled(middle))  # it is what the head's own layers take
    assert not torch.equal(straight, mirrored)
    features = pool_patches(pooled, windows, here, views=2)
    assert features.dtype == np.float32 and features.shape == (3, pooled.pooled.channels)
    np.testing.assert_allclose(features, (straight + mirrored) / 2, rtol=1e-4, atol=1e-6)


def test_a_network_without_a_pooled_head_has_no_features_to_give(model, here, coloured):
    with pytest.raises(ValueError, match="shufflenet_v2_x0_5 has no pooled head"):
        pool_patches(model, coloured([0, 1]).windows, here)


def test_nothing_is_scored_without_patches(pooled, here, coloured):
    """A field may have no candidates."""
    windows = coloured([0, 1]).windows.take(np.zeros(0, np.int64))
    assert score_patches(pooled, windows, here).shape == (0,)
    assert pool_patches(pooled, windows, here).shape == (0, pooled.pooled.channels)
