"""JPEG files, decoded by libjpeg-turbo through imagecodecs: the same pixels as OpenCV's, faster (22 against 26 ms)."""

import struct
from collections.abc import Iterator
from io import BytesIO
from typing import Any, BinaryIO

import imagecodecs
import numpy.typing as npt

from mitoscope.datasets.readers.ifd import read_directories, read_exif
from mitoscope.datasets.readers.pixel_size import CENTIMETRE, INCH, from_resolution
from mitoscope.datasets.readers.stored import DAMAGED, SEVERAL, ImageError, Stored

KIND = "JPEG"
STARTS = (b"\xff\xd8\xff",)
_START_OF_FRAME = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_START_OF_SCAN, _END = 0xDA, 0xD9
_BLOCK, _MISSING = 8, 128
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD8)}
_GREY_CORNER = (
    "the lower right corner is the grey that decoders put in place of missing data; copy it again, or save it as PNG "
    "if it is whole"
)
_COLOURS = {1: "grey", 3: "RGB", 4: "CMYK"}
_UNITS = {1: INCH, 2: CENTIMETRE}
_IMAGES = 0xB002  # tag of the list of images in a file with several
_THUMBNAILS = (0x10001, 0x10002)


def open_image(file: BinaryIO) -> Stored:
    """Read the header of a JPEG file, without its pixels.

    Raises:
        ImageError: the header is damaged, or the file has several images.
    """
    frame = None
    orientation, from_exif, from_jfif = 1, None, None
    for marker, content in _segments(file):
        if marker in _START_OF_FRAME and frame is None:
            frame = struct.unpack_from(">BHHB", content)
        elif marker == 0xE0 and content.startswith(b"JFIF\0") and len(content) >= 12:
            unit, x, y = struct.unpack_from(">BHH", content, 7)
            from_jfif = from_resolution(x, y, _UNITS[unit]) if unit in _UNITS else None
        elif marker == 0xE1 and content.startswith(b"Exif\0\0"):
            orientation, from_exif = read_exif(content)
        elif marker == 0xE2 and content.startswith(b"MPF\0") and (number := _count_images(content[4:])) > 1:
            raise ImageError(f"has {number} images; {SEVERAL}")
    if frame is None:
        raise ImageError(DAMAGED)
    bits, height, width, channels = frame
    colours = _COLOURS.get(channels, f"of {channels} channels")
    microns = from_jfif or from_exif
    return Stored(width, height, colours, channels, bits, "none", orientation, microns, lambda: _decode(file))


def is_whole(content: bytes) -> bool:
    """Whether there is an end marker after the header, in which a thumbnail has markers of its own.

    Without it, libjpeg fills the missing part with grey and says nothing.
    """
    stream = BytesIO(content)
    try:
        for _ in _segments(stream):
            pass
    except ImageError:
        return False
    return content.find(b"\xff\xd9", stream.tell()) >= 0


def _segments(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield the marker and the content of each segment before the first scan.

    Raises:
        ImageError: the header is truncated or damaged.
    """
    position = 2
    while True:
        file.seek(position)
        head = file.read(4)
        if len(head) < 4 or head[0] != 0xFF or head[1] in (0x00, _END):
            raise ImageError(DAMAGED)
        if head[1] == _START_OF_SCAN:
            return
        if head[1] == 0xFF or head[1] in _WITHOUT_LENGTH:  # a fill byte, or a marker alone
            position += 1 if head[1] == 0xFF else 2
            continue
        length = struct.unpack(">H", head[2:])[0]
        content = file.read(max(length - 2, 0))
        if length < 2 or len(content) < length - 2:
            raise ImageError(DAMAGED)
        yield head[1], content
        position += 2 + length


def _count_images(index: bytes) -> int:
    """Return the number of images that are no thumbnails, of a multi-picture file."""
    try:
        entries = next(read_directories(BytesIO(index))).content(_IMAGES)
        order = "<" if index.startswith(b"II") else ">"
        kinds = [struct.unpack_from(order + "I", entries, start)[0] & 0xFFFFFF for start in range(0, len(entries), 16)]
    except (StopIteration, ValueError, struct.error):
        return 1
    return sum(kind not in _THUMBNAILS for kind in kinds)


def _decode(file: BinaryIO) -> npt.NDArray[Any]:
    """Decode the pixels.

    Raises:
        ImageError: the image is truncated, or looks like it.
    """
    file.seek(0)
    content = file.read()
    if not is_whole(content):
        raise ImageError(DAMAGED)
    values: npt.NDArray[Any] = imagecodecs.jpeg8_decode(content)
    # libjpeg fills blocks that the scan lacks with the middle grey, and says nothing if there is an end marker.
    if (values[-_BLOCK:, -_BLOCK:] == _MISSING).all():
        raise ImageError(_GREY_CORNER)
    return values
