"""What happens to a window on its way to the network."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mitoscope.histology.windows import window_size
from mitoscope.learning.augment import crop, flip, jitter_stain

sizes = st.integers(16, 128)
angles = st.floats(0, 360, exclude_max=True)
channel = st.integers(1, 255)


def noise(count: int, side: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (count, 3, side, side), np.uint8))


def middle(windows: torch.Tensor, size: int) -> torch.Tensor:
    margin = (windows.shape[-1] - size) // 2
    return windows[..., margin : margin + size, margin : margin + size]


@settings(deadline=None)
@given(size=sizes, angle=angles, colour=st.tuples(channel, channel, channel))
def test_a_rotated_patch_holds_real_pixels_only(size, angle, colour):
    # The fill colour of a rotation is 0, so that one filled pixel would stand out in a window of one colour.
    side = window_size(size)
    windows = torch.tensor(colour, dtype=torch.uint8).view(1, 3, 1, 1).repeat(1, 1, side, side)
    patches = crop(windows, angle, size)
    assert patches.shape == (1, 3, size, size) and patches.dtype == torch.uint8
    assert (patches == windows[..., :1, :1]).all()


@pytest.mark.parametrize("size", [16, 63, 64, 128])
def test_a_window_one_ring_narrower_would_not_do(size):
    narrow = torch.full((1, 3, window_size(size) - 2, window_size(size) - 2), 255, dtype=torch.uint8)
    with pytest.raises(ValueError, match="cannot be rotated"):
        crop(narrow, 45, size)


@pytest.mark.parametrize("size", [17, 32, 64])
def test_without_an_angle_the_middle_is_cropped(size):
    windows = noise(3, window_size(size))
    assert torch.equal(crop(windows, 0, size), middle(windows, size))
    assert torch.equal(crop(windows, np.zeros(3), size), middle(windows, size))


@pytest.mark.parametrize("size", [17, 32, 64])
@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_quarter_turn_moves_pixels_and_changes_none(size, quarters):
    windows = noise(3, window_size(size))
    expected = torch.rot90(middle(windows, size), quarters, (2, 3))
    assert torch.equal(crop(windows, 90 * quarters, size), expected)


def test_angles_turn_counter_clockwise_about_the_middle():
    side = window_size(33)
    windows = torch.zeros(1, 3, side, side, dtype=torch.uint8)
    windows[:, :, side // 2 - 1 : side // 2 + 2, side // 2 + 11 : side // 2 + 14] = 255  # a dot, 12 px to the right
    rows, columns = torch.nonzero(crop(windows, 45, 33)[0, 0] > 100, as_tuple=True)
    away = 12 / 2**0.5
    assert rows.float().mean() - 16 == pytest.approx(-away, abs=0.5)  # up
    assert columns.float().mean() - 16 == pytest.approx(away, abs=0.5)


@settings(deadline=None, max_examples=30)
@given(
    mixed=st.lists(st.sampled_from([0.0, 30.0, 45.0, 90.0, 217.5]), min_size=1, max_size=8), size=st.integers(16, 48)
)
def test_mixed_angles_in_one_batch_equal_one_by_one(mixed, size):
    windows = noise(len(mixed), window_size(size))
    before = windows.clone()
    together = crop(windows, np.array(mixed), size)
    for window, angle, patch in zip(windows, mixed, together, strict=True):
        assert torch.equal(crop(window[None], angle, size)[0], patch)
    assert torch.equal(windows, before)


def test_flips_give_the_four_mirrors_and_nothing_else():
    patches = noise(64, 16)
    flipped = flip(patches, np.random.default_rng(0))
    seen = set()
    for patch, result in zip(patches, flipped, strict=True):
        mirrors = [patch, patch.flip(2), patch.flip(1), patch.flip(1, 2)]
        seen.add(next(number for number, mirror in enumerate(mirrors) if torch.equal(mirror, result)))
    assert seen == {0, 1, 2, 3}


@pytest.mark.parametrize("vary", [flip, lambda patches, rng: jitter_stain(patches, 0.2, rng)])
def test_chance_comes_from_the_generator_alone(vary):
    patches = noise(8, 16)
    first, again, other = (vary(patches, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_a_jitter_of_nearly_nothing_changes_nearly_nothing():
    patches = noise(8, 32)
    jittered = jitter_stain(patches, 1e-4, np.random.default_rng(0))
    assert jittered.dtype == torch.uint8 and jittered.shape == patches.shape
    assert (jittered.int() - patches.int()).abs().max() <= 1


def test_white_stays_nearly_white():
    white = torch.full((64, 3, 4, 4), 255, dtype=torch.uint8)
    assert jitter_stain(white, 0.1, np.random.default_rng(0)).min() >= 255 * 0.95


@settings(deadline=None, max_examples=50)
@given(strength=st.floats(0.01, 0.3), seed=st.integers(0, 2**32 - 1))
def test_the_amount_of_each_stain_stays_within_the_strength(strength, seed):
    # Ruifrok and Johnston's stain vectors, unmixed here by numpy's solver from pixels of known amounts.
    stains = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
    stains /= np.linalg.norm(stains, axis=1, keepdims=True)
    amounts = np.array([0.3, 0.25, 0.1])  # haematoxylin, eosin and the rest: no channel near black or white
    pixel = np.round(256 * 10 ** -(amounts @ stains) - 1)
    patches = torch.from_numpy(np.broadcast_to(pixel[:, None, None], (16, 3, 2, 2)).astype(np.uint8))
    jittered = jitter_stain(patches, strength, np.random.default_rng(seed))
    assert (jittered == jittered[:, :, :1, :1]).all()  # one draw for a whole patch

    measured = np.linalg.solve(stains.T, -np.log10((jittered[:, :, 0, 0].numpy().T + 1) / 256)).T
    rounding = 0.02  # of optical density: half a grey level, where the darkest channel is
    assert (np.abs(measured - amounts) <= amounts * strength + 0.05 * strength + rounding).all()
    assert len(np.unique(jittered[:, :, 0, 0], axis=0)) > 1 or strength < 0.05  # another draw for each patch
