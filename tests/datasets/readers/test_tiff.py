"""TIFF files of every kind: the page that is the field is read exactly, all else is refused by name."""

import json
import re
import time
import tracemalloc
from pathlib import Path
from typing import Any

import cv2
import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image as Pillow

from mitoscope.datasets.readers import read_image, read_mask, read_picture
from tests.datasets.conftest import SHAPE, refusal, tissue

ROWS, COLUMNS = SHAPE
FIELD = tissue()
RGB: dict[str, Any] = {"photometric": "rgb", "metadata": None}
OTHER = {"metadata": None, "planarconfig": "contig"}


def write(folder: Path, pixels: np.ndarray, **settings: Any) -> Path:
    path = folder / "01_01.tif"
    tifffile.imwrite(path, pixels, **settings)
    return path


def write_pages(folder: Path, *pages: tuple[np.ndarray, dict[str, Any]]) -> Path:
    path = folder / "01_01.tif"
    with tifffile.TiffWriter(path) as file:
        for pixels, settings in pages:
            file.write(pixels, **RGB | settings)
    return path


# What is read


@pytest.mark.parametrize("layout", [{}, {"tile": (16, 32)}, {"rowsperstrip": 7}])
@pytest.mark.parametrize(
    "compression", [None, "lzw", "zlib", "packbits", "zstd", "lzma", "jpeg2000", "jpegxl", "webp", "lerc", 33003, 33005]
)
def test_every_compression_is_read_exactly(tmp_path, compression, layout):
    lossless = {"compressionargs": {"lossless": True}} if compression == "webp" else {}
    path = write(tmp_path, FIELD, compression=compression, **RGB, **layout, **lossless)
    assert np.array_equal(read_image(path), FIELD)


@pytest.mark.parametrize(
    "settings",
    [
        {"bigtiff": True},
        {"byteorder": ">"},
        {"byteorder": ">", "bigtiff": True, "compression": "lzw"},
        {"compression": "zlib", "predictor": True},
        {"compression": "lzw", "predictor": True, "tile": (16, 16)},
    ],
)
def test_every_layout_of_the_file_is_read_exactly(tmp_path, settings):
    assert np.array_equal(read_image(write(tmp_path, FIELD, **RGB, **settings)), FIELD)


@pytest.mark.parametrize("settings", [{}, {"compression": "lzw", "tile": (16, 16)}, {"rowsperstrip": 7}])
def test_planes_that_are_stored_one_after_the_other_are_read(tmp_path, settings):
    path = write(tmp_path, np.moveaxis(FIELD, -1, 0), planarconfig="separate", **RGB, **settings)
    assert np.array_equal(read_image(path), FIELD)


@pytest.mark.parametrize("settings", [{}, {"tile": (16, 16)}, {"compressionargs": {"outcolorspace": "rgb"}}])
def test_jpeg_inside_is_converted_to_rgb(tmp_path, settings):
    red = np.full((64, 64, 3), (200, 20, 10), np.uint8)
    path = write(tmp_path, red, compression="jpeg", **RGB, **settings)
    assert np.allclose(read_image(path), red, atol=3)


def test_jpeg_inside_has_the_pixels_of_opencv(tmp_path):
    path = tmp_path / "01_01.tif"
    Pillow.fromarray(FIELD).save(path, compression="jpeg", quality=90)
    assert np.array_equal(read_image(path), cv2.imread(str(path))[..., ::-1])


def test_jpeg_2000_of_old_aperio_scanners_is_converted_from_ycbcr(tmp_path):
    red = np.full((64, 64, 3), (200, 20, 10), np.uint8)
    luma_first = cv2.cvtColor(red, cv2.COLOR_RGB2YCrCb)[..., [0, 2, 1]]
    for photometric in ("rgb", "ycbcr"):  # both are found
        settings = {"compressionargs": {"mct": False}, "metadata": None, "planarconfig": "contig"}
        path = write(tmp_path, luma_first, photometric=photometric, compression=33003, **settings)
        assert np.allclose(read_image(path), red, atol=2)


def test_jpeg_2000_says_itself_whether_it_has_reduced_colours(tmp_path):
    subsampled = (530, 3, 2, (2, 2), True)  # a tag that is for JPEG
    path = write(tmp_path, FIELD, compression=33003, extratags=[subsampled], **RGB)
    assert np.array_equal(read_image(path), FIELD)
    content = bytearray(path.read_bytes())
    content[content.index(b"\xff\x4f\xff\x51") + 46] = 2  # the second channel has half as many columns
    path.write_bytes(content)
    assert "is JPEG 2000 with reduced colours, which cannot be read" in refusal(read_image, path)


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_a_palette_keeps_its_colours(tmp_path, bits):
    path = tmp_path / "01_01.tif"
    paletted = Pillow.fromarray(FIELD).quantize(2**bits)
    paletted.save(path)
    assert np.array_equal(read_image(path), np.array(paletted.convert("RGB")))


# Pages


def test_a_pyramid_is_read_at_full_resolution(tmp_path):
    small, reduced = FIELD[::2, ::2], {"subfiletype": 1}
    in_subdirectories = write_pages(tmp_path, (FIELD, {"subifds": 1}), (small, reduced))
    assert np.array_equal(read_image(in_subdirectories), FIELD)
    marked = write_pages(tmp_path, (FIELD, {}), (small, reduced), (FIELD[::4, ::4], reduced))
    assert np.array_equal(read_image(marked), FIELD)
    small_first = write_pages(tmp_path, (small, reduced), (FIELD, {}), (FIELD, {"subfiletype": 9}))
    assert np.array_equal(read_image(small_first), FIELD)


def test_a_slide_of_aperio_is_read_at_full_resolution(tmp_path):
    slide = cv2.resize(FIELD, (256, 256))
    about = "Aperio Image Library v11.2.1\n256x256 (64x64) J2K|AppMag = 20|MPP = 0.4990"
    thumbnail = "Aperio Image Library v11.2.1\n256x256 -> 64x64 - |AppMag = 20|MPP = 0.4990"
    path = write_pages(
        tmp_path,
        (slide, {"tile": (64, 64), "compression": 33005, "description": about}),
        (
            slide[::4, ::4],
            {"description": thumbnail},
        ),
        (slide[::2, ::2], {"tile": (64, 64), "description": "Aperio Image Library v11.2.1\n128x128"}),
        (FIELD, {"description": "Aperio Image Library v11.2.1\nlabel 50x60", "subfiletype": 1}),
        (FIELD, {"description": "Aperio Image Library v11.2.1\nmacro 50x60", "subfiletype": 9}),
    )
    picture = read_picture(path)
    assert np.array_equal(picture.pixels, slide)
    assert picture.microns_per_pixel == 0.499


def test_pages_that_are_no_pyramid_are_rejected_with_their_sizes(tmp_path):
    label = write_pages(tmp_path, (FIELD[:30, :40], {}), (FIELD, {}))
    assert refusal(read_image, label) == (
        f"{label}: has 2 pages of 40 x 30 and 50 x 60 px; save the one that is the field"
    )
    many = write_pages(tmp_path, *[(FIELD, {})] * 5)
    assert "has 5 pages of 50 x 60, 50 x 60, 50 x 60, ... px" in refusal(read_image, many)
    halves = write_pages(tmp_path, (FIELD, {}), (FIELD[::2, ::2], {}))  # nothing says that it is a pyramid
    assert "has 2 pages of 50 x 60 and 25 x 30 px" in refusal(read_image, halves)
    reduced = write_pages(tmp_path, *[(FIELD, {"subfiletype": 1})] * 2)
    assert "has 2 pages" in refusal(read_image, reduced)


def test_a_stack_without_directories_of_its_own_is_rejected(tmp_path):
    written = write(tmp_path, FIELD, photometric="rgb", metadata=None, description="ImageJ=1.54f\nimages=3\nslices=3\n")
    assert "is a stack of several images" in refusal(read_image, written)
    shape = json.dumps({"shape": [3, *FIELD.shape]})
    assert "is a stack" in refusal(read_image, write(tmp_path, FIELD, description=shape, **RGB))
    volume = write(tmp_path, np.stack([FIELD] * 16), volumetric=True, tile=(16, 16, 16), **RGB)
    assert "is a stack" in refusal(read_image, volume)


# What is refused


@pytest.mark.parametrize(
    ("pixels", "settings", "complaint"),
    [
        (np.dstack([FIELD, FIELD[..., 0]]), {"photometric": "separated"}, "is CMYK; convert it to 8-bit RGB"),
        (FIELD, {"photometric": "cielab"}, "is CIELab; convert it to 8-bit RGB"),
        (FIELD, {"photometric": "icclab"}, "is ICCLab; convert it to 8-bit RGB"),
        (FIELD, {"photometric": "ycbcr"}, "is YCbCr; convert it to 8-bit RGB"),
        (FIELD, {"photometric": "ycbcr", "compression": "lzw"}, "is YCbCr; convert it to 8-bit RGB"),
        (FIELD[..., 0], {"photometric": "minisblack"}, "is a grey image"),
        (FIELD[..., 0], {"photometric": "miniswhite"}, "is a grey image"),
        (FIELD[..., :2], {"photometric": "minisblack", "extrasamples": ["unassalpha"]}, "is a grey image"),
        (FIELD[..., 0] > 99, {"photometric": "minisblack"}, "has 1 bit per channel"),
        (FIELD.astype(np.uint16), {"photometric": "rgb"}, "has 16 bits per channel"),
        (FIELD.astype(np.uint16), {"photometric": "rgb", "bitspersample": 12}, "has 12 bits per channel"),
        (FIELD.astype(np.float32), {"photometric": "rgb"}, "has 32 bits per channel"),
        (FIELD.astype(np.int8), {"photometric": "rgb"}, "is RGB as signed numbers"),
        (np.dstack([FIELD, FIELD[..., :2]]), {"photometric": "rgb"}, "has 5 channels"),
        (FIELD, {"photometric": "rgb", "compression": "png"}, "has the compression PNG (34933), which cannot be read"),
    ],
)
def test_what_is_no_8_bit_rgb_is_rejected_by_name(tmp_path, pixels, settings, complaint):
    path = write(tmp_path, pixels, **OTHER | settings)
    message = refusal(read_image, path)
    assert message.startswith(f"{path}: {complaint}")


@pytest.mark.parametrize(("number", "name"), [(6, "OJPEG (6)"), (34661, "JBIG (34661)"), (64999, "number 64999")])
def test_an_unknown_compression_is_named(tmp_path, number, name):
    path = write(tmp_path, FIELD, compression="lzw", **RGB)
    content = bytearray(path.read_bytes())
    place = content.index(b"\x03\x01\x03\0\x01\0\0\0\x05\0")  # the tag Compression, one SHORT, 5
    content[place + 8 : place + 10] = number.to_bytes(2, "little")
    path.write_bytes(content)
    assert f"has the compression {name}, which cannot be read; save it" in refusal(read_image, path)


@pytest.mark.parametrize("orientation", range(10))
def test_only_an_upright_image_is_read(tmp_path, orientation):
    path = write(tmp_path, FIELD, extratags=[(274, 3, 1, orientation, True)], **RGB)
    if 2 <= orientation <= 8:
        assert f"turned or mirrored (orientation {orientation})" in refusal(read_image, path)
        assert "turned" in refusal(read_mask, path, SHAPE)
    else:  # 1 = upright; 0 and 9 have no meaning
        assert np.array_equal(read_image(path), FIELD)


def test_more_than_2_to_the_30_pixels_are_rejected_at_once(tmp_path):
    path = write(tmp_path, FIELD, compression="zlib", **RGB)
    with tifffile.TiffFile(path, mode="r+b") as file:
        for tag in (256, 257):  # width and height
            file.pages.first.tags[tag].overwrite(33000, dtype="I")
    tracemalloc.start()
    started = time.perf_counter()
    assert "has 33000 x 33000 px, more than 2^30 at once; cut it" in refusal(read_image, path)
    assert time.perf_counter() - started < 1 and tracemalloc.get_traced_memory()[1] < 1e7
    tracemalloc.stop()


# Damage


def segments(path: Path) -> list[tuple[int, int]]:
    """Place and length of each strip or tile."""
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        return list(zip(page.dataoffsets, page.databytecounts, strict=True))


@pytest.mark.parametrize("layout", [{"rowsperstrip": 15}, {"tile": (16, 16)}])
@pytest.mark.parametrize("compression", ["zlib", "lzw", "zstd", "packbits", "jpeg2000", "jpegxl", "webp", "jpeg"])
def test_a_damaged_strip_or_tile_is_rejected_by_its_number(tmp_path, compression, layout):
    path = write(tmp_path, FIELD, compression=compression, **RGB, **layout)
    content = bytearray(path.read_bytes())
    place, length = segments(path)[1]
    content[place : place + length] = b"\xff" * length
    path.write_bytes(content)
    part = "tile" if "tile" in layout else "strip"
    assert re.search(rf"truncated or damaged in {part} 2 of \d+; copy it again", refusal(read_image, path))


@pytest.mark.parametrize("compression", ["jpeg", "jpeg2000", "jpegxl", "zlib", "lzw", "zstd", "packbits"])
def test_a_strip_that_ends_too_early_is_rejected(tmp_path, compression):
    path = write(tmp_path, FIELD, compression=compression, rowsperstrip=15, **RGB)
    content = bytearray(path.read_bytes())
    place, length = segments(path)[2]
    content[place + length // 2 : place + length] = bytes(length - length // 2)
    path.write_bytes(content)
    assert "truncated or damaged in strip 3 of 4" in refusal(read_image, path)


def set_segment(path: Path, index: int, *, tag: int, value: int) -> None:
    """Change the place (tag 273) or length (279) of a strip."""
    with tifffile.TiffFile(path, mode="r+b") as file:
        found = file.pages.first.tags[tag]
        values = list(found.value)
        values[index] = value
        found.overwrite(values, dtype=found.dtype)


def test_lzw_that_decodes_to_more_than_its_strip_is_rejected(tmp_path):
    """As many changed bits do; the decoder stops when it has what it needs, and its pixels are noise."""
    path = write(tmp_path, FIELD, compression="lzw", rowsperstrip=15, **RGB)
    longer = imagecodecs.lzw_encode(FIELD[15:31].tobytes())
    end = path.stat().st_size
    with path.open("ab") as file:
        file.write(longer)
    set_segment(path, 1, tag=273, value=end)
    set_segment(path, 1, tag=279, value=len(longer))
    assert "truncated or damaged in strip 2 of 4" in refusal(read_image, path)


def test_lzw_with_reversed_bits_is_read(tmp_path):
    path = tmp_path / "01_01.tif"
    Pillow.fromarray(FIELD).save(path, compression="tiff_lzw", tiffinfo={266: 2})
    with tifffile.TiffFile(path) as file:
        assert file.pages.first.fillorder == 2
    assert (read_image(path) == FIELD).all()


@pytest.mark.parametrize(
    ("tag", "value"),
    [(273, 0), (279, 0), (273, 10**9), (279, 60_000)],  # no place, no content, outside the file, more than there is
)
def test_a_strip_that_is_not_in_the_file_is_rejected(tmp_path, tag, value):
    path = write(tmp_path, FIELD, compression="lzw", rowsperstrip=15, **RGB)
    set_segment(path, 1, tag=tag, value=value)
    assert "truncated or damaged in strip 2 of 4" in refusal(read_image, path)


def test_a_jpeg_tile_that_claims_to_be_enormous_is_not_unpacked(tmp_path):
    path = write(tmp_path, FIELD, compression="jpeg", rowsperstrip=16, **RGB)
    content = bytearray(path.read_bytes())
    place, _ = segments(path)[0]
    frame = content.index(b"\xff\xc0", place)
    content[frame + 5 : frame + 9] = b"\xff\xdc\xff\xdc"  # 65500 x 65500 px, 12 GB
    path.write_bytes(content)
    started = time.perf_counter()
    assert "truncated or damaged in strip 1" in refusal(read_image, path)
    assert time.perf_counter() - started < 1
