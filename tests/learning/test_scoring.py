"""Probabilities of many patches, and what training takes from them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import logit

from mitoscope.learning.augment import crop
from mitoscope.learning.networks import build, start_state
from mitoscope.learning.scoring import mine, pool_patches, score_patches, validation_scores


@pytest.fixture
def network():
    arch = "shufflenet_v2_x0_5"
    return build({"arch": arch, "patch_size": 32, "input_size": 64}, start_state(arch, None, seed=3)[0])


@pytest.fixture
def pooled():
    description = {"arch": "alexnet", "head": "pooled", "patch_size": 32, "input_size": 64}
    return build(description, start_state("alexnet", None, seed=0, head="pooled")[0]).eval()


def test_validation_scores_worked_by_hand():
    labels, probabilities = np.array([1, 0, 1, 0]), np.array([0.4, 0.1, 0.8, 0.2])
    scores = validation_scores(labels, probabilities)
    assert scores["validation/loss"] == pytest.approx(-np.log([0.4, 0.9, 0.8, 0.8]).mean())
    assert scores["validation/recall"] == 0.5  # at 0.5
    assert (scores["validation/best_f1"], scores["validation/threshold"]) == pytest.approx((1.0, 0.3))
    sure_and_wrong = validation_scores(np.array([1, 0]), np.array([0.0, 1.0]))
    assert sure_and_wrong["validation/loss"] == pytest.approx(-np.log(1e-7))  # not infinite: it goes into JSON


def test_scores_do_not_depend_on_the_batch_and_come_in_order(network, here, coloured):
    patches = coloured([0, 1, 1] * 100)  # more than one batch
    network, calls = network.train(), []
    probabilities = score_patches(network, patches, here, lambda *call: calls.append(call), "look")
    assert calls == [("look", 256, 300), ("look", 300, 300)]
    assert not network.training
    assert probabilities.dtype == np.float64 and probabilities.shape == (300,)
    margin = (patches.stores[0].shape[1] - 32) // 2
    for index in (0, 1, 299):
        patch = patches.windows(np.array([index]))[..., margin : margin + 32, margin : margin + 32]
        with torch.inference_mode():
            expected = network(patch).softmax(dim=1)[0, 1]
        assert probabilities[index] == pytest.approx(float(expected), abs=1e-6)


def test_the_views_of_a_patch_are_its_mirror_images_and_turns(pooled, here, coloured):
    torch.nn.init.normal_(pooled.network.classifier[-1].weight, generator=torch.Generator().manual_seed(0))
    patches = coloured([0, 1, 0])
    patches.stores[0][:, 10:30, 20:24] = 0  # a bar off the middle: no view of it is like another
    windows = patches.windows(np.arange(3))
    cropped = [crop(windows, angle, 32).numpy() for angle in (0, 45)]
    turns = [np.rot90(middle, quarters, axes=(2, 3)) for middle in cropped for quarters in (0, 2, 1, 3)]
    views = [view for turned in turns for view in (turned, turned[..., ::-1])]
    with torch.inference_mode():
        logits = torch.stack([pooled(torch.from_numpy(view.copy())).double() for view in views])
    log_odds = (logits[..., 1] - logits[..., 0]).numpy()  # (16, 3)
    found = {count: logit(score_patches(pooled, patches, here, views=count)) for count in (1, 2, 4, 8, 16)}
    for count, mean in found.items():
        np.testing.assert_allclose(mean, log_odds[:count].mean(axis=0), rtol=1e-3)
    assert np.abs(np.diff(list(found.values()), axis=0)).max(axis=1).min() > 0.05  # more views, other answers


def test_bfloat16_does_not_touch_the_scores(network, here, coloured):
    """Thresholds lie near 1, where bfloat16 has few numbers."""
    patches = coloured([0, 1] * 20)
    probabilities = score_patches(network, patches, replace(here, bf16=True))
    np.testing.assert_array_equal(probabilities, score_patches(network, patches, here))


def test_mining_scores_the_negatives_alone(network, here, coloured):
    patches = coloured([0, 1, 0, 1, 0, 0])
    hardness, figures = mine(network, patches, here, None, "mine")
    everything = score_patches(network, patches, here)
    np.testing.assert_allclose(hardness, np.where(patches.labels == 0, everything, 0), atol=1e-6)
    negatives = hardness[patches.labels == 0]
    assert figures == pytest.approx(
        {
            "mining/false_positives": (negatives >= 0.5).sum(),
            "mining/mean_score": negatives.mean(),
            "mining/effective_negatives": negatives.sum() ** 2 / (negatives**2).sum(),
        }
    )


def test_what_a_pooled_head_sees_is_the_mean_over_the_views(pooled, here, coloured):
    patches = coloured([0, 1, 0])
    margin = (patches.stores[0].shape[1] - 32) // 2
    middle = patches.windows(np.arange(3))[..., margin : margin + 32, margin : margin + 32]
    with torch.inference_mode():
        straight, mirrored = pooled.pool(middle), pooled.pool(middle.flip(3))
        logits = pooled.network.classifier(straight)
        np.testing.assert_allclose(logits, pooled(middle))  # it is what the head's own layers take
    assert not torch.equal(straight, mirrored)
    features = pool_patches(pooled, patches, here, views=2)
    assert features.dtype == np.float32 and features.shape == (3, pooled.channels)
    np.testing.assert_allclose(features, (straight + mirrored) / 2, rtol=1e-4, atol=1e-6)


def test_a_network_without_a_pooled_head_has_no_features_to_give(network, here, coloured):
    with pytest.raises(ValueError, match="shufflenet_v2_x0_5 has no pooled head"):
        pool_patches(network, coloured([0, 1]), here)
