"""Tables as people write them: with any common separator, decimal commas, quotes, in UTF-8, UTF-16 or Latin-1."""

import codecs
import csv
import math
import re
from dataclasses import dataclass
from pathlib import Path

from mitoscope.errors import InputError
from mitoscope.files import require_regular

_SEPARATORS = (";", "\t", ",")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")  # float() would also take 01_02
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")
_BINARY = re.compile(r"[\x00\x80-\x9f]")  # characters that no text in these encodings has


@dataclass(frozen=True)
class Table:
    """The cells of a text file.

    Attributes:
        separator: what stands between two cells: a comma, a semicolon or a tab.
        decimal: the decimal sign of its numbers, a point or a comma.
        rows: line number and cells of each line that is not blank; cells have no quotes and no blanks around them.
    """

    separator: str
    decimal: str
    rows: list[tuple[int, list[str]]]

    def number(self, cell: str) -> float | None:
        """Return the finite number in a cell, or None if the cell contains anything else."""
        text = cell.replace(",", ".") if self.decimal == "," else cell
        value = float(text) if _NUMBER.fullmatch(text) else math.inf
        return value if math.isfinite(value) else None


def read_table(path: Path) -> Table:
    """Read a table; the separator is the one that every line has.

    Raises:
        InputError: the file is missing or is no text.
    """
    try:
        require_regular(path)
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    lines = _decode(path, content).splitlines()
    filled = [(number, line) for number, line in enumerate(lines, start=1) if line.strip(" \t,;")]
    separator = next((sign for sign in _SEPARATORS if filled and all(sign in line for _, line in filled)), ",")
    try:
        rows = [
            (number, [cell.strip() for cell in next(csv.reader([line], delimiter=separator, skipinitialspace=True))])
            for number, line in filled
        ]
    except csv.Error as error:  # a cell of more than 131,072 characters
        raise InputError(f"{path}: is not a table ({error})") from error
    numbers = [cell for _, cells in rows for cell in cells]
    decimal = "," if separator != "," and any(_DECIMAL_COMMA.fullmatch(cell) for cell in numbers) else "."
    return Table(separator, decimal, rows)


def _decode(path: Path, content: bytes) -> str:
    """Return the text of a file by its byte order mark, as UTF-8, or else as Latin-1, which old spreadsheets write."""
    marked = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if marked else "utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    if _BINARY.search(text):
        raise InputError(f"{path}: is not a text file; save it as CSV in UTF-8")
    return text
