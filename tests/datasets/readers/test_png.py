"""PNG files of every kind: read exactly, or refused by name."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image as Pillow

from mitoscope.datasets.readers import read_image
from tests.datasets.conftest import SHAPE, refusal, tissue, turned

FIELD = tissue()
PICTURE = Pillow.fromarray(FIELD)


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(colour: int, bits: int, rows: bytes, *, interlaced: bool = False, more: bytes = b"") -> bytes:
    """A PNG file of the field's size with these filtered rows."""
    header = struct.pack(">IIBBBBB", SHAPE[1], SHAPE[0], bits, colour, 0, 0, interlaced)
    parts = (chunk(b"IHDR", header), more, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize(
    ("name", "picture", "settings", "complaint"),
    [
        ("grey.png", PICTURE.convert("L"), {}, "is a grey image"),
        ("alpha.png", PICTURE.convert("LA"), {}, "is a grey image"),
        ("bilevel.png", PICTURE.convert("1"), {}, "has 1 bit per channel"),
        ("turned.png", PICTURE, {"exif": turned()}, "is marked as turned or mirrored (orientation 6)"),
        ("film.png", PICTURE, {"save_all": True, "append_images": [PICTURE.rotate(90)]}, "is an animated PNG"),
    ],
)
def test_what_is_no_field_is_rejected_by_name(tmp_path, name, picture, settings, complaint):
    picture.save(tmp_path / name, **settings)
    assert refusal(read_image, tmp_path / name).startswith(f"{tmp_path / name}: {complaint}")


@pytest.mark.parametrize("colours", [2, 4, 16, 200])
def test_a_palette_keeps_its_colours(tmp_path, colours):
    paletted = PICTURE.quantize(colours)
    path = tmp_path / "01_01.png"
    paletted.save(path)
    assert np.array_equal(read_image(path), np.array(paletted.convert("RGB")))


def test_an_interlaced_png_is_read(tmp_path):
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    rows = b"".join(b"\0" + row.tobytes() for top, left, down, right in passes for row in FIELD[top::down, left::right])
    path = tmp_path / "01_01.png"
    path.write_bytes(png(2, 8, rows, interlaced=True))
    assert np.array_equal(read_image(path), FIELD)


@pytest.mark.parametrize(("colour", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_a_png_of_16_bits_is_rejected(tmp_path, colour, channels):
    path = tmp_path / "01_01.png"
    path.write_bytes(png(colour, 16, (b"\0" + bytes(SHAPE[1] * channels * 2)) * SHAPE[0]))
    assert "has 16 bits per channel; convert it to 8-bit RGB" in refusal(read_image, path)


def test_odd_chunks_of_a_png_say_nothing_on_the_terminal(tmp_path, capfd):
    plain = b"".join(b"\0" + row.tobytes() for row in FIELD)
    odd = chunk(b"iCCP", b"x") + chunk(b"gAMA", b"") + chunk(b"eXIf", b"MM") + chunk(b"pHYs", b"1")
    path = tmp_path / "01_01.png"
    path.write_bytes(png(2, 8, plain + b"more than there should be", more=odd))
    assert np.array_equal(read_image(path), FIELD)
    assert capfd.readouterr() == ("", "")


def test_a_png_with_too_few_pixels_is_rejected(tmp_path):
    path = tmp_path / "01_01.png"
    path.write_bytes(png(2, 8, bytes(1000)))
    assert "truncated or damaged" in refusal(read_image, path)


def count_bytes(*, interlaced: bool) -> int:
    """Bytes of all rows of the field, each with one for its filter; from the pixels of each pass."""
    passes = [(0, 8, 0, 8), (0, 8, 4, 8), (4, 8, 0, 4), (0, 4, 2, 4), (2, 4, 0, 2), (0, 2, 1, 2), (1, 2, 0, 1)]
    sizes = [
        (len(range(top, SHAPE[0], down)), len(range(left, SHAPE[1], across)))
        for top, down, left, across in (passes if interlaced else [(0, 1, 0, 1)])
    ]
    return sum(rows * (1 + 3 * columns) for rows, columns in sizes)


@pytest.mark.parametrize("interlaced", [False, True])
def test_an_image_without_all_its_rows_is_rejected(tmp_path, interlaced):
    """All checksums are right, and the pixels end early."""
    path, number = tmp_path / "field.png", count_bytes(interlaced=interlaced)
    path.write_bytes(png(2, 8, bytes(number), interlaced=interlaced))
    assert read_image(path).shape == FIELD.shape
    path.write_bytes(png(2, 8, bytes(number - 1), interlaced=interlaced))
    assert "truncated or damaged" in refusal(read_image, path)


def test_a_field_whose_last_row_is_cut_is_rejected(tmp_path):
    """Its checksums are right, too, and no other row is black."""
    rows = b"".join(b"\0" + row.tobytes() for row in np.maximum(FIELD, 1))
    path = tmp_path / "field.png"
    path.write_bytes(png(2, 8, rows[:-1]))
    assert "truncated or damaged" in refusal(read_image, path)
    path.write_bytes(png(2, 8, rows))
    assert np.array_equal(read_image(path), np.maximum(FIELD, 1))


def test_an_image_that_is_transparent_everywhere_is_rejected(tmp_path):
    Pillow.fromarray(np.dstack([FIELD, np.zeros(SHAPE, np.uint8)])).save(tmp_path / "field.png")
    assert "is transparent everywhere" in refusal(read_image, tmp_path / "field.png")
