"""Windows hold the tissue round their points, and points stay on their tissue when an image is resized."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mitoscope.datasets.readers import Image
from mitoscope.histology.windows import FieldWindows, rescale, resize, window_size

sides = st.integers(1, 3000)


def draw_dot(rows: int, columns: int, point: tuple[float, float], sigma: float = 6.0) -> Image:
    """A bright dot on black with its middle at a fraction of a pixel."""
    row, col = (
        np.exp(-((np.arange(side) - place) ** 2) / (2 * sigma**2))
        for side, place in zip((rows, columns), point, strict=True)
    )
    return np.repeat(np.round(250 * np.outer(row, col)).astype(np.uint8)[..., None], 3, axis=2)


def middle_of_dot(image: Image) -> np.ndarray:
    light = image[..., 0].astype(float)
    return np.array([np.average(np.arange(len(line)), weights=line) for line in (light.sum(axis=1), light.sum(axis=0))])


@given(st.integers(1, 400))
def test_a_window_is_just_wide_enough_for_any_rotation(patch_size):
    side = window_size(patch_size)
    half_diagonal = (patch_size - 1) / math.sqrt(2)  # of the patch's corner pixel from the middle
    assert side % 2 == patch_size % 2
    assert (side - 1) / 2 >= half_diagonal - 1e-9
    assert (side - 2 - 1) / 2 < half_diagonal or side == patch_size == 1


def test_window_sizes_by_hand():
    assert window_size(64) == 92  # 63 x 1.4142 + 1 = 90.1, up to 91, up to the next even
    assert window_size(65) == 93  # 64 x 1.4142 + 1 = 91.5, up to 92, up to the next odd


@settings(max_examples=150, deadline=None)
@given(data=st.data(), rows=st.integers(2, 40), columns=st.integers(2, 40), size=st.integers(1, 30))
def test_windows_are_plain_slices_reflected_at_the_border(data, rows, columns, size):
    image = np.random.default_rng(rows * 100 + columns).integers(0, 256, (rows, columns, 3), np.uint8)
    place = st.tuples(st.integers(0, 4 * rows - 1), st.integers(0, 4 * columns - 1))
    points = np.array(data.draw(st.lists(place, min_size=1, max_size=4))) / 4  # quarters of a pixel
    windows = FieldWindows(image, points, size)
    at_once = windows.cut()
    assert windows.size == size and len(windows) == len(points)
    assert at_once.shape == (len(points), size, size, 3) and at_once.dtype == np.uint8
    for record, (flagged, point) in enumerate(zip(windows.edge, points, strict=True)):
        top, left = np.floor(point - (size - 1) / 2 + 0.5).astype(int)
        middle = np.array([top, left]) + (size - 1) / 2
        assert np.abs(middle - point).max() <= 0.5
        inside = top >= 0 and left >= 0 and top + size <= rows and left + size <= columns
        assert flagged == (not inside)
        if inside:
            expected = image[top : top + size, left : left + size]
        else:
            expected = image[np.ix_(mirrored(top, size, rows), mirrored(left, size, columns))]
        np.testing.assert_array_equal(windows[record], expected)
        np.testing.assert_array_equal(at_once[record], expected)


def mirrored(start: int, count: int, length: int) -> np.ndarray:
    """Indices start ... start + count - 1, folded back at both ends of a line without repeating its last pixel."""
    folded = np.arange(start, start + count) % (2 * (length - 1))
    return np.minimum(folded, 2 * (length - 1) - folded)


def test_no_point_gives_no_window():
    windows = FieldWindows(np.zeros((9, 9, 3), np.uint8), np.empty((0, 2)), 5)
    assert len(windows) == 0 and windows.cut().shape == (0, 5, 5, 3) and windows.edge.shape == (0,)


def test_a_one_pixel_image_has_windows():
    windows = FieldWindows(np.full((1, 1, 3), 7, np.uint8), np.zeros((1, 2)), 9)
    assert (windows.cut() == 7).all() and windows.edge.tolist() == [True]


def test_resize_averages():
    image = np.zeros((4, 6, 3), np.uint8)
    image[:, ::2] = 100
    assert (resize(image, 0.5) == 50).all() and resize(image, 0.5).shape == (2, 3, 3)
    assert resize(image, 1) is image
    assert resize(image, 2).shape == (2 * image.shape[0], 2 * image.shape[1], 3)
    assert resize(image, 0.01).shape == (1, 1, 3)


def test_resize_takes_the_mean_of_four():
    image = np.zeros((2, 4, 3), np.uint8)
    image[..., 0] = [[0, 4, 100, 100], [8, 12, 200, 200]]
    assert resize(image, 0.5)[..., 0].tolist() == [[6, 150]]
    assert not resize(image, 0.5)[..., 1:].any()


def test_rescale_moves_pixel_centres():
    # The middle of a 4 px line is 1.5; of the 2 px line it becomes, 0.5. The first of those two pixels covers 0 and 1.
    assert rescale(np.array([[1.5, 0.5]]), (4, 4, 3), (2, 2, 3)).tolist() == [[0.5, 0.0]]


@given(source=st.tuples(sides, sides), target=st.tuples(sides, sides))
def test_rescale_keeps_the_corners_and_comes_back(source, target):
    corners = np.array([[-0.5, -0.5], [source[0] - 0.5, source[1] - 0.5]])
    np.testing.assert_allclose(
        rescale(corners, source, target), [[-0.5, -0.5], [target[0] - 0.5, target[1] - 0.5]], atol=1e-9
    )
    points = np.random.default_rng(0).uniform(0, source, (9, 2))
    np.testing.assert_allclose(rescale(rescale(points, source, target), target, source), points, atol=1e-8)


@pytest.mark.parametrize("scale", [0.5, 0.25, 0.3 / 0.5, 0.23 / 0.5, 1.3])
@pytest.mark.parametrize("point", [(970.25, 1470.5), (40.0, 1470.0), (970.0, 35.75)])
def test_points_stay_on_their_tissue_up_to_the_far_edge_of_an_odd_size(scale, point):
    image = draw_dot(1001, 1503, point)
    np.testing.assert_allclose(middle_of_dot(image), point, atol=0.02)
    resized = resize(image, scale)
    there = rescale(np.array([point]), image.shape, resized.shape)[0]
    np.testing.assert_allclose(middle_of_dot(resized), there, atol=0.1)
    np.testing.assert_allclose(rescale(there[None], resized.shape, image.shape)[0], point, atol=1e-9)
