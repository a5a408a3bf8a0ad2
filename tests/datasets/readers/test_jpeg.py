"""JPEG files of every kind: read with the pixels of OpenCV, or refused by name."""

import io
import struct

import cv2
import numpy as np
import pytest
from PIL import Image as Pillow

from mitoscope.datasets.readers import read_image
from tests.datasets.conftest import refusal, tissue, turned

FIELD = tissue()
PICTURE = Pillow.fromarray(FIELD)
GREY_CORNER = (
    "the lower right corner is the grey that decoders put in place of missing data; copy it again, or save it as PNG "
    "if it is whole"
)


@pytest.mark.parametrize(
    ("name", "picture", "settings", "complaint"),
    [
        ("grey.jpg", PICTURE.convert("L"), {}, "is a grey image"),
        ("cmyk.jpg", PICTURE.convert("CMYK"), {}, "is CMYK; convert it to 8-bit RGB"),
        ("turned.jpg", PICTURE, {"exif": turned()}, "is marked as turned or mirrored (orientation 6)"),
        ("two.jpg", PICTURE, {"format": "MPO", "save_all": True, "append_images": [PICTURE]}, "has 2 images"),
    ],
)
def test_what_is_no_field_is_rejected_by_name(tmp_path, name, picture, settings, complaint):
    picture.save(tmp_path / name, **settings)
    assert refusal(read_image, tmp_path / name).startswith(f"{tmp_path / name}: {complaint}")


@pytest.mark.parametrize(
    ("name", "settings"),
    [("progressive.jpg", {"progressive": True}), ("full.jpg", {"subsampling": 0}), ("rgb.jpg", {"keep_rgb": True})],
)
def test_every_jpeg_has_the_pixels_of_opencv(tmp_path, name, settings):
    PICTURE.save(tmp_path / name, quality=95, **settings)
    assert np.array_equal(read_image(tmp_path / name), cv2.imread(str(tmp_path / name))[..., ::-1])


def test_a_jpeg_with_a_large_thumbnail_is_one_image(tmp_path):
    """As some cameras write it: a file of several images, all but the first of which are thumbnails."""
    file = io.BytesIO()
    PICTURE.save(file, "MPO", save_all=True, append_images=[PICTURE])
    content = file.getvalue()
    entry = content.index(struct.pack("<HHI", 0xB002, 7, 32))
    start = content.index(b"MPF\0") + 4 + struct.unpack_from("<I", content, entry + 8)[0]
    second = bytearray(content)
    second[start + 16 : start + 20] = struct.pack("<I", 0x010002)
    path = tmp_path / "01_01.jpg"
    path.write_bytes(second)
    assert read_image(path).shape == FIELD.shape


def test_a_jpeg_of_12_bits_is_rejected(tmp_path):
    file = io.BytesIO()
    PICTURE.save(file, "JPEG")
    content = bytearray(file.getvalue())
    content[content.index(b"\xff\xc0") + 4] = 12
    path = tmp_path / "01_01.jpg"
    path.write_bytes(content)
    assert "has 12 bits per channel" in refusal(read_image, path)


def test_what_follows_the_image_does_not_matter(tmp_path):
    path = tmp_path / "field.jpg"
    PICTURE.save(path)
    whole = path.read_bytes()
    path.write_bytes(whole + b"a camera's own data \xff\xda \xff\xd8")
    assert read_image(path).shape == FIELD.shape
    path.write_bytes(whole[:-2])
    assert "truncated or damaged" in refusal(read_image, path)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("settings", [{}, {"subsampling": 0}, {"restart_marker_blocks": 1}])
def test_a_scan_that_was_cut_and_closed_is_rejected(tmp_path, share, settings):
    """A program that repairs files may put an end marker behind half a scan; decoders then fill in grey."""
    path = tmp_path / "field.jpg"
    PICTURE.save(path, quality=95, **settings)
    whole = path.read_bytes()
    scan = whole.index(b"\xff\xda")
    path.write_bytes(whole[: scan + int(share * (len(whole) - scan))] + b"\xff\xd9")
    assert refusal(read_image, path).endswith(GREY_CORNER)


def test_a_whole_jpeg_with_a_grey_border_is_read_as_png(tmp_path):
    field = FIELD.copy()
    field[-16:] = 128
    picture = Pillow.fromarray(field)
    picture.save(tmp_path / "field.jpg", quality=95)
    assert refusal(read_image, tmp_path / "field.jpg").endswith(GREY_CORNER)
    picture.save(tmp_path / "field.png")
    assert np.array_equal(read_image(tmp_path / "field.png"), field)
