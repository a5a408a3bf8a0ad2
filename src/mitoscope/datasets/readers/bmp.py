"""BMP files, decoded by Pillow, which knows every variant of them."""

import struct
from io import SEEK_END
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL.BmpImagePlugin import BmpImageFile

from mitoscope.datasets.readers.pixel_size import METRE, from_resolution
from mitoscope.datasets.readers.stored import DAMAGED, NO_IMAGE, ImageError, Stored, check_size

KIND = "BMP"
STARTS = (b"BM",)
_UNCOMPRESSED, _BIT_FIELDS = 0, 3
_COMPRESSIONS = {4: "JPEG", 5: "PNG"}  # inside a BMP; only printers read these
_OLD_HEADER = 12  # bytes, of OS/2
_HEADERS = (_OLD_HEADER, 40, 52, 56, 64, 108, 124)


def open_image(file: BinaryIO) -> Stored:
    """Read the header of a BMP file, without its pixels.

    Raises:
        ImageError: it is no BMP, too large, or compressed in an unusual way.
    """
    size = file.seek(0, SEEK_END)
    file.seek(0)
    head = file.read(54)
    start, length = struct.unpack_from("<II", head, 10)
    if length not in _HEADERS:  # also a text may begin with BM
        raise ImageError(NO_IMAGE)
    compression, x, y = _UNCOMPRESSED, 0, 0
    if length == _OLD_HEADER:
        width, height, _, bits = struct.unpack_from("<HHHH", head, 18)
    else:
        width, height, _, bits, compression, _, x, y = struct.unpack_from("<iiHHIIii", head, 18)
    upwards, width, height = height > 0, abs(width), abs(height)
    check_size(width, height)  # Pillow would call a file without pixels no image
    if compression in _COMPRESSIONS:
        raise ImageError(f"is a BMP with a {_COMPRESSIONS[compression]} inside; save it as a .png")
    row = (width * bits + 31) // 32 * 4  # bytes
    file.seek(0)
    image = BmpImageFile(file)  # reads the header only
    # The fourth byte of a pixel is alpha where the header says so. Else it should be unused, but many programs write
    # alpha there.
    undeclared = bits == 32 and compression == _UNCOMPRESSED
    alpha = undeclared or image.mode == "RGBA"
    is_grey = image.mode in ("1", "L")

    def decode() -> npt.NDArray[Any]:
        if compression in (_UNCOMPRESSED, _BIT_FIELDS) and start + row * height > size:
            raise ImageError(DAMAGED)
        pixels = np.array(image.convert("RGB") if image.mode == "P" else image)
        if not undeclared:
            return pixels
        file.seek(start)
        fourth = np.frombuffer(file.read(row * height), np.uint8).reshape(height, width, 4)[..., 3]
        if not fourth.any():
            fourth = np.full_like(fourth, 255)
        return np.dstack([pixels, fourth[::-1] if upwards else fourth])

    return Stored(
        width,
        height,
        "grey" if is_grey else "RGB",
        (1 if is_grey else 3) + alpha,
        5 if bits == 16 else 8,
        "straight" if alpha else "none",
        1,
        from_resolution(x, y, METRE),
        decode,
    )
