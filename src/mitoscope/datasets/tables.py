"""Tables as people write them: with any common separator, decimal commas, quotes, in UTF-8, UTF-16 or Latin-1."""

import codecs
import csv
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from mitoscope.errors import InputError
from mitoscope.files import require_regular

_SEPARATORS = (";", "\t", ",")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")  # float() would also take 01_02
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")
_PIXELS = {"pixel": "px", "pixels": "px", "pix": "px"}
_BOX = {"box", "bbox", "bounding", "px"}
_FLAG_NAMES = ("label", "mitosis", "is mitosis", "mitotic", "is mitotic", "gt", "ground truth", "target", "majority")
_FLAGS = {"0", "1", "true", "false", "yes", "no", ""}
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


def words(cell: str) -> str:
    """Return a column's name in lower case, its words separated by one space, without brackets: `Position X (px)`."""
    parts = re.split(r"[\s_()\[\].:-]+", cell.casefold())  # which makes µ the Greek letter
    return " ".join(_PIXELS.get(part, part) for part in parts if part)


def class_columns(table: Table, header: bool, kind: Callable[[str], object]) -> list[int]:
    """Return which columns have a class in a cell, whatever their names are.

    A number is a class only under a name such as `is_mitosis`: elsewhere it counts or measures something.

    Args:
        table: the table.
        header: whether its first row has the names of the columns.
        kind: returns something true for a class.
    """
    flags = _flag_columns(table) if header else []
    columns = zip_longest(*(cells for _, cells in table.rows[header:]), fillvalue="")
    return [
        place
        for place, cells in enumerate(columns)
        if any((place in flags or table.number(cell) is None) and kind(cell) for cell in set(cells))
    ]


def column_name(header: list[str], place: int) -> str:
    """Return what to call a column that may lie beyond the header."""
    return header[place] if place < len(header) else f"number {place + 1}"


def flag_column(table: Table) -> str | None:
    """Return the name of a column such as `is_mitosis` with nothing but 0 and 1, or true and false; None = none."""
    for place in _flag_columns(table):
        cells = {cells[place].casefold() for _, cells in table.rows[1:] if len(cells) > place}
        if cells - {""} and cells <= _FLAGS:
            return table.rows[0][1][place]
    return None


def box_problem(header: list[str]) -> str | None:
    """Return what is wrong with positions beside columns of a box's width and height; None = there are no such columns.

    ImageJ writes the corner as BX and BY; its X and Y are the centre.
    """
    names = [set(words(cell).split()) - _BOX for cell in header]
    if {"bx"} in names and {"by"} in names:
        return None
    for sides in (("width", "height"), ("w", "h")):
        if all({side} in names for side in sides):
            width, height = (header[names.index({side})] for side in sides)
            return (
                f"has the columns {width!r} and {height!r}, so its positions may be corners of boxes; give the "
                f"centres, x + {sides[0]} / 2 and y + {sides[1]} / 2, and remove these two columns"
            )
    return None


def _flag_columns(table: Table) -> list[int]:
    return [place for place, cell in enumerate(table.rows[0][1]) if words(cell) in _FLAG_NAMES]


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
