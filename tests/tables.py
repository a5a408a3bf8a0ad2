"""Printed tables as cells, whatever their frame."""

import re

_FRAME = dict.fromkeys(range(0x2500, 0x2580), "|")  # Unicode's box drawing
_BETWEEN = re.compile(r"\||  +")


def read_rows(printed: str) -> list[list[str]]:
    """The filled cells of each printed line; lines outside tables are one cell, lines of a frame are left out."""
    rows = ([cell.strip() for cell in _BETWEEN.split(line.translate(_FRAME))] for line in printed.splitlines())
    return [[cell for cell in row if cell] for row in rows if any(row)]
