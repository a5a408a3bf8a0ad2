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

from mitoscope.datasets.readers import Image, ImageError, decode_picture, encode_image, kind_of, open_image
from mitoscope.detection.sent import FIELD, MOST_PIXELS, SentField
from mitoscope.errors import InputError

MICRONS, PATCH = "microns_per_pixel", "patch"
MOST_BYTES = 4 * MOST_PIXELS  # of a file: an uncompressed TIFF with alpha

_COLOURS = {0: "grey", 2: "RGB", 3: "palette", 4: "grey and alpha", 6: "RGBA"}  # PNG's colour types
_PATCH_KIND = "PNG"


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
        field: the field.
        microns_per_pixel: um per pixel as sent; None = not sent.
    """

    row: int
    field: SentField
    microns_per_pixel: float | None

    def decode(self) -> Image:
        """Return the pixels, (H, W, 3) uint8 RGB, read in the same way as by the commands.

        Raises:
            RowRejected: the image is damaged, not 8-bit RGB, or partly transparent: the answer has no place to say so.
        """
        try:
            picture = self.field.decode()
        except InputError as error:
            raise RowRejected(self.row, str(error)) from error
        if picture.opaque is not None:
            raise RowRejected(self.row, f"{FIELD}: has transparent parts; send an 8-bit RGB image")
        return picture.pixels


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
            return FieldRow(row, SentField.read(_from_base64(field, FIELD, "PNG, JPEG or TIFF")), microns)
        if microns is not None:
            raise ValueError(f"{MICRONS} belongs to a {FIELD}; a {PATCH} has the pixels that the detector works on")
        content = _from_base64(patch, PATCH, "PNG")
        _check_patch(content, patch_size)
        return PatchRow(row, content)
    except (InputError, ValueError) as error:
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
