"""Mitosis centres, read from a CSV per field or from the discs in Janowczyk's `_pc.png`, and distances to them."""

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from scipy.spatial import KDTree

from mitoscope.datasets.fields import FieldOfView
from mitoscope.datasets.readers import read_mask
from mitoscope.datasets.tables import Table, box_problem, class_columns, column_name, flag_column, read_table
from mitoscope.errors import InputError
from mitoscope.files import write_text

_CLASS_COLUMNS = ("class", "classification", "label", "category")  # their rows may be mitoses or not

Centres = npt.NDArray[np.float64]


def read_centres(field: FieldOfView, shape: tuple[int, int], order: str = "row,col") -> Centres:
    """Read the mitosis centres of a field of `shape` (rows, columns) as (N, 2) float64: row, col in pixels.

    They come from the CSV, or from the discs in `_pc.png` if there is no CSV; without either file the field has no
    mitoses. `order` is the dataset's `annotation_order`.

    Raises:
        InputError: the file cannot be read, or a row is not two numbers, lies outside the image or repeats a centre.
    """
    return _checked(*scan_centres(field, shape, order))


def read_lookalikes(field: FieldOfView, shape: tuple[int, int], order: str = "row,col") -> Centres:
    """Read the labelled look-alikes of a field as (N, 2) float64 row, col in pixels; none if there is no file.

    Raises:
        InputError: as in `read_centres`.
    """
    return _checked(*scan_lookalikes(field, shape, order))


def scan_centres(field: FieldOfView, shape: tuple[int, int], order: str = "row,col") -> tuple[Centres, list[str]]:
    """Read the centres like `read_centres`, but continue after a bad row; return one problem of each kind.

    Raises:
        InputError: the file as a whole cannot be read.
    """
    if not field.annotation.exists() and field.mask("pc").exists():
        return _disc_centres(field.mask("pc"), shape), []
    return _scan(field.annotation, shape, order)


def scan_lookalikes(field: FieldOfView, shape: tuple[int, int], order: str = "row,col") -> tuple[Centres, list[str]]:
    """Read the look-alikes like `read_lookalikes`, but continue after a bad row; return one problem of each kind.

    Raises:
        InputError: the file as a whole cannot be read.
    """
    return _scan(field.lookalikes, shape, order)


def write_centres(path: Path, centres: Centres) -> None:
    """Write (N, 2) mitosis centres as `row,col` lines at full precision."""
    write_text(path, "".join(f"{float(row)!r},{float(col)!r}\n" for row, col in centres))


def distance_to_nearest(points: Centres, centres: Centres) -> npt.NDArray[np.float64]:
    """Return the (N,) distances from (N, 2) points to the nearest of (M, 2) centres, in their unit; NaN if M is 0."""
    if not len(centres):
        return np.full(len(points), np.nan)
    distances, _ = KDTree(centres).query(points)
    return np.asarray(distances, dtype=np.float64)


def _checked(centres: Centres, problems: list[str]) -> Centres:
    if problems:
        raise InputError(problems[0])
    return centres


def _scan(path: Path, shape: tuple[int, int], order: str) -> tuple[Centres, list[str]]:
    """Return the centres in a CSV, and one line for each kind of bad row; a missing file has no centres."""
    if not path.exists():
        return np.empty((0, 2)), []
    table = read_table(path)
    named = _named_columns(table)
    if named and (problem := _column_problem(table)):
        return np.empty((0, 2)), [f"{path}: {problem}"]
    columns = named or ((0, 1) if order == "row,col" else (1, 0))
    seen: dict[tuple[float, float], int] = {}
    bad: dict[str, list[str]] = {}
    for number, cells in table.rows[1:] if named else table.rows:
        while cells and not cells[-1]:  # a comma at the end of a line
            cells = cells[:-1]
        whole = len(cells) > max(columns) if named else len(cells) == 2
        row, col = (table.number(cells[column]) for column in columns) if whole else (None, None)
        place = f"{path}: row {number}:"
        if row is None or col is None:
            text = table.separator.join(cells)[:60]
            bad.setdefault("form", []).append(
                f"{place} {text!r} is not two numbers; expected `{order}` per "
                "line (`mitoscope import csv` reads other forms)"
            )
        elif not (0 <= row < shape[0] and 0 <= col < shape[1]):
            bad.setdefault("place", []).append(
                f"{place} row {row:g}, col {col:g} lies outside the image of {shape[0]} rows and {shape[1]} columns; "
                f"is annotation_order in dataset.yaml correct ({order})?"
            )
        elif (row, col) in seen:
            bad.setdefault("twice", []).append(f"{place} the same centre as row {seen[row, col]}; remove one of them")
        else:
            seen[row, col] = number
    problems = [lines[0] + (f" (and {len(lines) - 1} more rows)" if lines[1:] else "") for lines in bad.values()]
    return np.array(list(seen), dtype=np.float64).reshape(-1, 2), problems


def _column_problem(table: Table) -> str | None:
    """Return why the rows of a table with a header may not all be centres of one kind; None = they are."""
    from mitoscope.datasets.importers.classes import Classes  # the importers import this module

    header = table.rows[0][1]
    kind = next((cell for cell in header if cell.lower() in _CLASS_COLUMNS), None) or flag_column(table)
    if kind is None and (found := class_columns(table, True, Classes().kind)):
        kind = column_name(header, found[0])
    if kind is not None:
        return f"has a column {kind[:60]!r}; `mitoscope import csv` sorts centres by their class"
    return box_problem(header)


def _named_columns(table: Table) -> tuple[int, int] | None:
    """Return the columns `row` and `col`, or `y` and `x`, of a table with a header, such as those of `detect`."""
    header = [cell.lower() for cell in table.rows[0][1]] if table.rows else []
    for row, col in (("row", "col"), ("y", "x")):
        if row in header and col in header:
            return header.index(row), header.index(col)
    return None


def _disc_centres(path: Path, shape: tuple[int, int]) -> Centres:
    """Return the centroids (row, col) of the connected components of a `_pc.png`."""
    mask = read_mask(path, shape).astype(np.uint8)
    _, _, _, centroids = cv2.connectedComponentsWithStats(mask, connectivity=8)
    return centroids[1:, ::-1].astype(np.float64)  # the first is the background; OpenCV returns x, y
