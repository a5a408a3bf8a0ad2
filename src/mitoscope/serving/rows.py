"""Read fields and patches from a table of base64 text; the size in an image's header is checked before decoding."""

import base64
import binascii
import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

from mitoscope.datasets.readers import Image, ImageError, Stored, decode_picture, encode_image, kind_of, open_image

FIELD, MICRONS, PATCH = "field", "microns_per_pixel", "patch"
MOST_PIXELS = 100_000_000  # of a field, as sent and as enlarged by the detector; 6 mm2 at 0.25 um per pixel
MOST_BYTES = 4 * MOST_PIXELS  # of a file: an uncompressed TIFF with alpha

_COLOURS = {0: "grey", 2: "RGB", 3: "palette", 4: "grey and alpha", 6: "RGBA"}  # PNG's colour types
_FIELD_KINDS, _PATCH_KIND = ("PNG", "JPEG", "TIFF"), "PNG"


class RowRejected(MlflowException):
    """A row that cannot be answered; the server returns status 400 with this one line."""

    def __init__(self, row: int, reason: str) -> None:
        line = f"row {row} (the first is 0): {reason}"
        super().__init__(line, INVALID_PARAMETER_VALUE)
        self.line = line

    def serialize_as_json(self) -> str:
        """Return the response body, without the whole table, which MLflow's server puts before the message."""
        return json.dumps({"error_code": self.error_code, "message": self.line})


@dataclass(frozen=True)
class FieldRow:
    """A row with a field.

    Attributes:
        row: row number, from 0.
        content: content of the image file.
        width: px, from the file's header.
        height: px, from the file's header.
        microns_per_pixel: um per pixel as sent, or else as the file says; None = neither says it.
    """

    row: int
    content: bytes
    width: int
    height: int
    microns_per_pixel: float | None

    def decode(self) -> Image:
        """Return the pixels, (H, W, 3) uint8 RGB, read in the same way as by the commands.

        Raises:
            RowRejected: the image is damaged, not 8-bit RGB, or partly transparent: the answer has no place to say so.
        """
        try:
            picture = decode_picture(open_image(BytesIO(self.content)))
            if picture.opaque is not None:
                raise ImageError("has transparent parts; send an 8-bit RGB image")
            return picture.pixels
        except ImageError as error:
            raise RowRejected(self.row, f"{FIELD}: {error}") from error


@dataclass(frozen=True)
class PatchRow:
    """A row with a patch.

    Attributes:
        row: row number, from 0.
        content: content of the PNG file; its header has been checked.
    """

    row: int
    content: bytes

    def decode(self) -> Image:
        """Return the pixels, (P, P, 3) uint8 RGB.

        Raises:
            RowRejected: the PNG is damaged or has a transparent colour.
        """
        try:
            stored = open_image(BytesIO(self.content))
            if stored.alpha != "none":
                raise ImageError("has transparency")
            return decode_picture(stored).pixels
        except ImageError as error:
            reason = f"{PATCH} is a PNG that is damaged or has transparency; send an 8-bit RGB PNG"
            raise RowRejected(self.row, reason) from error


class Patches(Sequence[Image]):
    """Patches that are decoded on access, so that few are in memory at once however long the table is."""

    def __init__(self, rows: Sequence[PatchRow]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, record):  # type: ignore[no-untyped-def]
        """Return patch number `record`, (P, P, 3) uint8 RGB."""
        return self._rows[record].decode()


def encode_patch(patch: Image) -> str:
    """Encode a (P, P, 3) uint8 RGB patch for the column `patch`."""
    return base64.b64encode(encode_image(patch, ".png")).decode()


def read_rows(table: pd.DataFrame, patch_size: int) -> list[FieldRow | PatchRow]:
    """Read and check all rows of a table, without decoding their images.

    Args:
        table: has a column `field` (base64 of a PNG, JPEG or TIFF file), optionally with `microns_per_pixel`, or a
            column `patch` (base64 of a PNG file), or both; a row leaves unused columns empty.
        patch_size: side of a patch, px.

    Raises:
        MlflowException: the table has neither column; the server returns status 400.
        RowRejected: a row has neither or both, or its image cannot be used.
    """
    if FIELD not in table and PATCH not in table:
        raise MlflowException(
            f"the table has no column {FIELD} and no column {PATCH}; send one of them", INVALID_PARAMETER_VALUE
        )
    columns = [table[name].tolist() if name in table else [None] * len(table) for name in (FIELD, MICRONS, PATCH)]
    return [
        _read_row(row, *(None if _is_empty(value) else value for value in values), patch_size=patch_size)
        for row, values in enumerate(zip(*columns, strict=True))
    ]


def _read_row(row: int, field: Any, microns: float | None, patch: Any, *, patch_size: int) -> FieldRow | PatchRow:
    """Read one row; empty cells are None."""
    if (field is None) == (patch is None):
        has = "neither" if field is None else "both"
        raise RowRejected(row, f"has {has} of {FIELD} and {PATCH}; send one of them")
    try:
        if field is not None:
            content = _from_base64(field, FIELD, "PNG, JPEG or TIFF")
            header = _read_header(content)
            size = header.microns_per_pixel if microns is None else microns
            return FieldRow(row, content, header.width, header.height, size)
        if microns is not None:
            raise ValueError(f"{MICRONS} belongs to a {FIELD}; a {PATCH} has the pixels that the detector works on")
        content = _from_base64(patch, PATCH, "PNG")
        _check_patch(content, patch_size)
        return PatchRow(row, content)
    except ValueError as error:
        raise RowRejected(row, str(error)) from error


def _is_empty(value: Any) -> bool:
    return bool(pd.api.types.is_scalar(value) and pd.isna(value))


def _from_base64(text: Any, column: str, formats: str) -> bytes:
    """Decode the base64 text of a file.

    Raises:
        ValueError: the text is not base64, or too long.
    """
    if isinstance(text, str) and len(text) > (MOST_BYTES + 2) // 3 * 4:
        raise ValueError(f"{column} is a file of more than {MOST_BYTES:,} bytes; split the image")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise ValueError(f"{column} is not base64 of a {formats} file") from error


def _read_header(content: bytes) -> Stored:
    """Return the header of a field's image file.

    Raises:
        ValueError: it is not a PNG, JPEG or TIFF file, or its header is damaged or gives too many pixels.
    """
    if kind_of(content) not in _FIELD_KINDS:
        raise ValueError(f"{FIELD} is not base64 of a PNG, JPEG or TIFF file")
    try:
        header = open_image(BytesIO(content))
    except ImageError as error:
        raise ValueError(f"{FIELD}: {error}") from error
    check_size(header.width, header.height, 1)
    return header


def check_size(width: int, height: int, scale: float) -> None:
    """Check that an image is not too large for memory.

    Raises:
        ValueError: it has more than `MOST_PIXELS` as it is, or resized by `scale`.
    """
    if width * height * max(scale, 1) ** 2 > MOST_PIXELS:
        enlarged = f", which the detector enlarges {scale:.3g} times" if scale > 1 else ""
        raise ValueError(
            f"{FIELD} has {width} x {height} px{enlarged}, more than {MOST_PIXELS:,} px at once; split the image"
        )


def _check_patch(content: bytes, patch_size: int) -> None:
    """Check the header of a patch's PNG file.

    Raises:
        ValueError: it is not a PNG, or not an 8-bit RGB image of patch_size x patch_size px.
    """
    if kind_of(content) != _PATCH_KIND or len(content) < 26 or content[12:16] != b"IHDR":
        raise ValueError(f"{PATCH} is not base64 of a PNG file")
    width, height, bits, colour = struct.unpack(">IIBB", content[16:26])
    if (width, height, bits, colour) != (patch_size, patch_size, 8, 2):
        found = f"{width} x {height} px, {bits}-bit {_COLOURS.get(colour, 'unknown')}"
        raise ValueError(
            f"{PATCH} is a PNG of {found}; expected {patch_size} x {patch_size} px, 8-bit RGB, as "
            "`mitoscope export-patches` writes them"
        )
