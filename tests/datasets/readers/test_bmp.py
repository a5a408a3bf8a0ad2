"""BMP files of every kind: read exactly, or refused by name."""

import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from mitoscope.datasets.readers import read_image
from tests.datasets.conftest import refusal, tissue

FIELD = tissue()
PICTURE = Pillow.fromarray(FIELD)


@pytest.mark.parametrize(
    ("name", "picture", "complaint"),
    [
        ("grey.bmp", PICTURE.convert("L"), "is a grey image"),
        ("bilevel.bmp", PICTURE.convert("1"), "is a grey image"),
    ],
)
def test_what_is_no_field_is_rejected_by_name(tmp_path, name, picture, complaint):
    picture.save(tmp_path / name)
    assert refusal(read_image, tmp_path / name).startswith(f"{tmp_path / name}: {complaint}")


@pytest.mark.parametrize("colours", [2, 4, 16, 200])
def test_a_palette_keeps_its_colours(tmp_path, colours):
    paletted = PICTURE.quantize(colours)
    path = tmp_path / "01_01.bmp"
    paletted.save(path)
    assert np.array_equal(read_image(path), np.array(paletted.convert("RGB")))


def bmp(bits: int, compression: int, content: bytes, *, height: int = 2, palette: bytes = b"") -> bytes:
    """A BMP file, 4 px wide."""
    info = struct.pack("<IiiHHIIiiII", 40, 4, height, 1, bits, compression, len(content), 0, 0, len(palette) // 4, 0)
    start = 14 + len(info) + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(content), 0, 0, start) + info + palette + content


RED, BLUE = (255, 0, 0), (0, 0, 255)
PALETTE = bytes([0, 0, 255, 0, 255, 0, 0, 0])  # red, blue, as BGR and an unused byte
ONLY_RED_BELOW = np.array([[BLUE] * 4, [RED] * 4], np.uint8)


@pytest.mark.parametrize(
    "content",
    [
        bmp(8, 1, bytes([4, 0, 0, 0, 4, 1, 0, 1]), palette=PALETTE),  # run lengths, from the bottom
        bmp(4, 2, bytes([4, 0x00, 0, 0, 4, 0x11, 0, 1]), palette=PALETTE),
        bmp(24, 0, bytes([0, 0, 255] * 4 + [255, 0, 0] * 4)),
        bmp(24, 0, bytes([255, 0, 0] * 4 + [0, 0, 255] * 4), height=-2),  # from the top
        bmp(32, 0, bytes([0, 0, 255, 0] * 4 + [255, 0, 0, 0] * 4)),
        bmp(1, 0, bytes([0b0000, 0, 0, 0, 0b11110000, 0, 0, 0]), palette=PALETTE),
    ],
)
def test_every_kind_of_bmp_is_read(tmp_path, content):
    path = tmp_path / "01_01.bmp"
    path.write_bytes(content)
    assert np.array_equal(read_image(path), ONLY_RED_BELOW)
    path.write_bytes(content[:-3])
    assert "truncated" in refusal(read_image, path)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (bmp(16, 0, bytes(16)), "has 5 bits per channel"),
        (bmp(24, 4, b"\xff\xd8\xff"), "is a BMP with a JPEG inside; save it as a .png"),
        (bmp(24, 0, b"", height=0), "has 4 x 0 px; save it again"),
        (bmp(24, 77, bytes(24)), "truncated or damaged"),
    ],
)
def test_other_bmps_are_rejected(tmp_path, content: Any, complaint):
    path = tmp_path / "01_01.bmp"
    path.write_bytes(content)
    assert complaint in refusal(read_image, path)
