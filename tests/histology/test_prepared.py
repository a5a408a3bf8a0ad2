"""A field is the same tissue whatever its pixel size: lengths are in um."""

import math

import cv2
import numpy as np
import pytest

from mitoscope.datasets.readers import Image, Mask, Picture
from mitoscope.histology import prepared
from mitoscope.histology.prepared import PreparedField
from mitoscope.histology.windows import window_size
from mitoscope.params import Extract

MICRONS = 0.25
ROWS, COLUMNS = 601, 523
NUCLEI = [(100.0, 95.0), (310.0, 420.0), (520.0, 70.0), (250.0, 180.0), (470.0, 300.0)]  # strongest first
MANY = Extract(patch_um=16, candidates_per_mm2=20_000)


def draw_field() -> Image:
    """Pink clouds with five dark blue discs, each paler than the one before."""
    clouds = cv2.GaussianBlur(np.random.default_rng(0).normal(size=(ROWS, COLUMNS, 3)), (0, 0), 6)
    image = np.clip((225, 195, 215) + 6 * clouds / clouds.std(), 0, 255).astype(np.uint8)
    for number, (row, col) in enumerate(NUCLEI):
        colour = (40 + 12 * number, 40 + 12 * number, 140)
        cv2.circle(image, (round(col), round(row)), 12, colour, cv2.FILLED, cv2.LINE_AA)
    return image


FIELD = draw_field()


def prepare(image: Image, microns: float, settings: Extract, opaque: Mask | None = None) -> PreparedField:
    return prepared.prepare(Picture(image, opaque, None), microns, settings)


def scanned_at(microns: float) -> PreparedField:
    """The field as a scanner with pixels of this size shows it."""
    size = (round(COLUMNS * MICRONS / microns), round(ROWS * MICRONS / microns))
    how = cv2.INTER_AREA if microns > MICRONS else cv2.INTER_CUBIC
    return prepare(cv2.resize(FIELD, size, interpolation=how), microns, MANY)


def in_microns(field: PreparedField, points: np.ndarray) -> np.ndarray:
    """From the field's corner, in um: at 0.3 um per pixel the right edge is not where it is at 0.25."""
    return (points + 0.5) / field.image.shape[:2] * (ROWS * MICRONS, COLUMNS * MICRONS)


@pytest.mark.parametrize("microns", [0.3, 0.22])
def test_the_same_tissue_has_the_same_candidates_at_any_pixel_size(microns):
    as_trained, other = prepare(FIELD, MICRONS, MANY), scanned_at(microns)
    first, second = as_trained.candidates(None), other.candidates(None)
    np.testing.assert_allclose(first[:5], NUCLEI, atol=2)
    np.testing.assert_allclose(in_microns(other, second[:5]), in_microns(as_trained, first[:5]), atol=0.3)
    assert len(second) == pytest.approx(len(first), rel=0.05)


@pytest.mark.parametrize("microns", [0.3, 0.22])
def test_the_same_tissue_gives_the_same_windows_at_any_pixel_size(microns):
    as_trained, other = prepare(FIELD, MICRONS, MANY), scanned_at(microns)
    first = as_trained.windows(np.array(NUCLEI)).cut().astype(int)
    points = (np.array(NUCLEI) + 0.5) * np.array(other.image.shape[:2]) / FIELD.shape[:2] - 0.5
    second = other.windows(points).cut().astype(int)
    assert first.shape == second.shape == (5, window_size(32), window_size(32), 3)
    # They differ by resampling and by half a pixel of rounding, which shows at the discs' edges.
    assert np.abs(first - second).mean() < 3
    assert np.abs(np.roll(first, 4, axis=1) - second).mean() > 8


def test_windows_have_the_pixel_size_of_the_settings():
    for microns, across in ((0.5, 12), (0.25, 24)):
        windows = prepare(FIELD, MICRONS, Extract(patch_um=16, microns_per_pixel=microns)).windows(np.array(NUCLEI[:1]))
        assert windows.size == window_size(round(16 / microns))
        dark = (windows[0][..., 0] < 130).sum()
        assert dark == pytest.approx(math.pi * (across / 2) ** 2, rel=0.1)


@pytest.mark.parametrize(
    ("peak_window_um", "half"),
    [(5.5, 5), (5.9, 5), (6.1, 6), (4.5, 4), (4.1, 4), (3.9, 3), (1.5, 1), (0.1, 1)],  # at 0.5 um per pixel
)
def test_a_peak_window_becomes_the_nearest_odd_number_of_pixels(peak_window_um, half):
    """Of two dots, the weaker is a candidate where the stronger lies beyond half of the window."""
    settings = Extract(sigma_um=0.25, peak_window_um=peak_window_um, candidates_per_mm2=1e6)
    for apart, expected in ((half, 1), (half + 1, 2)):
        image = np.full((80, 80, 3), (230, 200, 220), np.uint8)
        for col, grey in ((30, 40), (30 + 2 * apart, 60)):  # pixels of 0.25 um
            image[40:42, col : col + 2] = (grey, grey, 140)
        assert len(prepare(image, MICRONS, settings).candidates(None)) == expected


def test_sigma_is_in_microns():
    """Two specks become one candidate when they are smoothed over more um, whatever the blue-ratio pixels."""
    image = np.full((200, 200, 3), (230, 200, 220), np.uint8)
    for col in (92, 108):  # 4 um apart
        cv2.circle(image, (col, 100), 3, (40, 40, 140), cv2.FILLED)
    for pixel in (0.25, 0.5):
        counts = [
            len(
                prepare(
                    image,
                    MICRONS,
                    Extract(sigma_um=sigma, peak_window_um=1.5, blue_ratio_microns_per_pixel=pixel),
                ).candidates(None)
            )
            for sigma in (0.8, 3.0)
        ]
        assert counts == [2, 1]


def test_the_count_of_candidates_follows_the_area():
    clouds = cv2.GaussianBlur(np.random.default_rng(1).normal(size=(331, 300, 3)), (0, 0), 4)
    image = np.clip(128 + 40 * clouds / clouds.std(), 0, 255).astype(np.uint8)
    settings = Extract(candidates_per_mm2=2000)
    area = 331 * 300 * 0.25**2 / 1e6
    whole, half, coarse = (
        prepare(image, 0.25, settings),
        prepare(image[:165], 0.25, settings),
        # Twice the pixel size is four times the area, so four times as many.
        prepare(image, 0.5, Extract(candidates_per_mm2=2000, sigma_um=1.5, peak_window_um=4)),
    )
    assert whole.area_mm2 == pytest.approx(area) and coarse.area_mm2 == pytest.approx(4 * area)
    assert len(whole.candidates(None)) == math.ceil(2000 * area) == 13
    assert len(half.candidates(None)) == 7
    assert len(coarse.candidates(None)) == math.ceil(8000 * area) == 50


def test_transparent_parts_have_no_candidates_and_ask_for_none():
    opaque = np.ones(FIELD.shape[:2], dtype=np.bool_)
    opaque[:, :200] = False
    settings = Extract(candidates_per_mm2=600)
    whole, part = prepare(FIELD, MICRONS, settings), prepare(FIELD, MICRONS, settings, opaque)
    assert part.area_mm2 == pytest.approx(whole.area_mm2 * (1 - 200 / COLUMNS))
    assert len(whole.candidates(None)) == math.ceil(600 * whole.area_mm2) == 12
    found = part.candidates(None)
    assert len(found) == 8 and (found[:, 1] >= 199).all()
    np.testing.assert_array_equal(found, whole.candidates(opaque)[:8])  # a mask alone changes no area


def test_a_mask_of_the_field_restricts_the_candidates():
    mask = np.zeros(FIELD.shape[:2], dtype=np.bool_)
    mask[:, 200:] = True
    field = prepare(FIELD, MICRONS, MANY)
    found = field.candidates(mask)
    assert 0 < len(found) < len(field.candidates(None)) and (found[:, 1] >= 199).all()
    np.testing.assert_allclose(found[:2], [NUCLEI[1], NUCLEI[4]], atol=2)


def test_the_stain_is_normalised_where_there_is_tissue():
    plain, normal = prepare(FIELD, MICRONS, MANY), prepare(FIELD, MICRONS, Extract(stain="reinhard"))
    assert plain.image is FIELD and not plain.normalised
    assert normal.normalised and not np.array_equal(normal.image, FIELD)
    white = np.full((90, 100, 3), 255, np.uint8)
    blank = prepare(white, MICRONS, Extract(stain="reinhard"))
    assert not blank.normalised and np.array_equal(blank.image, white)


def test_a_white_field_has_no_candidate_and_no_window():
    field = prepare(np.full((100, 90, 3), 255, np.uint8), MICRONS, MANY)
    points = field.candidates(None)
    assert points.shape == (0, 2) and field.windows(points).cut().shape == (0, 46, 46, 3)
