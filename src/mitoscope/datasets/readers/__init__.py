"""Image files: fields as RGB pixels with the size of a pixel, masks as booleans, and one line for what is refused.

A format is a module of this package with `KIND`, `STARTS` and `open_image` as in `Reader`, and is named in `_READERS`.
The content says the format, never the name of the file. Decoding leaves nothing behind, so several threads can read at
once.
"""

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Protocol, TypeVar

import cv2
import numpy as np

from mitoscope.datasets.readers import bmp, jpeg, png, tiff
from mitoscope.datasets.readers.stored import DAMAGED, NO_IMAGE, Image, ImageError, Mask, Picture, Stored
from mitoscope.errors import InputError, printable
from mitoscope.files import require_regular

__all__ = [
    "Image",
    "ImageError",
    "Mask",
    "Picture",
    "Stored",
    "decode_picture",
    "encode_image",
    "kind_of",
    "open_image",
    "read_candidate_mask",
    "read_image",
    "read_mask",
    "read_microns",
    "read_picture",
]


class Reader(Protocol):
    """The interface of a module that reads one format."""

    @property
    def KIND(self) -> str:  # noqa: N802
        """Name of the format."""

    @property
    def STARTS(self) -> tuple[bytes, ...]:  # noqa: N802
        """The first bytes of such files."""

    def open_image(self, file: BinaryIO) -> Stored:
        """Read the header; the file must stay open until the pixels are decoded. May raise anything on damage."""


_READERS: tuple[Reader, ...] = (tiff, png, jpeg, bmp)
# Formats that are rejected by their names: place of a mark in the first bytes, the mark, the name.
_NOT_READ = (
    (0, b"GIF8", "GIF"),
    (8, b"WEBP", "WebP"),
    (4, b"jP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (4, b"JXL ", "JPEG XL"),
    (0, b"\xff\x0a", "JPEG XL"),
    (4, b"ftypavif", "AVIF"),
    (4, b"ftyphei", "HEIC"),
    (0, b"%PDF", "PDF"),
)
_Result = TypeVar("_Result")


def read_picture(path: Path) -> Picture:
    """Read a field, with its transparency and with the size of a pixel as the file says.

    Raises:
        InputError: the file is missing, truncated, damaged, no image, not 8-bit RGB, or has several pages.
    """
    return _read(path, lambda file: decode_picture(open_image(file)))


def read_image(path: Path) -> Image:
    """Read the pixels of a field, (H, W, 3) uint8 RGB; transparent ones are white.

    Raises:
        InputError: as in `read_picture`.
    """
    return read_picture(path).pixels


def read_microns(path: Path) -> float | None:
    """Return the size of a pixel that an image file gives, um, from its header alone; None if it gives none.

    Raises:
        InputError: the file is missing or no image.
    """
    return _read(path, lambda file: open_image(file).microns_per_pixel)


def read_mask(path: Path, shape: tuple[int, int]) -> Mask:
    """Read a mask as (H, W) bool; every value above 0 is true.

    Raises:
        InputError: the file is missing, truncated, not an image, or not of the field's `shape` (rows, columns).
    """

    def decode(file: BinaryIO) -> Mask:
        stored = open_image(file)
        if (stored.height, stored.width) != shape:
            ours, fields = f"{stored.width} x {stored.height} px", f"{shape[1]} x {shape[0]} px"
            raise ImageError(f"is {ours}, its field {fields}; make both equal")
        values = _guard(stored.values, DAMAGED)
        return np.asarray(values > 0 if values.ndim == 2 else (values > 0).any(axis=2), dtype=np.bool_)

    return _read(path, decode)


def read_candidate_mask(image: Path, shape: tuple[int, int]) -> Mask | None:
    """Read the mask `_cmask.png` of an image, where candidates may lie; None if there is no such file.

    Raises:
        InputError: as in `read_mask`.
    """
    path = image.with_name(f"{image.stem}_cmask.png")
    return read_mask(path, shape) if path.exists() else None


def encode_image(image: Image, suffix: str, *, quality: int = 90) -> bytes:
    """Encode an (H, W, 3) uint8 RGB image as the content of a .png or .jpg file; `quality` (0 to 100) is for JPEG.

    Write the result with `Path.write_bytes`: unlike `cv2.imwrite`, it raises an error when the disk is full.
    """
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if suffix == ".jpg" else []
    _, content = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    return content.tobytes()


def open_image(file: BinaryIO) -> Stored:
    """Read the header of an image file, which must stay open until its pixels are decoded.

    Raises:
        ImageError: it is no image, or its header is damaged.
    """
    file.seek(0)
    start = file.read(12)
    reader = _find(start)
    if reader is None:
        other = next((name for place, mark, name in _NOT_READ if start[place:].startswith(mark)), None)
        raise ImageError(f"is {other}, which is not read; convert it to 8-bit RGB TIFF or PNG" if other else NO_IMAGE)
    return _guard(lambda: reader.open_image(file), DAMAGED)


def kind_of(content: bytes) -> str | None:
    """Return the format that the first bytes of a file name: PNG, JPEG, TIFF or BMP; None if they name none."""
    reader = _find(content)
    return reader.KIND if reader else None


def _find(content: bytes) -> Reader | None:
    return next((reader for reader in _READERS if content.startswith(reader.STARTS)), None)


def decode_picture(stored: Stored) -> Picture:
    """Decode a field.

    Raises:
        ImageError: it is damaged, not 8-bit RGB, turned, or too large.
    """
    return _guard(stored.picture, DAMAGED)


def _guard(function: Callable[[], _Result], reason: str) -> _Result:
    """Call a function of a reader; whatever it raises on a damaged file becomes `reason`.

    Raises:
        ImageError: the reason.
        OSError: the disk or the network cannot be read.
    """
    try:
        return function()
    except ImageError:
        raise
    except MemoryError as error:
        raise ImageError("needs more memory than there is; cut it into smaller fields") from error
    except Exception as error:  # decoders raise whatever fits
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ImageError(reason) from error


def _read(path: Path, decode: Callable[[BinaryIO], _Result]) -> _Result:
    """Open a file and decode it.

    Raises:
        InputError: the file cannot be read, or is rejected.
    """
    name = printable(str(path))
    try:
        require_regular(path)
        with path.open("rb") as file:
            return decode(file)
    except (OSError, ValueError) as error:
        if isinstance(error, ImageError):
            raise InputError(f"{name}: {error}") from error
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InputError(f"{name}: cannot be read ({reason})") from error
