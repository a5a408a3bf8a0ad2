"""From stored windows to the samples of an epoch and their batches."""

import threading
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mitoscope.learning.batches import PatchSet, Windows, draw_epoch, epoch_batches, generators, prefetch
from mitoscope.learning.devices import Device
from mitoscope.params import Sampling

GPU = Device(torch.device("cuda"), rank=0, world=1, bf16=False)  # nothing is computed on it
some_angles = st.lists(st.sampled_from([0.0, 45.0, 90.0, 135.0, 222.5]), min_size=1, max_size=4, unique=True)


def sampling(positive, negative, fraction=0.5) -> Sampling:
    return Sampling(rotations={"positive": positive, "negative": negative}, positive_fraction=fraction)


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
    fraction=st.floats(0, 1, exclude_min=True, exclude_max=True),
    seed=st.integers(0, 1000),
)
def test_an_epoch_uses_every_pair_once_before_any_twice(labels, positive, negative, samples, fraction, seed):
    indices, angles = draw_epoch(
        labels, sampling(positive, negative, fraction), samples=samples, rng=np.random.default_rng(seed)
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
    for samples, fraction, expected in ((100, 0.3, 30), (10, 0.25, 2), (7, 0.5, 4), (8, 0.01, 1), (8, 0.99, 7)):
        indices, _ = draw_epoch(labels, sampling([0, 90], [0], fraction), samples=samples, rng=np.random.default_rng(0))
        assert labels[indices].sum() == expected


def test_hard_negatives_are_drawn_in_proportion():
    labels = np.array([1, 0, 0, 0, 0])
    hardness = np.array([0, 0.6, 0.3, 0.1, 0.0])
    indices, angles = draw_epoch(
        labels, sampling([0], [0, 45]), samples=20_000, rng=np.random.default_rng(0), hardness=hardness
    )
    shares = np.bincount(indices, minlength=5) / 10_000
    np.testing.assert_allclose(shares, [1, 0.6, 0.3, 0.1, 0], atol=0.02)
    assert shares[4] == 0  # what the network is sure of is left out
    assert np.mean(angles[indices == 1] == 45) == pytest.approx(0.5, abs=0.03)


def test_without_any_hard_negative_they_are_drawn_evenly():
    labels = np.array([1, 0, 0])
    draws = [
        draw_epoch(labels, sampling([0], [0]), samples=8, rng=np.random.default_rng(0), hardness=hardness)[0].tolist()
        for hardness in (None, np.zeros(3))
    ]
    assert draws[0] == draws[1]


def test_the_generator_decides_the_draw_and_its_order():
    labels = (np.arange(40) % 4 == 0).astype(np.int64)

    def draw(seed: int) -> list[tuple[int, float]]:
        drawn = draw_epoch(labels, sampling([0, 45, 90], [0]), samples=40, rng=np.random.default_rng(seed))
        return list(zip(*(array.tolist() for array in drawn), strict=True))

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)
    order = labels[[index for index, _ in draw(1)]]
    assert 0 < order[:20].sum() < 20  # shuffled: a batch holds both classes


def test_the_draw_and_every_process_have_chance_of_their_own():
    """`default_rng([1, 2])` and `default_rng([1, 2, 0])` give the same numbers."""
    assert np.random.default_rng([1, 2]).random() == np.random.default_rng([1, 2, 0]).random()
    draws, variations = zip(*(generators(seed=1, epoch=2, rank=rank) for rank in range(3)), strict=True)
    assert len({generator.random() for generator in draws}) == 1  # all processes must agree on it
    streams = [*variations, *(generators(seed, epoch, 0)[1] for seed, epoch in ((1, 3), (2, 2), (2, 1)))]
    streams.append(generators(1, 2, 0)[0])
    assert len({generator.random() for generator in streams}) == len(streams)


def test_on_a_processor_the_caller_makes_the_batches(here):
    def batches():
        for _ in range(3):
            yield threading.get_ident()

    assert list(prefetch(batches(), here)) == [threading.get_ident()] * 3
    assert threading.get_ident() not in list(prefetch(batches(), GPU))


def test_on_a_gpu_the_next_batch_is_made_while_the_caller_works_on_the_last():
    made = [threading.Event() for _ in range(3)]

    def batches():
        for number, event in enumerate(made):
            event.set()
            yield number

    seen = []
    for number in prefetch(batches(), GPU):
        assert all(event.wait(timeout=30) for event in made[: number + 2])
        assert not any(event.is_set() for event in made[number + 2 :])  # one ahead, so that few are in memory
        seen.append(number)
    assert seen == [0, 1, 2]


def test_an_error_in_a_batch_reaches_the_caller_after_the_batches_before_it():
    def batches():
        yield 1
        raise ValueError("the second")

    taken = prefetch(batches(), GPU)
    assert next(taken) == 1
    with pytest.raises(ValueError, match="the second"):
        next(taken)


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
    windows = Windows(mapped, np.array([0, 1, 0, 1]), np.array([2, 0, 0, 1]))
    return PatchSet(windows, np.array([1, 0, 0, 1])), fields


def test_windows_come_from_their_store_and_record(stored):
    patches, fields = stored
    assert len(patches) == len(patches.windows) == 4
    windows = patches.windows.read(np.array([3, 0, 0, 1]))
    expected = np.stack([fields[1][1], fields[0][2], fields[0][2], fields[1][0]])
    assert windows.dtype == torch.uint8 and windows.shape == (4, 3, 5, 5)
    assert np.array_equal(windows.permute(0, 2, 3, 1).numpy(), expected)


def test_some_of_the_samples(stored):
    patches, fields = stored
    some = patches.take(np.array([3, 1]))
    assert some.labels.tolist() == [1, 0] and len(some) == len(some.windows) == 2
    assert np.array_equal(some.windows.read(np.array([0]))[0].permute(1, 2, 0).numpy(), fields[1][1])


def test_changing_a_batch_does_not_touch_the_store(stored):
    patches, fields = stored
    patches.windows.read(np.array([0]))[:] = 0
    assert np.array_equal(patches.windows.stores[0], fields[0])


class Cutting:
    """A field that cuts a window when it is read, and remembers which."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __len__(self) -> int:
        return 4

    def __getitem__(self, record: int) -> np.ndarray:
        assert type(record) is int
        self.asked.append(record)
        return np.full((3, 3, 3), record, np.uint8)


def test_windows_may_be_cut_when_they_are_read():
    field = Cutting()
    windows = Windows.of(field).take(np.array([3, 1, 0]))
    assert field.asked == [] and len(windows) == 3
    assert windows.read(np.array([0, 2]))[:, 0, 0, 0].tolist() == [3, 0]
    assert field.asked == [3, 0]


def epoch_of(coloured, device, **changes):
    """An epoch's batches of 6 of 12 patches, 32 px."""
    chosen = Sampling(positive_fraction=0.5, seed=3, **changes)
    return list(
        epoch_batches(
            coloured([0, 1] * 6), chosen, epoch=1, steps=2, batch_size=6, patch_size=32, device=device, hardness=None
        )
    )


def test_processes_share_an_epoch(here, coloured):
    settings = {"rotations": {"positive": [0], "negative": [0]}, "flips": False, "stain_jitter": 0}
    together = epoch_of(coloured, here, **settings)
    shares = [epoch_of(coloured, replace(here, rank=rank, world=3), **settings) for rank in range(3)]
    assert [labels.shape for _, labels in together] == [(6,)] * 2
    for step, (patches, labels) in enumerate(together):
        assert patches.shape == (6, 3, 32, 32) and patches.dtype == torch.uint8
        for rank, share in enumerate(shares):
            assert torch.equal(share[step][0], patches[rank::3]) and torch.equal(share[step][1], labels[rank::3])
    # Without flips and jitter an epoch shows every patch once, as it is.
    middle = coloured([0, 1] * 6).windows.read(np.arange(12))[..., 7:39, 7:39]
    seen = torch.cat([patches for patches, _ in together])
    assert sorted(map(bytes, seen.contiguous().numpy())) == sorted(map(bytes, middle.contiguous().numpy()))


@pytest.mark.parametrize("change", [{"flips": True}, {"stain_jitter": 0.2}, {"rotations": {"positive": [45]}}])
def test_patches_are_varied_where_the_settings_say_so(here, coloured, change):
    plain = {"rotations": {"positive": [0], "negative": [0]}, "flips": False, "stain_jitter": 0}
    before, after = epoch_of(coloured, here, **plain), epoch_of(coloured, here, **plain | change)
    assert any(not torch.equal(one[0], other[0]) for one, other in zip(before, after, strict=True))
    again = epoch_of(coloured, here, **plain | change)
    assert all(torch.equal(one[0], other[0]) for one, other in zip(after, again, strict=True))
