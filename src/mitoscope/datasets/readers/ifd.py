"""Image file directories (IFD): the tags of TIFF files, and of the EXIF part of JPEG and PNG files."""

import struct
from collections.abc import Iterator
from io import SEEK_END, BytesIO
from typing import BinaryIO

from mitoscope.datasets.readers.pixel_size import CENTIMETRE, INCH, from_resolution

ORIENTATION, X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 274, 282, 283, 296
_UNITS = {2: INCH, 3: CENTIMETRE}
# Size in bytes, and the letter for `struct`, of each type of value; a rational is two numbers.
_TYPES = {
    1: (1, "B"),
    2: (1, "B"),
    3: (2, "H"),
    4: (4, "I"),
    5: (8, "II"),
    6: (1, "b"),
    7: (1, "B"),
    8: (2, "h"),
    9: (4, "i"),
    10: (8, "ii"),
    11: (4, "f"),
    12: (8, "d"),
    13: (4, "I"),
    16: (8, "Q"),
    17: (8, "q"),
    18: (8, "Q"),
}
_MOST_ENTRIES = 1 << 19  # of all directories; those of a small file may overlap, and then take hours


class Directory:
    """One directory; its values are read when they are asked for."""

    def __init__(self, file: BinaryIO, order: str, entries: dict[int, tuple[int, int, int]]) -> None:
        self._file = file
        self._order = order
        self._entries = entries  # type, number of values and position in the file, by tag

    def numbers(self, tag: int) -> tuple[float, ...]:
        """Return the values of a tag; empty if it is missing or of no known type. Rationals are divided."""
        kind, count, position = self._entries.get(tag, (0, 0, 0))
        if kind not in _TYPES:
            return ()
        size, letters = _TYPES[kind]
        self._file.seek(position)
        values = struct.unpack(self._order + letters * count, self._file.read(size * count))
        if len(letters) == 1:
            return values
        return tuple(above / below if below else 0.0 for above, below in zip(values[::2], values[1::2], strict=True))

    def number(self, tag: int, default: int = 0) -> int:
        """Return the first value of a tag as a whole number."""
        values = self.numbers(tag)
        return int(values[0]) if values else default

    def content(self, tag: int) -> bytes:
        """Return the bytes of a tag; empty if it is missing."""
        kind, count, position = self._entries.get(tag, (0, 0, 0))
        self._file.seek(position)
        return self._file.read(count) if kind in (1, 2, 7) else b""

    def resolution(self) -> tuple[float, float]:
        """Return the pixels per unit along x and y; 0 if nothing is said."""
        x, y = self.numbers(X_RESOLUTION), self.numbers(Y_RESOLUTION)
        return (x[0], y[0]) if x and y else (0.0, 0.0)

    def microns_per_pixel(self) -> float | None:
        """Return the size of a pixel, um, from the resolution in inches or centimetres, if it is plausible."""
        unit = _UNITS.get(self.number(RESOLUTION_UNIT, 2))
        return from_resolution(*self.resolution(), unit) if unit else None


def read_directories(file: BinaryIO) -> Iterator[Directory]:
    """Read the chain of directories of a TIFF or BigTIFF file.

    Raises:
        ValueError: a directory, or a value of a known type, is outside the file: the file is truncated or damaged.
    """
    size = file.seek(0, SEEK_END)
    order = {b"II": "<", b"MM": ">"}.get(_read(file, 0, 2))
    if order is None:
        raise ValueError("no byte order")
    (version,) = struct.unpack(order + "H", _read(file, 2, 2))
    big = version == 43
    word, entry_size, count_letter = ("Q", 20, "Q") if big else ("I", 12, "H")
    position = 8 if big else 4
    (start,) = struct.unpack(order + word, _read(file, position, struct.calcsize("<" + word)))
    seen: set[int] = set()
    left = _MOST_ENTRIES
    while start:
        if start in seen:
            raise ValueError("directories in a loop")
        seen.add(start)
        length = struct.calcsize("<" + count_letter)
        (number,) = struct.unpack(order + count_letter, _read(file, start, length))
        left -= number + 1
        if left < 0:
            raise ValueError("too many entries")
        table = _read(file, start + length, number * entry_size)
        entries = dict[int, tuple[int, int, int]]()
        for index in range(number):
            tag, kind, count = struct.unpack_from(order + "HH" + word, table, index * entry_size)
            inside = start + length + (index + 1) * entry_size - struct.calcsize("<" + word)
            bytes_of_values = _TYPES.get(kind, (0, ""))[0] * count
            if bytes_of_values > struct.calcsize("<" + word):
                offset = struct.calcsize("<HH" + word)
                (inside,) = struct.unpack_from(order + word, table, index * entry_size + offset)
            if inside + bytes_of_values > size:
                raise ValueError("values outside the file")
            entries.setdefault(tag, (kind, count, inside))
        start_of_next = _read(file, start + length + number * entry_size, struct.calcsize("<" + word))
        yield Directory(file, order, entries)
        (start,) = struct.unpack(order + word, start_of_next)


def read_exif(content: bytes) -> tuple[int, float | None]:
    """Return the orientation (1 = upright) and the size of a pixel (um, if plausible) of an EXIF block.

    Programs ignore a damaged block, and so does this function.
    """
    try:
        first = next(read_directories(BytesIO(content.removeprefix(b"Exif\0\0"))))
        return first.number(ORIENTATION, 1), first.microns_per_pixel()
    except (StopIteration, ValueError, OverflowError, struct.error):
        return 1, None


def _read(file: BinaryIO, position: int, length: int) -> bytes:
    """Read exactly so many bytes.

    Raises:
        ValueError: the file ends before.
    """
    file.seek(position)
    content = file.read(length)
    if len(content) != length:
        raise ValueError("the file ends too early")
    return content
