"""The head of whole fields: each feature beside the others of its field."""

import tracemalloc

import numpy as np
import pytest
import torch
from scipy.special import logit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score

from mitoscope.detection.field_head import FieldHead
from mitoscope.params import FieldHeadSettings

SETTINGS = FieldHeadSettings()  # C = 0.001, a fifth of the negatives, 50 candidates


def make_field(rng: np.random.Generator, shift: float, width: float, count: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Five features of a field: the first tells mitoses apart, all are shifted and stretched as a stain would."""
    labels = (rng.random(count) < 0.05).astype(np.int64)
    features = rng.normal(size=(count, 5))
    features[:, 0] += 4 * labels
    return (features * width + shift).astype(np.float32), labels


def fit(
    features: np.ndarray, fields: np.ndarray, labels: np.ndarray, settings: FieldHeadSettings = SETTINGS
) -> FieldHead:
    return FieldHead.fit(features.copy(), fields, labels, settings)


def test_a_stain_that_shifts_and_stretches_all_features_of_a_field_does_no_harm():
    rng = np.random.default_rng(0)
    known = [make_field(rng, shift, width) for shift, width in ((0, 1), (5, 2), (-8, 0.5))]
    features, labels = (np.concatenate(part) for part in zip(*known, strict=True))
    head = fit(features, np.repeat([0, 1, 2], 400), labels)
    for shift, width in ((0, 1), (20, 3), (-6, 0.8)):
        unknown, truth = make_field(rng, shift, width)
        probabilities = head.probabilities(unknown)
        assert probabilities.dtype == np.float64
        assert average_precision_score(truth, probabilities) > 0.9
        # Both classes weigh the same, so that most look-alikes lie below 0.5, whatever the shift.
        assert np.median(probabilities[truth == 0]) < 0.5 < np.median(probabilities[truth == 1])
    # To a head that knows no fields, the shift is all there is.
    blind = fit(features, np.zeros(1200, np.int64), labels)
    assert average_precision_score(labels, blind.probabilities(features)) < 0.6


@pytest.mark.parametrize("prior", [50, 4])
def test_few_candidates_are_compared_with_the_training_patches_by_hand(prior):
    mean, variance, weights = np.array([[2.0], [4.0], [3.0]], np.float32)
    head = FieldHead(FieldHeadSettings(prior_candidates=prior), mean, variance, weights, -1.0)
    # One candidate counts 1 of 51, and its own variance is 0.
    middle, spread = (10 + prior * 2) / (prior + 1), prior * 4 / (prior + 1)
    expected = 3 * (10 - middle) / spread**0.5 - 1
    assert logit(head.probabilities(np.array([[10.0]], np.float32))) == pytest.approx([expected], rel=1e-4)


def test_a_feature_that_is_everywhere_the_same_says_nothing():
    features, labels = make_field(np.random.default_rng(1), 0, 1)
    features[:, 3] = 7
    head = fit(features, np.zeros(400, np.int64), labels)
    assert np.isfinite(head.probabilities(features)).all()
    assert head.weights[3] == pytest.approx(0, abs=1e-6)


def test_fields_with_few_mitoses_weigh_as_much_as_those_with_many():
    rng = np.random.default_rng(2)
    fields, labels = np.repeat([0, 1], 400), np.zeros(800, np.int64)
    labels[:150] = labels[400:405] = 1
    features = rng.normal(size=(800, 5)).astype(np.float32)
    features[:150, 0] += 3  # mitoses of the one field are told by the first feature,
    features[400:405, 1] += 3  # the five of the other by the second
    head = fit(features, fields, labels)
    assert head.weights[1] > 0.5 * head.weights[0]


@pytest.mark.parametrize("penalty", [1e-3, 0.1])
def test_both_classes_and_their_fields_weigh_the_same_by_hand(penalty):
    features = np.random.default_rng(4).normal(size=(6, 5)).astype(np.float32)
    fields, labels = np.array([0, 0, 0, 0, 1, 1]), np.array([1, 1, 0, 0, 0, 1])
    # Few negatives are all seen twice. In either class the two patches of field 0 share what the one of field 1 has.
    weights = [0.75, 0.75, 0.75, 0.75, 1.5, 1.5]
    share = np.where(fields == 0, 4 / 54, 2 / 52)[:, None]
    own = [np.stack([part(features[fields == field], axis=0) for field in fields]) for part in (np.mean, np.var)]
    middle, variance = share * own[0] + (1 - share) * features.mean(0), share * own[1] + (1 - share) * features.var(0)
    standardised = (features - middle) / np.sqrt(variance)
    expected = LogisticRegression(C=penalty).fit(standardised, labels, weights)
    head = fit(features, fields, labels, FieldHeadSettings(inverse_penalty=penalty))
    np.testing.assert_allclose(head.weights, expected.coef_[0], atol=penalty / 100)
    assert head.bias == pytest.approx(expected.intercept_[0], abs=1e-3)


def look_alikes() -> tuple[np.ndarray, np.ndarray]:
    """100 mitoses, 300 look-alikes and 3000 others, which differ from both in another way."""
    rng = np.random.default_rng(3)
    labels = np.repeat([1, 0, 0], [100, 300, 3000])
    features = rng.normal(size=(3400, 5)).astype(np.float32)
    features[:400, 0] += 4  # tells the rest from both
    features[:100, 1] += 2  # tells mitoses from their look-alikes,
    features[400:, 1] += 2  # but not from the rest
    return (features - features.mean(axis=0)) / features.std(axis=0), labels


def test_look_alikes_decide_and_not_the_many_that_nobody_takes_for_mitoses():
    features, labels = look_alikes()
    once = LogisticRegression(C=1e-3, class_weight="balanced").fit(features, labels).decision_function(features)
    twice = fit(features, np.zeros(3400, np.int64), labels).probabilities(features)
    dark = slice(400)
    precision = {"once": once[dark], "twice": twice[dark]}
    precision = {name: average_precision_score(labels[dark], scores) for name, scores in precision.items()}
    assert precision["twice"] > precision["once"] + 0.2


def test_with_all_negatives_taken_for_hard_the_second_regression_is_the_first():
    features, labels = look_alikes()
    fields = np.zeros(3400, np.int64)
    once = LogisticRegression(C=1e-3, class_weight="balanced").fit(features, labels)
    every = fit(features, fields, labels, FieldHeadSettings(hard_fraction=1))
    np.testing.assert_allclose(every.weights, once.coef_[0], atol=1e-3)
    assert np.abs(fit(features, fields, labels).weights - once.coef_[0]).max() > 0.02


def test_few_negatives_are_all_seen():
    rng = np.random.default_rng(5)
    labels = np.repeat([1, 0], [40, 5])
    features = rng.normal(size=(45, 5)).astype(np.float32)
    features[:40, 0] += 3
    head = fit(features, np.zeros(45, np.int64), labels)
    assert average_precision_score(labels, head.probabilities(features)) > 0.95


def test_features_on_disk_are_never_copied_as_a_whole(tmp_path):
    """Those of a large dataset do not fit into the memory."""
    rng = np.random.default_rng(6)
    fields, labels = np.repeat(np.arange(40), 500), (np.arange(20_000) % 100 == 0).astype(np.int64)
    features = rng.normal(size=(20_000, 100)).astype(np.float32) + labels[:, None] * 0.1
    stored = np.memmap(tmp_path / "features", np.float32, "w+", shape=features.shape)
    stored[:] = features
    tracemalloc.start()
    head = FieldHead.fit(stored, fields, labels, FieldHeadSettings())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < stored.nbytes / 2
    again = FieldHead.fit(features.astype(np.float32), fields, labels, FieldHeadSettings())
    np.testing.assert_array_equal(head.weights, again.weights)


def test_both_classes_are_needed():
    with pytest.raises(ValueError, match="2 classes"):
        fit(np.ones((4, 5), np.float32), np.zeros(4, np.int64), np.ones(4, np.int64))


def test_a_head_comes_back_from_its_content():
    features, labels = make_field(np.random.default_rng(6), 1, 2)
    head = fit(features, np.zeros(400, np.int64), labels)
    content = head.content()
    restored = FieldHead.restore(content, 5, SETTINGS)
    np.testing.assert_array_equal(restored.probabilities(features), head.probabilities(features))
    # The file has tensors.
    tensors = {name: torch.from_numpy(value) if name != "bias" else value for name, value in content.items()}
    restored = FieldHead.restore(tensors, 5, SETTINGS)
    np.testing.assert_array_equal(restored.probabilities(features), head.probabilities(features))


@pytest.mark.parametrize("channels", [4, 6])
def test_a_head_of_other_features_is_rejected(channels):
    features, labels = make_field(np.random.default_rng(6), 1, 2)
    content = fit(features, np.zeros(400, np.int64), labels).content()
    with pytest.raises(ValueError, match=f"not a field head of {channels} features"):
        FieldHead.restore(content, channels, SETTINGS)
