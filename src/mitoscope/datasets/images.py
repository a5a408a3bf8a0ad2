"""Images on the disk: fields as RGB pixels, masks as booleans, and one clear line for what cannot be read."""

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
        InputError: the file is missing, no image, truncated, not 8 bit or not RGB.
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
    """Encode an (H, W, 3) uint8 RGB image as the content of a .png or .jpg file; `quality` (0 to 100) is a JPEG's.

    Write it with `Path.write_bytes`: unlike `cv2.imwrite` that says so when the disk is full.
    """
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if suffix == ".jpg" else []
    _, content = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    return content.tobytes()


def read_mask(path: Path, shape: tuple[int, int]) -> Mask:
    """Read a mask as (H, W) bool, where anything above 0 is set.

    Raises:
        InputError: the file is missing, no image, truncated, or not of `shape` (rows, columns), the field's size.
    """
    pixels = _decode(path)
    if pixels.shape[:2] != shape:
        rows, columns = pixels.shape[:2]
        raise InputError(f"{path}: is {columns} x {rows} px, its field {shape[1]} x {shape[0]} px; they must be equal")
    return np.asarray(pixels > 0 if pixels.ndim == 2 else (pixels[..., :3] > 0).any(axis=2), dtype=np.bool_)


def read_candidate_mask(image: Path, shape: tuple[int, int]) -> Mask | None:
    """The mask `_cmask.png` beside an image, where candidates may lie; None where there is none.

    Raises:
        InputError: as `read_mask`.
    """
    path = image.with_name(f"{image.stem}_cmask.png")
    return read_mask(path, shape) if path.exists() else None


def _decode(path: Path) -> Any:
    """Decode an image file as it is: any depth, any number of channels, OpenCV's BGR order."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    # Older OpenCV fills what a JPEG lacks with grey and says nothing, and libpng writes to the terminal: so look
    # first whether those are whole. The other formats' decoders fail by themselves.
    is_jpeg, is_png = content.startswith(b"\xff\xd8"), content.startswith(_PNG_SIGNATURE)
    if (is_jpeg and not _is_whole_jpeg(content)) or (is_png and not _is_whole_png(content)):
        raise InputError(f"{path}: the image is truncated or damaged; copy it again from its source")
    try:
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED) if content else None
    except cv2.error:  # such as a size in the header that no image has
        pixels = None
    if pixels is None:
        raise InputError(f"{path}: is not an image that can be read, or is truncated; copy it again from its source")
    return pixels


def _is_whole_jpeg(content: bytes) -> bool:
    """Whether the last scan is closed by an end mark; a thumbnail in the header has marks of its own."""
    return content.rfind(b"\xff\xd9") > content.rfind(b"\xff\xda")


def _is_whole_png(content: bytes) -> bool:
    """Whether every chunk up to the end mark is there and matches its checksum."""
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
