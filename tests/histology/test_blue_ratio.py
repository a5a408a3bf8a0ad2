"""Candidates are where the image is blue for its brightness, at any size of the image."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mitoscope.datasets.images import Image
from mitoscope.histology.blue_ratio import blue_ratio, find_candidates, halve
from mitoscope.histology.windows import to_scale

PINK = (230, 200, 220)
EVERYTHING = {"count": 10**6, "sigma": 2.0, "window": 11}


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


def test_halve_takes_the_mean_of_four():
    image = np.zeros((2, 4, 3), np.uint8)
    image[..., 0] = [[0, 4, 100, 100], [8, 12, 200, 200]]
    assert halve(image)[..., 0].tolist() == [[6, 150]]
    assert not halve(image)[..., 1:].any()


def test_halve_repeats_the_last_line_of_an_odd_size():
    image = np.zeros((3, 3, 3), np.uint8)
    image[..., 2] = [[0, 2, 10], [4, 6, 20], [100, 120, 200]]
    assert halve(image)[..., 2].tolist() == [[3, 15], [110, 200]]


@given(rows=st.integers(1, 30), columns=st.integers(1, 30))
def test_halve_rounds_the_size_up(rows, columns):
    assert halve(one_colour(rows, columns, PINK)).tolist() == one_colour(-(-rows // 2), -(-columns // 2), PINK).tolist()


def test_to_scale_moves_pixel_centres():
    # The middle of a 4 px line is 1.5; of the 2 px line it becomes, 0.5. The first of those two pixels covers 0 and 1.
    assert to_scale(np.array([[1.5, 0.5]]), 0.5).tolist() == [[0.5, 0.0]]
    places = np.random.default_rng(0).uniform(0, 100, (9, 2))
    np.testing.assert_allclose(to_scale(to_scale(places, 0.5), 2.0), places)


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
    np.testing.assert_array_equal(find_candidates(image, None, count=7, sigma=2.0, window=11), everything[:7])


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
    np.testing.assert_array_equal(find_candidates(image, mask, count=3, sigma=2.0, window=11), strongest[1:4])


@settings(max_examples=200, deadline=None)
@given(
    rows=st.integers(1, 190),
    columns=st.integers(1, 190),
    colour=st.tuples(*[st.integers(0, 255)] * 3),
    sigma=st.sampled_from([0.5, 2.0, 2.5, 4.0]),
)
def test_a_flat_image_has_no_candidate(rows, columns, colour, sigma):
    found = find_candidates(one_colour(rows, columns, colour), None, count=100, sigma=sigma, window=11)
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
