"""Transparency: opaque alpha is dropped, what is transparent becomes white and is told, in every format."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image as Pillow

from mitoscope.datasets.readers import Picture, read_mask, read_picture
from tests.datasets.conftest import SHAPE, refusal, tissue

FIELD = tissue()
SUFFIXES = (".tif", ".png", ".bmp")


def with_alpha(alpha: np.ndarray | int) -> np.ndarray:
    return np.dstack([FIELD, np.broadcast_to(np.uint8(alpha), SHAPE)])


def write(folder: Path, pixels: np.ndarray, suffix: str, kind: str = "unassalpha") -> Path:
    path = folder / f"01_01{suffix}"
    if suffix == ".tif":
        tifffile.imwrite(path, pixels, photometric="rgb", extrasamples=[kind], metadata=None)
    else:
        Pillow.fromarray(pixels).save(path)
    return path


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_opaque_alpha_channel_is_dropped(tmp_path, suffix):
    picture = read_picture(write(tmp_path, with_alpha(255), suffix))
    assert np.array_equal(picture.pixels, FIELD) and picture.opaque is None


@pytest.mark.parametrize("kind", ["assocalpha", "unspecified"])
def test_an_opaque_alpha_channel_of_any_kind_is_dropped(tmp_path, kind):
    picture = read_picture(write(tmp_path, with_alpha(255), ".tif", kind))
    assert np.array_equal(picture.pixels, FIELD) and picture.opaque is None


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_transparent_pixels_become_white_and_are_told(tmp_path, suffix):
    alpha = np.full(SHAPE, 255, np.uint8)
    alpha[:20] = 0
    alpha[20:25], alpha[25:30] = 127, 128
    picture = read_picture(write(tmp_path, with_alpha(alpha), suffix))
    assert picture.opaque is not None and np.array_equal(picture.opaque, alpha >= 128)
    assert (picture.pixels[:25] == 255).all()
    assert np.array_equal(picture.pixels[25:], FIELD[25:])  # also half transparent pixels keep their colour


def test_colours_that_were_multiplied_by_alpha_get_their_own_again(tmp_path):
    alpha = np.full(SHAPE, 200, np.uint8)
    alpha[:20] = 0
    multiplied = with_alpha(alpha)
    multiplied[..., :3] = np.rint(FIELD * (alpha[..., None] / 255))
    picture = read_picture(write(tmp_path, multiplied, ".tif", "assocalpha"))
    assert np.abs(picture.pixels[20:].astype(int) - FIELD[20:]).max() <= 1
    assert (picture.pixels[:20] == 255).all()


def test_a_fourth_channel_without_a_meaning_is_rejected(tmp_path):
    path = write(tmp_path, with_alpha(FIELD[..., 0]), ".tif", "unspecified")
    assert "fourth channel that may be transparency or not" in refusal(read_picture, path)


def test_a_transparent_colour_of_a_png_is_transparent(tmp_path):
    keyed = FIELD.copy()
    keyed[5:9, 7:11] = (1, 2, 3)
    path = tmp_path / "01_01.png"
    Pillow.fromarray(keyed).save(path, transparency=(1, 2, 3))
    picture = read_picture(path)
    assert picture.opaque is not None and (~picture.opaque).sum() == 16 and not picture.opaque[5:9, 7:11].any()
    assert (picture.pixels[5:9, 7:11] == 255).all()


def test_a_palette_may_be_transparent(tmp_path):
    paletted = Pillow.fromarray(FIELD).quantize(16)
    path = tmp_path / "01_01.png"
    paletted.save(path, transparency=b"\xff\x00\x80")
    picture = read_picture(path)
    assert picture.opaque is not None and np.array_equal(picture.opaque, np.array(paletted) != 1)
    assert np.array_equal(picture.pixels[picture.opaque], np.array(paletted.convert("RGB"))[picture.opaque])


def test_the_unused_fourth_byte_of_a_bmp_is_no_alpha(tmp_path):
    path = write(tmp_path, with_alpha(0), ".bmp")
    picture = read_picture(path)
    assert np.array_equal(picture.pixels, FIELD) and picture.opaque is None


def test_the_alpha_channel_of_a_mask_sets_nothing_in_any_format(tmp_path):
    black = np.zeros((*SHAPE, 4), np.uint8)
    black[..., 3] = 255
    for suffix in SUFFIXES:
        assert not read_mask(write(tmp_path, black, suffix), SHAPE).any()


def test_transparent_parts_are_no_area_and_hold_no_candidates():
    opaque = np.ones(SHAPE, bool)
    opaque[:30] = False
    half = Picture(FIELD, opaque, 0.25)
    whole = Picture(FIELD, None, 0.25)
    assert half.area_mm2(0.5) == pytest.approx(30 * 50 * 0.25e-6)
    assert whole.area_mm2(0.5) == 2 * half.area_mm2(0.5)
    assert (half.transparent, whole.transparent) == ("50%", "")
    mask = np.zeros(SHAPE, bool)
    mask[:, :10] = True
    assert whole.candidate_mask(None) is None and whole.candidate_mask(mask) is mask
    inside = half.candidate_mask(mask)
    assert inside is not None and np.array_equal(inside, mask & opaque)
    assert half.candidate_mask(None) is opaque
