"""Read tables of centres as people and programs write them: any separator, any order of columns, with or without names.

`mitoscope detect`, ImageJ, QuPath's measurement export and spreadsheets write such tables.
"""

import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mitoscope.datasets.fields import IMAGE_SUFFIXES
from mitoscope.datasets.importers import Annotations, Found
from mitoscope.datasets.importers.classes import Classes
from mitoscope.datasets.importers.detected import AS_WRITTEN, ROUNDING, is_as_written
from mitoscope.datasets.importers.qupath import SUFFIXES as GEOJSON_SUFFIXES
from mitoscope.datasets.importers.qupath import read_qupath
from mitoscope.datasets.importers.sorting import (
    QUPATH_CORNER,
    UNCLASSIFIED,
    Sorter,
    annotation_files,
    coordinate,
    image_name,
    plain,
)
from mitoscope.datasets.tables import Table, box_problem, class_columns, column_name, flag_column, read_table, words
from mitoscope.errors import InputError

SUFFIXES = (".csv", ".tsv", ".txt")
ORDERS = ("row,col", "x,y")

_ROW, _COL = {"row", "rows", "y"}, {"col", "cols", "column", "columns", "x"}
_FILLERS = {"centroid", "center", "centre", "position", "pos", "coordinate", "coord", "coords", "location", "px"}
_CENTRES = {"centroid", "center", "centre"}
_LENGTHS = {"um", "μm", "micron", "microns", "micrometer", "micrometers", "micrometre", "mm", "nm", "inch"}
_CLASS = ("class", "classification", "label", "category", "name")
_IMAGE = ("image", "file", "filename", "file name", "image name", "slide", "image file")
_NOT_TABLES = ("fields.csv", "summary.csv")  # beside the tables in a dataset and in what `detect` writes
_LOOKALIKES = "_nonmitotic"
# A file name of an image; ImageJ adds the names of region and slice, as in `01_01.tif:0012-0034`.
_IMAGE_LABEL = re.compile(rf"(.+(?:{'|'.join(map(re.escape, IMAGE_SUFFIXES))}))(:.*)?", re.IGNORECASE)


@dataclass(frozen=True)
class _Columns:
    """Where in a row things stand; None = nowhere."""

    row: int
    col: int
    kind: int | None
    image: int | None
    shift: float  # px, to add to the positions
    header: bool


def read_centres_table(paths: Sequence[Path], classes: Classes, order: str | None = None) -> Found:
    """Read tables of centres: NAME.csv and NAME_mitoses.csv belong to the image NAME.

    The columns are found by their names: `row` and `col`, `x` and `y`, `Position X`, `Centroid X px` and the like.
    Columns `Centroid X px` are QuPath's, which counts from the corner of the first pixel; all others from its middle.
    With a column `class`, `classification`, `label`, `category` or `name`, or another one with a known class in a cell,
    only the known classes are taken; without one, all rows are mitoses, or look-alikes in NAME_nonmitotic.csv. With a
    column `image`, `file`, `filename` or `slide`, a table may hold several images; so it may if the column of the
    classes has nothing but names of images, as `Label` of ImageJ.

    Args:
        paths: the tables, or folders of .csv, .tsv and .txt files.
        classes: the classes that are taken.
        order: what the first two columns of a table without names are, one of ORDERS; None = not known.

    Raises:
        InputError: a file is no table, its columns have no known names and `order` is None, positions are in um or may
            be corners of boxes, several columns may be that of the classes, a row is bad, there is no row of a known
            class but others, or a table is of `mitoscope detect` and the GeoJSON beside it has been corrected.
    """
    files = annotation_files(paths, SUFFIXES)
    if any(path.is_dir() for path in paths):
        files = {path: name for path, name in files.items() if path.name not in _NOT_TABLES}
    sorter = Sorter(paths, classes)
    seen: dict[str, Path] = {}
    for path, file in files.items():
        table = _read(path)
        name = image_name(file, SUFFIXES)
        columns = _find_columns(path, table, order)
        own_image = name.removesuffix(_LOOKALIKES)
        columns = _by_cells(path, table, columns, classes, own_image)
        if columns.image is None:
            if name in seen:
                raise InputError(f"{path}: annotates {plain(name)}, as {seen[name]} does; give one of them")
            seen[name] = path
            sorter.add_image(own_image)
        _sort(path, table, columns, sorter, own_image, lookalikes=name.endswith(_LOOKALIKES))
    found = sorter.found()
    own = [path for name, path in seen.items() if _is_detections(path, found.by_image[name.removesuffix(_LOOKALIKES)])]
    return replace(found, notes=(*found.notes, f"{len(own)} {AS_WRITTEN}")) if own else found


def _is_detections(path: Path, annotations: Annotations) -> bool:
    """Whether a table is as `mitoscope detect` wrote it, with the same mitoses as the GeoJSON beside it.

    Raises:
        InputError: the GeoJSON has been changed since, so the corrections are in there.
    """
    geojson = path.with_suffix(".geojson")
    as_written = is_as_written(geojson)
    if as_written is False:
        raise InputError(
            f"{path}: {geojson.name} beside it has been corrected since `mitoscope detect` wrote both; import that "
            "with `mitoscope import qupath`, or move it to import this table"
        )
    if not as_written:
        return False
    (detected,) = read_qupath([geojson], Classes()).by_image.values()
    pair = detected.mitoses, annotations.mitoses
    return pair[0].shape == pair[1].shape and np.allclose(*pair, rtol=0, atol=ROUNDING)


def _by_cells(path: Path, table: Table, columns: _Columns, classes: Classes, own_image: str) -> _Columns:
    """Return the columns with those of the class and the image by what is in their cells, not only by their names."""
    kind, image = columns.kind, columns.image
    if kind is not None and image is None:
        rows = [cells for _, cells in table.rows[columns.header :]]
        if _names_images(rows, kind, own_image):
            kind, image = None, kind
    usual = Classes()  # a class is one also if the user names others

    def is_class(cell: str) -> bool:
        return bool(classes.kind(cell) or usual.kind(cell))

    found = class_columns(table, columns.header, is_class)
    found = [place for place in found if place not in (columns.row, columns.col, image)]
    if found and kind is None:
        cells = {row[found[0]] for _, row in table.rows[columns.header :] if len(row) > found[0]}
        if len(found) > 1 or not all(is_class(cell) for cell in cells - {""}):
            named = [plain(column_name(table.rows[0][1], place)) for place in found]
            raise InputError(
                f"{path}: has classes in the columns {' and '.join(named)}; name the one to take `class`, and remove "
                "the others"
            )
        kind = found[0]
    if kind is None and columns.header and (flag := flag_column(table)):
        raise InputError(
            f"{path}: column {plain(flag)!r} may say which rows are mitoses; name its values, such as --mitosis 1 "
            "--lookalike 0, or remove the column"
        )
    return replace(columns, kind=kind, image=image)


def _names_images(rows: Iterable[list[str]], place: int, own_image: str) -> bool:
    """Whether the cells at this place name images, not classes, as `Label` of ImageJ's Results does."""
    image = own_image.rpartition("/")[2]
    labels = {cells[place] if len(cells) > place else "" for cells in rows}
    return bool(labels) and all(label == image or _IMAGE_LABEL.fullmatch(label) for label in labels)


def _sort(path: Path, table: Table, columns: _Columns, sorter: Sorter, own_image: str, *, lookalikes: bool) -> None:
    """Add the rows of one table to the sorter; without columns they are of `own_image`, and all of one kind."""
    bad: list[str] = []
    for number, cells in table.rows[columns.header :]:
        whole = len(cells) > max(columns.row, columns.col)
        row, col = (table.number(cells[place]) if whole else None for place in (columns.row, columns.col))
        row, col = coordinate(row), coordinate(col)
        if row is None or col is None:
            bad.append(f"row {number}: {plain(table.separator.join(cells))!r} has no position in px")
            continue
        image, centre = own_image, (row + columns.shift, col + columns.shift)
        if columns.image is not None:
            image = cells[columns.image].replace("\\", "/") if len(cells) > columns.image else ""
            if label := _IMAGE_LABEL.fullmatch(image):
                image = label[1]
            if not image:
                bad.append(f"row {number}: names no image")
                continue
        if columns.kind is not None:
            sorter.add(image, cells[columns.kind] if len(cells) > columns.kind else UNCLASSIFIED, centre)
        else:
            sorter.put(image, "lookalike" if lookalikes else "mitosis", centre)
    if bad:
        more = f" (and {len(bad) - 1} more rows)" if bad[1:] else ""
        raise InputError(f"{path}: {bad[0]}{more}; correct or remove it")


def _find_columns(path: Path, table: Table, order: str | None) -> _Columns:
    """Return where row and col are, by the names in the first line, or else by `order`."""
    first = table.rows[0][1] if table.rows else []
    header = bool(first) and not any(table.number(cell) is not None for cell in first)
    names = [words(cell) for cell in first] if header else []
    kind, image = _first(names, _CLASS), _first(names, _IMAGE)
    places: dict[str, list[int]] = {"row": [], "col": []}
    lengths: list[int] = []
    for place, name in enumerate(names):
        parts = set(name.split())
        for axis, known in (("row", _ROW), ("col", _COL)):
            if len(parts & known) == 1 and parts <= known | _FILLERS | _LENGTHS:
                (lengths if parts & _LENGTHS else places[axis]).append(place)
    for axis, found in places.items():
        if len(found) > 1:
            pair = " and ".join(plain(first[place]) for place in found)
            raise InputError(f"{path}: has the columns {pair}, both of which could be the {axis}; remove one of them")
    if places["row"] and places["col"]:
        row, col = places["row"][0], places["col"][0]
        centres = _CENTRES & {*names[row].split(), *names[col].split()}
        if not centres and (problem := box_problem(first)):
            raise InputError(f"{path}: {problem}")
        quoted = "centroid" in names[row] and "px" in names[row].split()
        return _Columns(row, col, kind, image, -QUPATH_CORNER if quoted else 0.0, header)
    if lengths:
        raise InputError(
            f"{path}: column {plain(first[lengths[0]])!r} is not in px; export the positions in px, or divide them by "
            "the pixel size and name the columns x and y"
        )
    if order is not None and order not in ORDERS:
        raise InputError(f"--order {order}: is not known; expected {' or '.join(ORDERS)}")
    if order is not None or not table.rows:
        row, col = (0, 1) if order != "x,y" else (1, 0)
        return _Columns(row, col, kind, image, 0.0, header)
    lacks = f"names no position in its header {plain(', '.join(first))!r}" if header else "has no header"
    raise InputError(
        f"{path}: {lacks}, so nothing says which number is the row; name the columns in a first line such as `row,col` "
        "or `x,y`, or say what the first two are with --order row,col or --order x,y"
    )


def _first(names: list[str], known: Sequence[str]) -> int | None:
    return next((names.index(name) for name in known if name in names), None)


def _read(path: Path) -> Table:
    """Read a table; its cells are separated by spaces or `|` where it has no other separator."""
    if path.name.lower().endswith(GEOJSON_SUFFIXES):
        raise InputError(
            f"{path}: is JSON, not a table; give the CSV beside it, or import GeoJSON with `mitoscope import qupath`"
        )
    try:
        table = read_table(path)
    except csv.Error as error:
        raise InputError(f"{path}: is not a table ({error}); save it as CSV") from error
    for separator in ("|", " "):
        rows = [(number, [part for part in cells[0].split(separator) if part]) for number, cells in table.rows if cells]
        single = all(len(cells) == 1 for _, cells in table.rows)
        if single and rows and all(len(cells) > 1 for _, cells in rows):
            return Table(separator, table.decimal, rows)
    return table
