"""PNG files, decoded by Pillow: the same pixels as OpenCV's, about as fast (100 against 91 ms for 2084 x 2084 px).

libpng, which OpenCV and imagecodecs use, is as fast or faster, but writes to the terminal what it thinks of a file.
"""

import struct
import zlib
from io import SEEK_END, BytesIO
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL.PngImagePlugin import PngImageFile

from mitoscope.datasets.readers.ifd import read_exif
from mitoscope.datasets.readers.pixel_size import METRE, from_resolution
from mitoscope.datasets.readers.stored import DAMAGED, SEVERAL, ImageError, Stored

KIND = "PNG"
STARTS = (b"\x89PNG\r\n\x1a\n",)
_SIGNATURE = len(STARTS[0])
# Colours and channels by colour type. A palette (3) is decoded to RGB.
_COLOURS = {0: ("grey", 1), 2: ("RGB", 3), 3: ("RGB", 3), 4: ("grey", 2), 6: ("RGB", 4)}
_READ = (b"IHDR", b"pHYs", b"tRNS", b"acTL", b"eXIf")
# First column, first row and steps of the seven passes of an interlaced image.
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_DECODED = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")


def open_image(file: BinaryIO) -> Stored:
    """Read the header of a PNG file, without its pixels.

    Raises:
        ImageError: the file is truncated, or an animation.
    """
    chunks = _read_chunks(file)
    if b"IHDR" not in chunks or len(chunks[b"IHDR"]) != 13:
        raise ImageError(DAMAGED)
    width, height, bits, colour_type = struct.unpack_from(">IIBB", chunks[b"IHDR"])
    if colour_type not in _COLOURS:
        raise ImageError(DAMAGED)
    if bits == 16 and colour_type != 0:  # Pillow would cut the values to 8 bits
        raise ImageError("has 16 bits per channel; convert it to 8-bit RGB")
    if b"acTL" in chunks:
        raise ImageError(f"is an animated PNG; {SEVERAL}")
    colours, channels = _COLOURS[colour_type]
    alpha = colour_type in (4, 6)
    if b"tRNS" in chunks and not alpha:  # a transparent colour, or a palette with transparency
        alpha, channels = True, channels + 1
    orientation, microns = read_exif(chunks[b"eXIf"]) if b"eXIf" in chunks else (1, None)
    if len(physical := chunks.get(b"pHYs", b"")) == 9 and physical[8] == 1:  # pixels per metre
        x, y = struct.unpack_from(">II", physical)
        microns = from_resolution(x, y, METRE) or microns
    return Stored(
        width,
        height,
        colours,
        channels,
        8 if colour_type == 3 else bits,
        "straight" if alpha else "none",
        orientation,
        microns,
        lambda: _decode(file),
    )


def _read_chunks(file: BinaryIO) -> dict[bytes, bytes]:
    """Return the chunks that matter here, and skip the pixels.

    Raises:
        ImageError: the file ends before its end chunk.
    """
    size = file.seek(0, SEEK_END)
    position, chunks = _SIGNATURE, dict[bytes, bytes]()
    while position + 12 <= size:
        file.seek(position)
        length, name = struct.unpack(">I4s", file.read(8))
        if position + 12 + length > size:
            break
        if name == b"IEND":
            return chunks
        if name in _READ:
            chunks.setdefault(name, file.read(length))
        position += 12 + length
    raise ImageError(DAMAGED)


def _decode(file: BinaryIO) -> npt.NDArray[Any]:
    """Decode the pixels.

    Raises:
        ImageError: a checksum is wrong, or rows are missing, which Pillow would leave black.
    """
    file.seek(0)
    content = memoryview(file.read())
    parts, position, name = [content[:_SIGNATURE]], _SIGNATURE, b""
    while name != b"IEND":
        length, name = struct.unpack_from(">I4s", content, position)
        end = position + 12 + length
        if zlib.crc32(content[position + 4 : end - 4]).to_bytes(4, "big") != content[end - 4 : end]:
            raise ImageError(DAMAGED)
        if name in _DECODED:
            parts.append(content[position:end])
        position = end
    with PngImageFile(BytesIO(b"".join(parts))) as image:
        values = np.array(image)
        # Counting inflates all pixels again. Only an image whose last row is black can lack rows, or an interlaced one.
        may_lack_rows = "interlace" in image.info or not values[-1].any()
        if may_lack_rows and _count_values(parts) < _expected(parts):
            raise ImageError(DAMAGED)
        if image.mode == "P" or "transparency" in image.info:
            return np.array(image.convert("RGBA" if "transparency" in image.info else "RGB"))
        return values


def _count_values(chunks: list[memoryview]) -> int:
    """Return the number of bytes that the pixel chunks hold, once inflated."""
    inflate = zlib.decompressobj()
    return sum(len(inflate.decompress(chunk[8:-4])) for chunk in chunks if bytes(chunk[4:8]) == b"IDAT")


def _expected(chunks: list[memoryview]) -> int:
    """Return the number of bytes that the header asks for: a row of each pass begins with one for its filter."""
    width, height, bits, colour_type, *_, interlaced = struct.unpack_from(">IIBBBBB", chunks[1], 8)
    pixel = bits * (1 if colour_type == 3 else _COLOURS[colour_type][1])
    total = 0
    for left, top, across, down in _PASSES if interlaced else ((0, 0, 1, 1),):
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        total += rows * (1 + (columns * pixel + 7) // 8) if columns > 0 and rows > 0 else 0
    return total
