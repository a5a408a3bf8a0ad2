"""Any image file: it reads back as it was written, or is refused in one line that names the file."""

import io
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image as Pillow

from mitoscope.datasets.readers import read_image, read_mask
from mitoscope.errors import InputError
from tests.datasets.conftest import COLUMNS, ROWS, SHAPE, encode, refusal, tissue


def pillow(kind: str, pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Pillow.fromarray(pixels).save(file, kind)
    return file.getvalue()


ENCODED = {
    "uncompressed.tif": encode(".tif", tissue(), cv2.IMWRITE_TIFF_COMPRESSION, 1),
    "directory-first.tif": pillow("TIFF", tissue()),  # cutting its end cuts pixels, not the directory
    "lzw.tif": encode(".tif", tissue(), cv2.IMWRITE_TIFF_COMPRESSION, 5),
    "deflate.tiff": encode(".tif", tissue(), cv2.IMWRITE_TIFF_COMPRESSION, 8),
    "plain.png": encode(".png", tissue()),
    "baseline.jpg": encode(".jpg", tissue()),
    "progressive.jpeg": encode(".jpg", tissue(), cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "plain.bmp": encode(".bmp", tissue()),
}


@pytest.mark.parametrize("name", ENCODED)
def test_the_pixels_are_those_of_opencv(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(ENCODED[name])
    assert np.array_equal(read_image(path), cv2.imdecode(np.frombuffer(ENCODED[name], np.uint8), 1)[..., ::-1])


def test_the_content_says_the_format_not_the_name(tmp_path):
    path = tmp_path / "01_01.tif"
    path.write_bytes(ENCODED["plain.png"])
    assert np.array_equal(read_image(path), tissue()[..., ::-1])


def test_several_threads_read_at_once(tmp_path):
    for name, content in ENCODED.items():
        (tmp_path / name).write_bytes(content)
    paths = [tmp_path / name for name in ENCODED] * 20
    with ThreadPoolExecutor(4) as threads:
        for path, image in zip(paths, threads.map(read_image, paths), strict=True):
            assert np.array_equal(image, read_image(path))


STARTS_ONLY = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"MM\0+", b"II*\0\x08\0\0\0")


@pytest.mark.parametrize("suffix", [".tif", ".tiff", ".png", ".bmp", ".jpg", ".jpeg"])
def test_red_stays_red_in_every_format(tmp_path, suffix):
    path = tmp_path / f"01_01{suffix}"
    red_in_opencv = np.full((ROWS, COLUMNS, 3), (10, 20, 200), np.uint8)
    path.write_bytes(encode(suffix, red_in_opencv))
    image = read_image(path)
    assert image.shape == (ROWS, COLUMNS, 3) and image.dtype == np.uint8
    assert np.allclose(image, (200, 20, 10), atol=3)


@pytest.mark.parametrize("name", ENCODED)
@pytest.mark.parametrize("cut", [-1, -2, -5, -13, -100, 0.9, 0.5, 0.1, 20, 9, 3])
def test_a_truncated_image_is_rejected_wherever_it_ends(tmp_path, name, cut):
    path = tmp_path / name
    content = ENCODED[name]
    path.write_bytes(content)
    assert read_image(path).shape == (ROWS, COLUMNS, 3)
    path.write_bytes(content[: int(cut * len(content)) if isinstance(cut, float) else cut])
    message = refusal(read_image, path)
    assert message.startswith(f"{path}: ") and "truncated" in message and "copy it again" in message


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"\x00" * 500, b"%PDF-1.7\n", b"\xff\xd8", b"BMW is a car", b"II*\0", *STARTS_ONLY]
)
def test_what_is_no_image_is_rejected(tmp_path, content):
    path = tmp_path / "01_01.tif"
    path.write_bytes(content)
    assert str(path) in refusal(read_image, path)


def test_a_missing_image_and_a_folder_in_its_place_are_rejected(tmp_path):
    assert "No such file" in refusal(read_image, tmp_path / "01_01.tif")
    (tmp_path / "01_02.tif").mkdir()
    assert "cannot be read" in refusal(read_image, tmp_path / "01_02.tif")


def test_what_is_no_file_is_rejected_and_never_waited_for(tmp_path, monkeypatch):
    pipe, loop, plug = tmp_path / "pipe.png", tmp_path / "loop.png", tmp_path / "plug.png"
    os.mkfifo(pipe)
    loop.symlink_to(loop)
    with socket.socket(socket.AF_UNIX) as listener:
        monkeypatch.chdir(tmp_path)  # the name of a socket must be short
        listener.bind("plug.png")
        for path in (pipe, plug, Path("/dev/zero")):
            assert refusal(read_image, path).startswith(f"{path}: is a pipe, a socket or a device")
    assert "Too many levels of symbolic links" in refusal(read_image, loop)
    assert "cannot be read" in refusal(read_image, Path("01\0_01.png"))


def test_a_link_to_an_image_is_read(tmp_path):
    (tmp_path / "image").write_bytes(ENCODED["plain.png"])
    (tmp_path / "01_01.png").symlink_to("image")
    assert np.array_equal(read_image(tmp_path / "01_01.png"), tissue()[..., ::-1])


@pytest.mark.parametrize("name", ["01\n01.png", "01\x1b[31m.png", "01\u202e.png", os.fsdecode(b"01\xff.png")])
def test_a_name_with_control_characters_gives_one_printable_line(tmp_path, name):
    (tmp_path / name).write_bytes(b"no image")
    message = refusal(read_image, tmp_path / name)
    assert message.isprintable() and message.startswith(f"{tmp_path}/01\\")


def test_the_end_mark_of_a_thumbnail_is_not_that_of_the_image(tmp_path):
    image, thumbnail = ENCODED["baseline.jpg"], encode(".jpg", tissue()[:8, :8])
    header = b"\xff\xe1" + (2 + len(thumbnail)).to_bytes(2, "big") + thumbnail
    path = tmp_path / "01_01.jpg"
    path.write_bytes(image[:2] + header + image[2:])
    assert np.array_equal(read_image(path), cv2.imdecode(np.frombuffer(image, np.uint8), 1)[..., ::-1])
    path.write_bytes(image[:2] + header + image[2:-50])
    assert "truncated" in refusal(read_image, path)


def test_a_png_with_a_flipped_bit_is_rejected(tmp_path):
    content = bytearray(ENCODED["plain.png"])
    content[len(content) // 2] ^= 1
    path = tmp_path / "01_01.png"
    path.write_bytes(content)
    assert "damaged" in refusal(read_image, path)


def test_a_header_of_absurd_size_is_rejected(tmp_path):
    content = bytearray(ENCODED["plain.bmp"])
    content[18:26] = (2**30).to_bytes(4, "little") * 2  # width and height
    path = tmp_path / "01_01.bmp"
    path.write_bytes(content)
    assert "has 1073741824 x 1073741824 px, more than 2^30 at once" in refusal(read_image, path)


@pytest.mark.parametrize(
    ("pixels", "complaint"),
    [
        (np.zeros((9, 8), np.uint8), "grey image"),
        (np.zeros((9, 8, 3), np.uint16), "16 bits per channel"),
        (np.zeros((9, 8), np.uint16), "16 bits per channel"),
    ],
)
@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_only_8_bit_rgb_is_a_field(tmp_path, pixels, complaint, suffix):
    path = tmp_path / f"01_01{suffix}"
    path.write_bytes(encode(suffix, pixels))
    message = refusal(read_image, path)
    assert message.startswith(f"{path}: ") and complaint in message and "8-bit RGB" in message


def test_rejecting_images_writes_nothing_to_the_terminal(tmp_path, capfd):
    """OpenCV, libpng, libjpeg and libtiff like to complain there by themselves."""
    paths = []
    for name, content in ENCODED.items():
        for part in (2, 3, 7):
            end = len(content) // part
            paths.append(tmp_path / f"{part}-cut-{name}")
            paths[-1].write_bytes(content[:end])
            if not name.endswith(("jpg", "jpeg")):  # JPEG has no checksum: what is damaged inside is just other pixels
                paths.append(tmp_path / f"{part}-damaged-{name}")
                paths[-1].write_bytes(content[:end] + b"\xa5" * 40 + content[end + 40 :])
    refused = 0
    for path in paths:
        try:
            read_image(path)
        except InputError:
            refused += 1
    assert refused > 3 * len(ENCODED)  # all that were cut, and some whose damage can be known
    assert capfd.readouterr() == ("", "")


# Masks


def test_a_mask_is_set_where_anything_is_above_zero(tmp_path):
    path = tmp_path / "01_01_cmask.png"
    wanted = np.zeros(SHAPE, bool)
    wanted[3:9, 4:20] = True
    for pixels in (wanted.astype(np.uint8), wanted * np.uint8(255), np.dstack([wanted * np.uint8(7)] * 3)):
        path.write_bytes(encode(".png", pixels))
        assert np.array_equal(read_mask(path, SHAPE), wanted)
    bilevel = encode(".png", wanted * np.uint8(255), cv2.IMWRITE_PNG_BILEVEL, 1)  # as Janowczyk's are
    path.write_bytes(bilevel)
    assert np.array_equal(read_mask(path, SHAPE), wanted)


def test_the_alpha_channel_of_a_mask_sets_nothing(tmp_path):
    path = tmp_path / "01_01_cmask.png"
    opaque_black = np.zeros((*SHAPE, 4), np.uint8)
    opaque_black[..., 3] = 255
    path.write_bytes(encode(".png", opaque_black))
    assert not read_mask(path, SHAPE).any()


def test_a_mask_may_have_16_bits(tmp_path):
    path = tmp_path / "01_01_cmask.png"
    wanted = np.zeros(SHAPE, bool)
    wanted[3:9, 4:20] = True
    path.write_bytes(encode(".png", wanted.astype(np.uint16)))
    assert np.array_equal(read_mask(path, SHAPE), wanted)


def test_a_damaged_mask_is_rejected(tmp_path):
    path = tmp_path / "01_01_cmask.png"
    path.write_bytes(encode(".png", np.zeros(SHAPE, np.uint8))[:-20])
    assert "truncated or damaged" in refusal(read_mask, path, SHAPE)


def test_a_mask_of_another_size_is_rejected(tmp_path):
    path = tmp_path / "01_01_cmask.png"
    path.write_bytes(encode(".png", np.zeros((COLUMNS, ROWS), np.uint8)))
    message = refusal(read_mask, path, SHAPE)
    assert message.startswith(f"{path}: ") and "60 x 50 px" in message and "50 x 60 px" in message


@pytest.mark.parametrize(
    ("kind", "name"), [("WEBP", "WebP"), ("GIF", "GIF"), ("JPEG2000", "JPEG 2000"), ("AVIF", "AVIF")]
)
def test_other_formats_are_rejected_by_their_name(tmp_path, kind, name):
    path = tmp_path / "01_01.png"  # whatever the suffix says
    path.write_bytes(pillow(kind, tissue()))
    assert refusal(read_image, path).endswith(f"is {name}, which is not read; convert it to 8-bit RGB TIFF or PNG")


def test_a_bilevel_mask_in_lzw_is_read(tmp_path):
    path = tmp_path / "01_01_cmask.tif"
    mask = tissue()[..., 0] > 128
    Pillow.fromarray(mask).save(path, compression="tiff_lzw")
    assert (read_mask(path, mask.shape) == mask).all()
