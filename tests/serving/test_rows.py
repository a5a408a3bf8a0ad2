"""A row is a field or a patch; anything else is rejected in one line that names the row, before it can do harm."""

import base64
import time
import tracemalloc
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException

from mitoscope.datasets.readers import read_image
from mitoscope.serving import rows
from mitoscope.serving.rows import FieldRow, PatchRow, RowRejected, encode_patch, read_rows
from tests.serving.conftest import NOISE, SIZE, claiming, text


def part(kind: str, length: int) -> str:
    """The first bytes of an image file."""
    return base64.b64encode(base64.b64decode(text(NOISE, kind))[:length]).decode()


# A header alone, of 16 bits.
DEEP = b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4) + b"IHDR" + bytes([0, 0, 0, SIZE] * 2 + [16, 2])
ALPHA = np.dstack([NOISE, np.where(np.arange(SIZE * SIZE).reshape(SIZE, SIZE) < 100, 100, 255).astype(np.uint8)])
BAD_PATCHES = {
    "another size": (text(NOISE[:20], "PNG"), "32 x 20 px, 8-bit RGB; expected 32 x 32 px, 8-bit RGB, as `mitoscope"),
    "16 bits": (base64.b64encode(DEEP).decode(), "16-bit RGB; expected"),
    "grey": (text(NOISE[..., 0], "PNG"), "8-bit grey; expected"),
    "alpha": (text(ALPHA, "PNG"), "8-bit RGBA; expected"),
    "a transparent colour": (text(NOISE, "PNG", transparency=(1, 2, 3)), "has transparency"),
    "a bomb": (claiming(30000, 30000), "30000 x 30000 px, 8-bit RGB; expected"),
    "a JPEG": (text(NOISE, "JPEG"), "not base64 of a PNG file"),
    "cut off": (part("PNG", 40), "a PNG that is damaged"),
    "the header only": (part("PNG", 20), "not base64 of a PNG"),
    "no base64": ("%%%", "not base64 of a PNG"),
    "no ASCII": ("ä", "not base64 of a PNG"),
    "no text at all": ("", "not base64 of a PNG"),
}
BAD_FIELDS = {
    "grey": (text(NOISE[..., 0], "JPEG"), "field: is a grey image"),
    "transparency": (text(ALPHA, "PNG"), "field: has transparent parts"),
    "16 bits": (text(NOISE[..., 0].astype(np.uint16), "TIFF"), "field: has 16 bits"),
    "a bomb": (claiming(30000, 30000), "field has 30000 x 30000 px, more than 100,000,000 px at once; split the image"),
    "a BMP": (text(NOISE, "BMP"), "not a PNG, JPEG or TIFF file"),
    "cut off": (part("TIFF", 90), "truncated or damaged"),
    "half a JPEG": (part("JPEG", -40), "field: the image is truncated or damaged"),
    "half a header": (part("PNG", 11), "field: the image is truncated or damaged"),
    "no base64": ("%%%", "not base64 of a PNG, JPEG or TIFF file"),
    "no text at all": ("", "not a PNG, JPEG or TIFF file"),
}


def rejection(table: pd.DataFrame) -> str:
    """The line that a table gets."""
    with pytest.raises(RowRejected) as caught:
        for row in read_rows(table, SIZE):
            row.decode()
    line = caught.value.line
    assert "\n" not in line and "/tmp" not in line and "field.png" not in line, line
    return line


def test_a_patch_comes_back_as_it_was():
    (row,) = read_rows(pd.DataFrame({"patch": [encode_patch(NOISE)]}), SIZE)
    assert isinstance(row, PatchRow)
    np.testing.assert_array_equal(row.decode(), NOISE)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_a_field_is_read_as_from_a_file(tmp_path, kind):
    field = text(NOISE[:20], kind)
    (row,) = read_rows(pd.DataFrame({"field": [field], "microns_per_pixel": [0.5]}), SIZE)
    assert isinstance(row, FieldRow)
    assert (row.field.width, row.field.height, row.microns_per_pixel) == (32, 20, 0.5)
    (tmp_path / "01_01").write_bytes(base64.b64decode(field))
    np.testing.assert_array_equal(row.decode(), read_image(tmp_path / "01_01"))


def test_a_field_without_a_pixel_size_has_that_of_its_file():
    field = text(NOISE, "PNG", dpi=(50800, 50800))
    rows_read = read_rows(pd.DataFrame({"field": [field] * 2, "microns_per_pixel": [None, 0.3]}), SIZE)
    sizes = [(row.field.microns_per_pixel, row.microns_per_pixel) for row in rows_read if isinstance(row, FieldRow)]
    assert sizes == [(0.5, None), (0.5, 0.3)]


def test_an_opaque_alpha_channel_of_a_field_is_dropped():
    opaque = np.dstack([NOISE, np.full((SIZE, SIZE), 255, np.uint8)])
    (row,) = read_rows(pd.DataFrame({"field": [text(opaque, "PNG")]}), SIZE)
    np.testing.assert_array_equal(row.decode(), NOISE)


def test_fields_and_patches_mix_in_one_table():
    patch, field = encode_patch(NOISE), text(NOISE, "PNG")
    table = pd.DataFrame(
        [{"patch": patch}, {"field": field}, {"field": field, "microns_per_pixel": 0.3}, {"patch": patch}],
        index=[7, 7, 0, 1],  # a table may bring an index of its own
    )
    read = read_rows(table, SIZE)
    assert [type(row) for row in read] == [PatchRow, FieldRow, FieldRow, PatchRow]
    assert [row.row for row in read] == [0, 1, 2, 3]
    assert [row.microns_per_pixel for row in read if isinstance(row, FieldRow)] == [None, 0.3]


@pytest.mark.parametrize("name", BAD_PATCHES)
def test_what_is_no_patch_is_rejected(name):
    patch, reason = BAD_PATCHES[name]
    line = rejection(pd.DataFrame({"patch": [encode_patch(NOISE), patch]}))
    assert line.startswith("row 1 (the first is 0): patch is ") and reason in line


@pytest.mark.parametrize("name", BAD_FIELDS)
def test_what_is_no_field_is_rejected(name):
    field, reason = BAD_FIELDS[name]
    line = rejection(pd.DataFrame({"field": [text(NOISE, "PNG"), field]}))
    assert line.startswith("row 1 (the first is 0): field") and reason in line


@pytest.mark.parametrize("column", ["field", "patch"])
@pytest.mark.parametrize("value", [5, 0.5, True, ["a"], {"a": "b"}, b"\xff"])
def test_what_is_no_text_is_rejected(column: str, value: Any):
    assert f"row 0 (the first is 0): {column} is not base64" in rejection(pd.DataFrame({column: [value]}))


def test_a_row_has_either_a_field_or_a_patch():
    patch, field = encode_patch(NOISE), text(NOISE, "PNG")
    both = pd.DataFrame({"patch": [patch, patch], "field": [None, field]})
    assert rejection(both) == "row 1 (the first is 0): has both of field and patch; send one of them"
    neither = pd.DataFrame({"patch": [patch, None], "field": [None, np.nan]})
    assert rejection(neither) == "row 1 (the first is 0): has neither of field and patch; send one of them"
    assert "row 0 (the first is 0): microns_per_pixel belongs to a field" in rejection(
        pd.DataFrame({"patch": [patch], "microns_per_pixel": [0.5]})
    )


def test_a_table_without_the_columns_is_rejected_and_one_without_rows_is_not():
    with pytest.raises(MlflowException, match=r"no column field and no column patch") as caught:
        read_rows(pd.DataFrame({"microns_per_pixel": [0.5]}), SIZE)
    assert caught.value.get_http_status_code() == 400
    assert read_rows(pd.DataFrame({"field": []}), SIZE) == []


@pytest.mark.parametrize("column", ["field", "patch"])
def test_a_bomb_is_never_unpacked(column):
    table = pd.DataFrame({column: [claiming(30000, 30000)]})
    tracemalloc.start()
    started = time.perf_counter()
    with pytest.raises(RowRejected):
        read_rows(table, SIZE)
    assert time.perf_counter() - started < 1
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()


def test_a_file_is_measured_before_it_is_unpacked(monkeypatch):
    field = text(NOISE, "TIFF")
    monkeypatch.setattr(rows, "MOST_BYTES", len(base64.b64decode(field)))
    assert len(read_rows(pd.DataFrame({"field": [field]}), SIZE)) == 1
    monkeypatch.setattr(rows, "MOST_BYTES", len(base64.b64decode(field)) - 3)
    for column in ("field", "patch"):
        line = rejection(pd.DataFrame({column: [field]}))
        assert f"{column} is a file of more than" in line and "split the image" in line


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_broken_files_are_rejected_whatever_is_broken(kind):
    whole = np.frombuffer(base64.b64decode(text(NOISE, kind)), np.uint8)
    random = np.random.default_rng(0)
    rejected = 0
    for number in range(200):
        broken = whole.copy()
        places = random.integers(0, min(len(whole), 200 if number % 2 else len(whole)), random.integers(1, 20))
        broken[places] = random.integers(0, 256, len(places))
        for column in ("field", "patch"):
            try:
                (row,) = read_rows(pd.DataFrame({column: [base64.b64encode(broken.tobytes()).decode()]}), SIZE)
                pixels = row.decode()
            except RowRejected as error:  # where only pixels changed and no checksum is looked at, it is an image
                assert "\n" not in error.line and "/tmp" not in error.line
                rejected += 1
            else:
                assert pixels.ndim == 3 and pixels.shape[2] == 3
    assert rejected > 100
