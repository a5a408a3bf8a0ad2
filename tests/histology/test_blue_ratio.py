"""Candidates are where the image is blue for its brightness, at any size of the image."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mitoscope.datasets.readers import Image
from mitoscope.histology.blue_ratio import blue_ratio, find_candidates

PINK = (230, 200, 220)
HALVED = {"scale": 0.5, "sigma": 2.0, "window": 11}
EVERYTHING = HALVED | {"count": 10**6}


def one_colour(rows: int, columns: int, colour: tuple[int, ...]) -> Image:
    return np.full((rows, columns, 3), colour, np.uint8)


def noise(rows: int, columns: int, seed: int = 0) -> Image:
    """Smooth coloured clouds, with many peaks of all heights."""
    clouds = cv2.GaussianBlur(np.random.default_rng(seed).normal(size=(rows, columns, 3)), (0, 0), 4)
    return np.clip(128 + 40 * clouds / clouds.std(), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("colour", "ratio"),
    [
        ((10, 20, 200), 714.985),  # 100 x 200 / (1 + 10 + 20) x 256 / (1 + 10 + 20 + 200) = 20000/31 x 256/231
        ((200, 150, 120), 18.5822),  # 100 x 120 / 351 x 256 / 471
        ((255, 255, 255), 16.6776),  # 100 x 255 / 511 x 256 / 766
        ((0, 0, 255), 25500.0),  # 100 x 255 / 1 x 256 / 256
        ((0, 0, 0), 0.0),
    ],
)
def test_blue_ratio_by_hand(colour, ratio):
    plane = blue_ratio(one_colour(2, 3, colour))
    assert plane.shape == (2, 3) and plane.dtype == np.float32
    np.testing.assert_allclose(plane, ratio, rtol=1e-5)


def test_blue_ratio_tells_the_channels_apart():
    red, green, blue = np.eye(3, dtype=np.uint8) * 200
    ratios = blue_ratio(np.stack([red, green, blue])[None])[0]
    assert ratios[0] == ratios[1] == 0 < ratios[2]


@settings(max_examples=30, deadline=None)
@given(
    cells=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4)), min_size=1, max_size=12, unique=True),
    shift=st.tuples(st.integers(0, 9), st.integers(0, 9)),
)
def test_planted_nuclei_are_found_strongest_first(cells, shift):
    image = one_colour(301, 260, PINK)
    planted = np.array(cells) * 48 + 20 + np.array(shift)  # never closer than 48 px
    for strength, (row, col) in enumerate(planted):  # each is paler than the one before
        colour = (40 + 10 * strength, 40 + 10 * strength, 140)
        cv2.circle(image, (int(col), int(row)), 7, colour, cv2.FILLED)
    found = find_candidates(image, None, **EVERYTHING)
    assert found.shape == planted.shape
    assert np.linalg.norm(found - planted, axis=1).max() <= 2


def test_count_keeps_the_strongest():
    image = noise(200, 200)
    everything = find_candidates(image, None, **EVERYTHING)
    assert len(everything) > 30
    np.testing.assert_array_equal(find_candidates(image, None, count=7, **HALVED), everything[:7])


@pytest.mark.parametrize("scale", [0.5, 0.4])
@pytest.mark.parametrize("shape", [(800, 1000), (801, 1003)])
def test_a_resized_image_has_the_same_peaks_at_the_same_points(shape, scale):
    """Up to the far edge: 801 px become 400, not 400.5, and a shift of half a pixel there are two of the image's."""
    image = cv2.GaussianBlur(noise(*shape), (0, 0), 3)
    whole, reduced = (
        find_candidates(image, None, scale=by, count=10**6, sigma=4 * by, window=2 * round(10 * by) + 1)
        for by in (1, scale)
    )
    # Peaks lie on whole pixels of the resized image, so each may be off by half of one, but all together by nothing.
    far = whole[(whole > np.array(shape) / 2).all(axis=1) & (whole < np.array(shape) - 16).all(axis=1)]
    shifts = reduced[None] - far[:, None]
    nearest = np.linalg.norm(shifts, axis=2).argmin(axis=1)
    shifts = shifts[np.arange(len(far)), nearest]
    same = np.abs(shifts).max(axis=1) < 1 / scale
    assert len(far) > 100 and same.mean() > 0.9
    np.testing.assert_allclose(shifts[same].mean(axis=0), 0, atol=0.2)


def test_no_two_peaks_share_a_neighbourhood():
    found = find_candidates(noise(300, 300), None, **EVERYTHING)
    apart = np.abs(found[:, None] - found[None]).max(axis=2)[~np.eye(len(found), dtype=bool)]
    assert apart.min() > 2 * (11 // 2)  # full-resolution px


def test_candidates_lie_in_the_mask():
    image = noise(201, 199)
    mask = np.zeros((201, 199), bool)
    mask[:, 60:130] = True
    everything = find_candidates(image, None, **EVERYTHING)
    inside = find_candidates(image, mask, **EVERYTHING)
    middle = (everything[:, 1] > 59.5) & (everything[:, 1] < 129.5)
    np.testing.assert_array_equal(inside, everything[middle])
    assert 0 < len(inside) < len(everything)
    assert find_candidates(image, np.zeros_like(mask), **EVERYTHING).shape == (0, 2)


def test_the_mask_comes_before_the_count():
    image = noise(200, 200)
    strongest = find_candidates(image, None, **EVERYTHING)
    mask = np.ones((200, 200), bool)
    row, col = np.round(strongest[0]).astype(int)
    mask[row - 1 : row + 2, col - 1 : col + 2] = False
    np.testing.assert_array_equal(find_candidates(image, mask, count=3, **HALVED), strongest[1:4])


@settings(max_examples=200, deadline=None)
@given(
    rows=st.integers(1, 190),
    columns=st.integers(1, 190),
    colour=st.tuples(*[st.integers(0, 255)] * 3),
    sigma=st.sampled_from([0.5, 2.0, 2.5, 4.0]),
)
def test_a_flat_image_has_no_candidate(rows, columns, colour, sigma):
    found = find_candidates(one_colour(rows, columns, colour), None, scale=0.5, count=100, sigma=sigma, window=11)
    assert found.shape == (0, 2)


@pytest.mark.parametrize("colour", [(255, 255, 255), (0, 0, 0)])
def test_a_white_or_black_image_has_no_candidate(colour):
    assert find_candidates(one_colour(300, 300, colour), None, **EVERYTHING).shape == (0, 2)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (3, 5), (2, 2), (12, 1)])
def test_a_tiny_image_works(shape):
    found = find_candidates(noise(*shape), np.ones(shape, bool), **EVERYTHING)
    assert found.ndim == 2 and found.shape[1] == 2
    assert ((found >= 0) & (found < shape)).all()


def test_cropping_moves_no_candidate():
    image = noise(400, 300)
    whole, half = (find_candidates(part, None, **EVERYTHING) for part in (image, image[200:]))
    away = whole[whole[:, 0] > 240]  # farther from the cut than smoothing and neighbourhood reach
    assert len(away) > 20
    there = {(row + 200, col) for row, col in half}
    assert {tuple(place) for place in away} <= there
