"""Read annotations in the SQLite database of SlideRunner.

Source: the tables that SlideRunner_dataAccess/database.py creates, and the types in its annotations.py.
"""

import sqlite3
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from mitoscope.datasets.importers import Found
from mitoscope.datasets.importers.classes import Classes
from mitoscope.datasets.importers.sorting import Sorter, coordinate, outline_centre, plain
from mitoscope.errors import InputError

_SPOT, _AREA, _POLYGON, _SPECIAL_SPOT, _CIRCLE = 1, 2, 3, 4, 5
_COLUMNS = {
    "Slides": ("uid", "filename"),
    "Classes": ("uid", "name"),
    "Annotations": ("uid", "slide", "type", "agreedClass"),
    "Annotations_coordinates": ("annoId", "coordinateX", "coordinateY"),
    "Annotations_label": ("annoId", "class"),
}
_UNDECIDED = "no agreed class"


def read_sliderunner(path: Path, classes: Classes) -> Found:
    """Read the annotations of a SlideRunner database, which is opened read-only.

    A spot is one figure, and so is the centre of an area, a circle or a polygon. Its class is the agreed class, or else
    the one that most persons gave; without a majority it is `no agreed class`. Deleted annotations do not count, and
    slides without any other are left out: nothing says whether somebody has looked at them.

    SlideRunner's coordinates are whole pixels: row = Y, col = X.

    Args:
        path: the database.
        classes: the classes that are taken.

    Raises:
        InputError: the file is no SlideRunner database or is damaged, or has no annotation of a known class but others.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; give the database of SlideRunner, a .sqlite file")
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            return _read(path, database, classes)
    except (sqlite3.Error, OverflowError, ValueError) as error:  # ValueError: text in the schema that is no UTF-8
        raise InputError(f"{path}: is no SlideRunner database, or is damaged ({plain(str(error))})") from error


def _read(path: Path, database: sqlite3.Connection, classes: Classes) -> Found:
    database.text_factory = lambda content: content.decode("utf-8", "replace")
    for table, columns in _COLUMNS.items():
        present = {row[1] for row in database.execute(f"PRAGMA table_info({table})")}
        if missing := [column for column in columns if column not in present]:
            raise InputError(f"{path}: has no column {missing[0]} in a table {table}; is it a SlideRunner database?")
    slides = _slides(path, database)
    names = {uid: str(name) for uid, name in database.execute("SELECT uid, name FROM Classes")}
    labels: dict[Any, Counter[Any]] = {}
    for annotation, label in database.execute("SELECT annoId, class FROM Annotations_label"):
        labels.setdefault(annotation, Counter())[label] += 1
    corners: dict[Any, list[tuple[Any, Any]]] = {}
    order = "orderIdx" if _has(database, "Annotations_coordinates", "orderIdx") else "rowid"
    query = f"SELECT annoId, coordinateX, coordinateY FROM Annotations_coordinates ORDER BY {order}"
    for annotation, x, y in database.execute(query):
        corners.setdefault(annotation, []).append((y, x))
    deleted = "deleted" if _has(database, "Annotations", "deleted") else "0"
    sorter = Sorter([path], classes)
    annotated = set()
    for uid, slide, kind, agreed, gone in database.execute(
        f"SELECT uid, slide, type, agreedClass, {deleted} FROM Annotations ORDER BY uid"
    ):
        if gone:
            continue
        if slide not in slides:
            sorter.leave_out("annotations of no slide")
            continue
        annotated.add(slide)
        sorter.add_image(slides[slide])
        centre = _centre(path, uid, kind, corners.get(uid, []))
        if centre is None:
            sorter.leave_out("annotations of whole images or without a position")
            continue
        chosen = agreed if agreed not in (None, 0) else _majority(labels.get(uid, Counter()))
        name = _UNDECIDED if chosen is None else names.get(chosen, f"class {chosen}")
        sorter.add(slides[slide], name, centre)
    for _ in slides.keys() - annotated:
        sorter.leave_out("slides without annotations")
    return sorter.found()


def _slides(path: Path, database: sqlite3.Connection) -> dict[Any, str]:
    """Return the file names of the slides by uid."""
    slides: dict[Any, str] = {}
    for uid, name in database.execute("SELECT uid, filename FROM Slides"):
        if not isinstance(name, str) or not name:
            raise InputError(f"{path}: slide {plain(str(uid))} has no file name; name it in SlideRunner")
        name = name.replace("\\", "/").rpartition("/")[2]
        if name in slides.values():
            raise InputError(f"{path}: two slides have the file name {plain(name)}; rename one of them")
        slides[uid] = name
    return slides


def _has(database: sqlite3.Connection, table: str, column: str) -> bool:
    return any(row[1] == column for row in database.execute(f"PRAGMA table_info({table})"))


def _centre(path: Path, uid: Any, kind: Any, corners: Iterable[tuple[Any, Any]]) -> tuple[float, float] | None:
    """Return row, col of an annotation; None if it has no position or is of no kind with one."""
    known = [(coordinate(y), coordinate(x)) for y, x in corners]
    if not known or kind not in (_SPOT, _SPECIAL_SPOT, _AREA, _CIRCLE, _POLYGON):
        return None
    if any(value is None for corner in known for value in corner):
        raise InputError(f"{path}: annotation {plain(str(uid))} has a coordinate that is not a position in px")
    points = np.array(known, dtype=np.float64)
    if kind in (_SPOT, _SPECIAL_SPOT):
        middle = points[0]
    elif kind == _POLYGON:
        middle, _ = outline_centre(points)
    else:
        middle = (points.min(axis=0) + points.max(axis=0)) / 2
    return float(middle[0]), float(middle[1])


def _majority(labels: Counter[Any]) -> Any:
    """Return the label that most persons gave; None if there is none, or several."""
    first, *others = [*labels.most_common(2), (None, 0)]
    return None if others and others[0][1] == first[1] else first[0]
