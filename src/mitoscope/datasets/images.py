"""Image files: fields as RGB pixels, masks as booleans, and a one-line error for a file that cannot be read."""

import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from mitoscope.errors import InputError

IMAGE_SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".bmp")
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

Image = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]


def read_image(path: Path) -> Image:
    """Read a field as (H, W, 3) uint8 RGB.

    Raises:
        InputError: the file is missing, truncated, not an image, not 8 bit or not RGB.
    """
    pixels = _decode(path)
    if pixels.dtype != np.uint8:
        raise InputError(f"{path}: has {8 * pixels.dtype.itemsize} bits per channel; convert it to 8-bit RGB")
    if pixels.ndim == 2 or pixels.shape[2] == 1:
        raise InputError(f"{path}: is a grey image; fields must be 8-bit RGB")
    if pixels.shape[2] != 3:
        raise InputError(f"{path}: has {pixels.shape[2]} channels; convert it to 8-bit RGB")
    return np.ascontiguousarray(pixels[..., ::-1])


def encode_image(image: Image, suffix: str, *, quality: int = 90) -> bytes:
    """Encode an (H, W, 3) uint8 RGB image as the content of a .png or .jpg file; `quality` (0 to 100) is for JPEG.

    Write the result with `Path.write_bytes`: unlike `cv2.imwrite`, it raises an error when the disk is full.
    """
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if suffix == ".jpg" else []
    _, content = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    return content.tobytes()


def read_mask(path: Path, shape: tuple[int, int]) -> Mask:
    """Read a mask as (H, W) bool; every value above 0 is true.

    Raises:
        InputError: the file is missing, truncated, not an image, or not of the field's `shape` (rows, columns).
    """
    pixels = _decode(path)
    if pixels.shape[:2] != shape:
        rows, columns = pixels.shape[:2]
        raise InputError(f"{path}: is {columns} x {rows} px, its field {shape[1]} x {shape[0]} px; make both equal")
    return np.asarray(pixels > 0 if pixels.ndim == 2 else (pixels[..., :3] > 0).any(axis=2), dtype=np.bool_)


def read_candidate_mask(image: Path, shape: tuple[int, int]) -> Mask | None:
    """Read the mask `_cmask.png` of an image, where candidates may lie; None if there is no such file.

    Raises:
        InputError: as in `read_mask`.
    """
    path = image.with_name(f"{image.stem}_cmask.png")
    return read_mask(path, shape) if path.exists() else None


def _decode(path: Path) -> Any:
    """Decode an image file unchanged: any depth, any number of channels, in OpenCV's BGR order."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    # Older OpenCV silently fills the missing part of a truncated JPEG with grey, and libpng writes to the terminal.
    # So check these two formats first; the decoders of the others fail on their own.
    is_jpeg, is_png = content.startswith(b"\xff\xd8"), content.startswith(_PNG_SIGNATURE)
    if (is_jpeg and not _is_whole_jpeg(content)) or (is_png and not _is_whole_png(content)):
        raise InputError(f"{path}: the image is truncated or damaged; copy it again from its source")
    try:
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED) if content else None
    except cv2.error:  # for example, an impossible size in the header
        pixels = None
    if pixels is None:
        raise InputError(f"{path}: is not an image that can be read, or is truncated; copy it again from its source")
    return pixels


def _is_whole_jpeg(content: bytes) -> bool:
    """Whether the last scan has an end marker; a thumbnail in the header has its own markers."""
    return content.rfind(b"\xff\xd9") > content.rfind(b"\xff\xda")


def _is_whole_png(content: bytes) -> bool:
    """Whether every chunk up to the end chunk is present and matches its checksum."""
    position = len(_PNG_SIGNATURE)
    while position + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, position)
        body = content[position + 4 : position + 8 + length]
        if content[position + 8 + length : position + 12 + length] != struct.pack(">I", zlib.crc32(body)):
            return False
        if body.startswith(b"IEND"):
            return True
        position += 12 + length
    return False
