"""From stored windows to the samples of an epoch."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mitoscope.learning.batches import PatchSet, Rotations, draw_epoch

some_angles = st.lists(st.sampled_from([0.0, 45.0, 90.0, 135.0, 222.5]), min_size=1, max_size=4, unique=True)


@st.composite
def labels_of_both_classes(draw):
    labels = [1] * draw(st.integers(1, 12)) + [0] * draw(st.integers(1, 30))
    return np.array(draw(st.permutations(labels)), np.int64)


@settings(deadline=None)
@given(
    labels=labels_of_both_classes(),
    positive=some_angles,
    negative=some_angles,
    samples=st.integers(2, 200),
    fraction=st.floats(0, 1),
    seed=st.integers(0, 1000),
)
def test_an_epoch_uses_every_pair_once_before_any_twice(labels, positive, negative, samples, fraction, seed):
    indices, angles = draw_epoch(
        labels,
        Rotations(positive, negative),
        samples=samples,
        positive_fraction=fraction,
        rng=np.random.default_rng(seed),
    )
    assert indices.shape == angles.shape == (samples,) and indices.dtype == np.int64

    positives = int(labels[indices].sum())
    assert abs(positives - samples * fraction) <= 0.5 or positives in (1, samples - 1)
    assert 1 <= positives <= samples - 1

    drawn = Counter(zip(indices.tolist(), angles.tolist(), strict=True))
    for label, allowed in ((1, positive), (0, negative)):
        pairs = [(int(patch), angle) for patch in np.flatnonzero(labels == label) for angle in allowed]
        times = [drawn.pop(pair, 0) for pair in pairs]
        assert max(times) - min(times) <= 1
    assert not drawn  # nothing else: no angle of the other class, no patch from elsewhere


def test_the_positive_share_is_exact():
    labels = np.array([1, 0, 0, 0])
    for samples, fraction, expected in ((100, 0.3, 30), (10, 0.25, 2), (7, 0.5, 4), (8, 0.0, 1), (8, 1.0, 7)):
        indices, _ = draw_epoch(
            labels,
            Rotations([0, 90], [0]),
            samples=samples,
            positive_fraction=fraction,
            rng=np.random.default_rng(0),
        )
        assert labels[indices].sum() == expected


def test_hard_negatives_are_drawn_in_proportion():
    labels = np.array([1, 0, 0, 0, 0])
    hardness = np.array([0, 0.6, 0.3, 0.1, 0.0])
    indices, angles = draw_epoch(
        labels,
        Rotations([0], [0, 45]),
        samples=20_000,
        positive_fraction=0.5,
        rng=np.random.default_rng(0),
        hardness=hardness,
    )
    shares = np.bincount(indices, minlength=5) / 10_000
    np.testing.assert_allclose(shares, [1, 0.6, 0.3, 0.1, 0], atol=0.02)
    assert shares[4] == 0  # what the network is sure of is left out
    assert np.mean(angles[indices == 1] == 45) == pytest.approx(0.5, abs=0.03)


def test_without_any_hard_negative_they_are_drawn_evenly():
    draws = [
        draw_epoch(
            np.array([1, 0, 0]),
            Rotations([0], [0]),
            samples=8,
            positive_fraction=0.5,
            rng=np.random.default_rng(0),
            hardness=hardness,
        )[0].tolist()
        for hardness in (None, np.zeros(3))
    ]
    assert draws[0] == draws[1]


def test_the_generator_decides_the_draw_and_its_order():
    labels = np.arange(40) % 4 == 0

    def draw(seed: int) -> list[tuple[int, float]]:
        drawn = draw_epoch(
            labels.astype(np.int64),
            Rotations([0, 45, 90], [0]),
            samples=40,
            positive_fraction=0.5,
            rng=np.random.default_rng(seed),
        )
        return list(zip(*(array.tolist() for array in drawn), strict=True))

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)
    order = labels[[index for index, _ in draw(1)]]
    assert 0 < order[:20].sum() < 20  # shuffled: a batch holds both classes


@pytest.fixture
def stored(tmp_path):
    """Two fields on the disk, and the arrays that were written."""
    rng = np.random.default_rng(0)
    fields = [rng.integers(0, 256, (count, 5, 5, 3), np.uint8) for count in (3, 2)]
    paths = [tmp_path / f"01_0{number}.npy" for number in range(len(fields))]
    for path, windows in zip(paths, fields, strict=True):
        np.save(path, windows)
    mapped = [np.load(path, mmap_mode="r") for path in paths]
    assert all(isinstance(array, np.memmap) for array in mapped)
    patches = PatchSet(mapped, np.array([0, 1, 0, 1]), np.array([2, 0, 0, 1]), np.array([1, 0, 0, 1]))
    return patches, fields


def test_windows_come_from_their_store_and_record(stored):
    patches, fields = stored
    assert len(patches) == 4
    windows = patches.windows(np.array([3, 0, 0, 1]))
    expected = np.stack([fields[1][1], fields[0][2], fields[0][2], fields[1][0]])
    assert windows.dtype == torch.uint8 and windows.shape == (4, 3, 5, 5)
    assert np.array_equal(windows.permute(0, 2, 3, 1).numpy(), expected)


def test_some_of_the_samples(stored):
    patches, fields = stored
    some = patches.take(np.array([3, 1]))
    assert some.labels.tolist() == [1, 0] and len(some) == 2
    assert np.array_equal(some.windows(np.array([0]))[0].permute(1, 2, 0).numpy(), fields[1][1])


def test_changing_a_batch_does_not_touch_the_store(stored):
    patches, fields = stored
    patches.windows(np.array([0]))[:] = 0
    assert np.array_equal(patches.stores[0], fields[0])
