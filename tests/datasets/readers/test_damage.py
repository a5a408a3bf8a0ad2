"""Whatever is changed in a file: it is a field or one printable line, quickly and without a word on the terminal."""

import io
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from mitoscope.datasets.readers import read_mask, read_picture
from mitoscope.errors import InputError
from tests.datasets.conftest import SHAPE, tissue

FIELD = tissue()


def pillow(kind: str, picture: Pillow.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def tiff(**options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, FIELD, photometric="rgb", **options)
    return file.getvalue()


def exif() -> Pillow.Exif:
    block = Pillow.Exif()
    block[274], block[282], block[283], block[296] = 1, 40000.0, 40000.0, 3
    return block


PICTURE = Pillow.fromarray(FIELD)
FILES = {
    "png": pillow("PNG", PICTURE, dpi=(72, 72)),
    "palette png": pillow("PNG", PICTURE.quantize(16), transparency=b"\xff\x00"),
    "jpeg": pillow("JPEG", PICTURE, exif=exif()),
    "several jpegs": pillow("MPO", PICTURE, save_all=True, append_images=[PICTURE]),
    "bmp": pillow("BMP", PICTURE),
    "palette bmp": pillow("BMP", PICTURE.quantize(16)),
    "pillow's tiff": pillow("TIFF", PICTURE, compression="tiff_lzw"),
    "palette tiff": pillow("TIFF", PICTURE.quantize(16)),
    "imagej": tiff(compression="zlib", description="ImageJ=1.54f\nunit=um\n", metadata=None, resolution=(4, 4)),
    "ome": tiff(ome=True, compression="jpeg2000", tile=(32, 32)),
    "bigtiff": tiff(bigtiff=True, compression="packbits", byteorder=">"),
    **{name: tiff(compression=name, rowsperstrip=20) for name in ("jpeg", "zstd", "jpegxl", "webp", "lerc")},
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.slow  # many examples
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_changed_file_is_a_field_or_one_line(tmp_path, capfd, name, data):
    content = bytearray(FILES[name])
    places = st.one_of(st.integers(0, min(300, len(content) - 1)), st.integers(0, len(content) - 1))
    for place, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), max_size=5)):
        content[place] = value
    path = tmp_path / "01_01.tif"
    path.write_bytes(content[: data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))])
    try:
        picture = read_picture(path)
    except InputError as error:
        assert str(error).startswith(f"{path}: ") and str(error).isprintable()
    else:
        assert picture.pixels.dtype == np.uint8 and picture.pixels.ndim == 3 and picture.pixels.shape[2] == 3
        assert picture.opaque is None or picture.opaque.shape == picture.pixels.shape[:2]
    try:
        assert read_mask(path, SHAPE).shape == SHAPE
    except InputError as error:
        assert str(error).isprintable()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "start", [b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM"]
)
@pytest.mark.slow  # many examples
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rest=st.binary(max_size=200))
def test_what_only_begins_like_an_image_is_rejected(tmp_path, start, rest):
    path = tmp_path / "01_01.tif"
    path.write_bytes(start + rest)
    with pytest.raises(InputError) as caught:
        read_picture(path)
    assert str(caught.value).startswith(f"{path}: ") and str(caught.value).isprintable()
