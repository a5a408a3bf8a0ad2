"""Stain normalisation: known mixtures come back in the reference's colours, glass and single colours as they were."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mitoscope.datasets.readers import Image
from mitoscope.histology.stain import Method, _restain, normalise

# Columns haematoxylin and eosin; the reference is the published one, the others are two made-up laboratories.
REFERENCE = np.array([[0.5626, 0.2159], [0.7201, 0.8012], [0.4062, 0.5581]])
STRONGEST = np.array([1.9705, 1.0308])
BLUISH = np.array([[0.65, 0.20], [0.70, 0.90], [0.29, 0.39]])
REDDISH = np.array([[0.45, 0.17], [0.75, 0.85], [0.48, 0.50]])
METHODS: tuple[Method, ...] = ("macenko", "reinhard")


def mix(amounts: np.ndarray, stains: np.ndarray) -> Image:
    """The field with these (H, W, 2) amounts of the two stains, by the law of Beer and Lambert."""
    return np.clip(np.rint(240 * np.exp(-amounts @ stains.T) - 1), 0, 255).astype(np.uint8)


def draw_amounts(size: int = 100) -> np.ndarray:
    """Amounts of a field, a share of the strongest, which the lowest 2 % of the rows have.

    The left 5 % of the columns are haematoxylin alone, the right 5 % eosin alone, those between them both.
    """
    amounts = np.random.default_rng(0).uniform(0.4, 0.8, (size, size, 2))
    amounts[-max(1, size // 50) :] = 1
    amounts[:, : max(1, size // 20), 1] = 0
    amounts[:, -max(1, size // 20) :, 0] = 0
    return amounts


def far(first: Image, second: Image) -> int:
    """The greatest difference between two images, in grey levels."""
    return int(np.abs(first.astype(int) - second.astype(int)).max())


def apart(first: Image, second: Image) -> float:
    """The mean difference between two images, in grey levels."""
    return float(np.abs(first.astype(int) - second.astype(int)).mean())


def lab(image: Image) -> np.ndarray:
    return cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)


def to_rgb(image: np.ndarray) -> Image:
    return np.rint(cv2.cvtColor(image.astype(np.float32), cv2.COLOR_LAB2RGB) * 255).astype(np.uint8)


def draw_pale_tissue() -> Image:
    """Tissue that stays displayable in the reference's colours; light is less red, as it is in stained fields."""
    light, hue, rest = np.random.default_rng(0).uniform(-1.7, 1.7, (3, 80, 80))
    return to_rgb(np.stack([60 + 8 * light, 30 - 4.5 * light + 1.5 * hue, 3 * rest - 8], axis=-1))


def one_colour(rows: int, columns: int, colour: tuple[int, int, int]) -> Image:
    return np.full((rows, columns, 3), colour, np.uint8)


def single_stain() -> Image:
    """Haematoxylin alone, in every amount."""
    amounts = np.zeros((100, 100, 2))
    amounts[..., 0] = np.linspace(0.3, 2, 10_000).reshape(100, 100)
    return mix(amounts, REFERENCE)


def pale_eosin(size: int, stained: int) -> Image:
    """Eosin too pale to be seen in red, but for this many pixels, which have both stains."""
    amounts = np.full((size * size, 2), (0.0, 0.5))
    amounts[:stained] = draw_amounts()[-1, np.linspace(0, 99, stained).astype(int)] * 2
    return mix(amounts.reshape(size, size, 2), BLUISH)


def speck() -> Image:
    """Glass with one dirty place: 256 pixels of two colours, more than enough but for their share of the field."""
    image = one_colour(200, 200, (250, 250, 250))
    image[:16, :16] = mix(draw_amounts(16) * 1.5, BLUISH)
    return image


@pytest.mark.parametrize("stains", [BLUISH, REDDISH])
@pytest.mark.parametrize("strongest", [(1.5, 1.5), (2.5, 1.3), (1.2, 2.0)])
def test_macenko_gives_a_known_mixture_the_stains_of_the_reference(stains, strongest):
    amounts = draw_amounts()
    result, changed = normalise(mix(amounts * strongest, stains), "macenko")
    assert changed
    assert far(result, mix(amounts * STRONGEST, REFERENCE)) <= 4


def test_macenko_takes_haematoxylin_for_the_one_that_absorbs_more_red():
    result, _ = normalise(mix(draw_amounts() * 1.5, BLUISH), "macenko")
    # The last rows hold the most of each: 240 exp(-1.9705 x 0.5626) - 1 = 78, and so on.
    np.testing.assert_allclose(result[-1, 0], [78, 57, 107], atol=4)
    np.testing.assert_allclose(result[-1, -1], [191, 104, 134], atol=4)


@pytest.mark.parametrize(
    ("count", "colour"), [(1000, (235, 235, 170)), (40, (20, 120, 60))], ids=["pale yellow", "green ink"]
)
def test_macenko_is_not_led_astray_by_pale_or_rare_colours(count, colour):
    image = mix(draw_amounts() * 2, BLUISH)
    stray = image.copy()
    stray.reshape(-1, 3)[:count] = colour
    (expected, _), (result, _) = normalise(image, "macenko"), normalise(stray, "macenko")
    assert far(result.reshape(-1, 3)[count:], expected.reshape(-1, 3)[count:]) <= 6


def test_reinhard_gives_tissue_the_mean_and_the_deviation_of_the_reference():
    image = draw_pale_tissue()
    result, changed = normalise(image, "reinhard")
    assert changed
    np.testing.assert_allclose(lab(result).mean(axis=(0, 1)), [56.0, 42.0, -3.0], atol=0.1)
    np.testing.assert_allclose(lab(result).std(axis=(0, 1)), [14.1, 8.1, 4.3], atol=0.1)
    before = lab(image)
    score = (before - before.mean(axis=(0, 1))) / before.std(axis=(0, 1))
    assert far(result, to_rgb(score * [14.1, 8.1, 4.3] + [56.0, 42.0, -3.0])) <= 1


@pytest.mark.parametrize(("method", "tolerance"), [("macenko", 1.5), ("reinhard", 12)])
def test_strength_and_laboratory_leave_little_trace(method, tolerance):
    amounts = draw_amounts()
    first, *others = [mix(amounts * 2, BLUISH), mix(amounts * 1.4, BLUISH), mix(amounts * (1.8, 2.0), REDDISH)]
    for other in others:
        assert apart(first, other) > 20
        assert apart(normalise(first, method)[0], normalise(other, method)[0]) < tolerance


@pytest.mark.parametrize(
    ("method", "image"), [("macenko", mix(draw_amounts() * 2, BLUISH)), ("reinhard", draw_pale_tissue())]
)
def test_twice_is_about_the_same_as_once(method, image):
    image = cv2.copyMakeBorder(image, 0, 20, 0, 0, cv2.BORDER_CONSTANT, value=(250, 250, 250))
    once, _ = normalise(image, method)
    twice, changed = normalise(once, method)
    assert changed and far(image, once) > 30
    assert far(once, twice) <= 3


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("glass", [239, 255])
def test_glass_around_the_tissue_counts_for_nothing(method, glass):
    tissue = mix(draw_amounts() * 1.5, BLUISH)
    framed = cv2.copyMakeBorder(tissue, 100, 100, 100, 100, cv2.BORDER_CONSTANT, value=(glass, glass, glass))
    result, _ = normalise(framed, method)
    assert far(result[100:200, 100:200], normalise(tissue, method)[0]) == 0
    assert far(result[:100], framed[:100]) <= 2


@pytest.mark.parametrize("method", METHODS)
def test_a_large_field_is_measured_on_a_grid(method):
    small = mix(draw_amounts(300) * 1.5, BLUISH)
    large = small.repeat(2, axis=0).repeat(2, axis=1)  # more than 512 px, so every second pixel is measured
    result, changed = normalise(large, method)
    assert changed
    assert far(result, normalise(small, method)[0].repeat(2, axis=0).repeat(2, axis=1)) == 0


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "image",
    [
        one_colour(60, 80, (255, 255, 255)),
        one_colour(60, 80, (0, 0, 0)),
        one_colour(60, 80, (200, 120, 180)),
        one_colour(1, 1, (90, 40, 120)),
        mix(draw_amounts(9), BLUISH),  # 81 pixels
        np.arange(256, dtype=np.uint8).repeat(300).reshape(240, 320, 1).repeat(3, axis=2),  # every grey
        speck(),
    ],
    ids=["white", "black", "one colour", "one pixel", "81 pixels", "grey", "speck"],
)
def test_too_little_to_estimate_from_passes_through(method, image):
    result, changed = normalise(image, method)
    assert changed is False
    np.testing.assert_array_equal(result, image)


@pytest.mark.parametrize(
    "image",
    [single_stain(), pale_eosin(size=100, stained=100), pale_eosin(size=20, stained=80)],
    ids=["haematoxylin alone", "too small a share stained", "too few stained"],
)
def test_macenko_needs_two_stains(image):
    result, changed = normalise(image, "macenko")
    assert changed is False
    np.testing.assert_array_equal(result, image)


def test_none_changes_nothing():
    image = mix(draw_amounts() * 1.5, BLUISH)
    result, changed = normalise(image, "none")
    assert changed is False
    np.testing.assert_array_equal(result, image)


@pytest.mark.parametrize("method", METHODS)
def test_the_result_is_repeatable_and_the_input_left_alone(method):
    image = mix(draw_amounts()[:, :70] * 1.5, BLUISH)
    before = image.copy()
    first, second = (normalise(image, method)[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(image, before)
    assert first.shape == (100, 70, 3) and first.dtype == np.uint8


@settings(max_examples=60, deadline=None)
@given(
    colours=arrays(np.uint8, st.tuples(st.integers(1, 4), st.integers(1, 4), st.just(3))),
    method=st.sampled_from(METHODS),
)
def test_any_field_comes_back_as_an_image(colours, method):
    image = cv2.resize(colours, (60, 40), interpolation=cv2.INTER_CUBIC)
    with np.errstate(all="raise", under="ignore"):
        result, changed = normalise(image, method)
    assert result.shape == image.shape and result.dtype == np.uint8
    assert changed or np.array_equal(result, image)


@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0])
def test_restaining_is_the_law_of_beer_and_lambert_for_all_intensities(scale):
    """Against the plain formula: multiply the densities, and clip what is brighter than white or darker than black."""
    image = np.random.default_rng(5).integers(0, 256, (300, 256, 3), dtype=np.uint8)
    image[:, :, 0] = image[:, :, 1] = np.arange(256)
    matrix = scale * np.array([[1.2, -0.1, 0.05], [0.02, 0.9, -0.05], [-0.1, 0.1, 1.1]])
    light = 240 * np.exp(np.log((image + 1.0) / 240) @ matrix.T) - 1
    assert light.max() > 255
    assert far(_restain(image, matrix), np.clip(np.rint(light), 0, 255).astype(np.uint8)) <= 1
    assert apart(_restain(image, matrix), np.clip(np.rint(light), 0, 255).astype(np.uint8)) < 1e-3
