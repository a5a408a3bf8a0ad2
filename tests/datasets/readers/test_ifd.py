"""Directories of TIFF files: how much work a file can ask for."""

import struct
from io import BytesIO

import pytest

from mitoscope.datasets.readers import ifd
from mitoscope.datasets.readers.ifd import read_directories


def chain(directories: int, entries: int) -> BytesIO:
    """A TIFF file of so many directories, each with so many empty entries."""
    content, length = b"II*\0" + struct.pack("<I", 8), 2 + 12 * entries + 4
    for number in range(directories):
        following = 8 + (number + 1) * length if number + 1 < directories else 0
        content += struct.pack("<H", entries) + bytes(12 * entries) + struct.pack("<I", following)
    return BytesIO(content)


def test_there_is_a_limit_to_the_entries_of_all_directories(monkeypatch):
    """In a small file directories may overlap, and a thousand of them may have a thousand entries each."""
    monkeypatch.setattr(ifd, "_MOST_ENTRIES", 100)
    assert len(list(read_directories(chain(9, 10)))) == 9
    for file in (chain(10, 10), chain(1, 100), chain(101, 0)):
        with pytest.raises(ValueError, match="too many entries"):
            list(read_directories(file))
