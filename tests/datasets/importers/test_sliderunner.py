"""SlideRunner's database: one made with its tables, older ones, and damaged ones."""

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mitoscope.datasets.importers.classes import Classes
from mitoscope.datasets.importers.sliderunner import read_sliderunner
from mitoscope.errors import InputError

SPOT, AREA, POLYGON, SPECIAL_SPOT, CIRCLE, IMAGE = 1, 2, 3, 4, 5, 6
MITOSIS, LOOKALIKE, TUMOR = 1, 2, 3

# The tables and columns that SlideRunner_dataAccess creates.
SCHEMA = """
CREATE TABLE Annotations_label (uid INTEGER PRIMARY KEY AUTOINCREMENT UNIQUE, person INTEGER, class INTEGER,
    exact_id INTEGER, annoId INTEGER);
CREATE TABLE Annotations_coordinates (uid INTEGER PRIMARY KEY AUTOINCREMENT UNIQUE, coordinateX INTEGER,
    coordinateY INTEGER, coordinateZ INTEGER DEFAULT 0, slide INTEGER, annoId INTEGER, orderIdx INTEGER);
CREATE TABLE Annotations (uid INTEGER PRIMARY KEY AUTOINCREMENT UNIQUE, slide INTEGER, guid TEXT, lastModified REAL,
    deleted INTEGER DEFAULT 0, type INTEGER, agreedClass INTEGER, description TEXT);
CREATE TABLE Classes (uid INTEGER PRIMARY KEY AUTOINCREMENT UNIQUE, name TEXT, color TEXT);
CREATE TABLE Persons (uid INTEGER PRIMARY KEY AUTOINCREMENT UNIQUE, name TEXT, isExactUser INTEGER DEFAULT 0);
CREATE TABLE Slides (uid INTEGER PRIMARY KEY AUTOINCREMENT UNIQUE, filename TEXT, width INTEGER, height INTEGER,
    directory TEXT, uuid TEXT, exactImageID TEXT);
INSERT INTO Classes (name) VALUES ('Mitotic figure'), ('Hard negative'), ('Tumor');
INSERT INTO Slides (filename, width, height, directory) VALUES ('01_01.tif', 100, 100, '/slides');
INSERT INTO Persons (name) VALUES ('A'), ('B'), ('C');
"""


class Database:
    """A database to fill."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.execute(SCHEMA)

    def execute(self, script: str) -> None:
        with closing(sqlite3.connect(self.path)) as database:
            database.executescript(script)

    def annotate(self, kind, *corners, agreed=MITOSIS, labels=(), deleted=0, slide=1):
        """Add an annotation; corners are x, y."""
        with closing(sqlite3.connect(self.path)) as database, database:
            uid = database.execute(
                "INSERT INTO Annotations (slide, type, agreedClass, deleted) VALUES (?, ?, ?, ?)",
                (slide, kind, agreed, deleted),
            ).lastrowid
            database.executemany(
                "INSERT INTO Annotations_coordinates (coordinateX, coordinateY, slide, annoId, orderIdx) "
                "VALUES (?, ?, ?, ?, ?)",
                [(x, y, slide, uid, order) for order, (x, y) in enumerate(corners, start=1)],
            )
            database.executemany(
                "INSERT INTO Annotations_label (person, class, annoId) VALUES (?, ?, ?)",
                [(person, label, uid) for person, label in enumerate(labels, start=1)],
            )

    def read(self, classes=None):
        return read_sliderunner(self.path, classes or Classes())


@pytest.fixture
def database(tmp_path):
    return Database(tmp_path / "cells #1 100%.sqlite")


def test_the_centre_of_each_kind_of_annotation(database):
    database.annotate(SPOT, (10, 20))
    database.annotate(SPECIAL_SPOT, (11, 21))
    database.annotate(AREA, (10, 20), (14, 26))
    database.annotate(CIRCLE, (0, 0), (50, 51))
    database.annotate(POLYGON, (0, 0), (4, 0), (4, 1), (2, 1), (2, 2), (0, 2))
    expected = [[20, 10], [21, 11], [23, 12], [25.5, 25], [5 / 6, 10 / 6]]
    np.testing.assert_allclose(database.read().by_image["01_01.tif"].mitoses, expected, atol=0.001)


def test_deleted_annotations_do_not_count(database):
    database.annotate(SPOT, (10, 20))
    database.annotate(SPOT, (30, 40), deleted=1)
    found = database.read()
    assert found.by_image["01_01.tif"].mitoses.tolist() == [[20, 10]] and found.notes == ()


def test_the_agreed_class_counts_or_else_that_of_most_persons(database):
    database.annotate(SPOT, (1, 2), agreed=LOOKALIKE, labels=(MITOSIS, MITOSIS, LOOKALIKE))
    database.annotate(SPOT, (3, 4), agreed=0, labels=(MITOSIS, LOOKALIKE, MITOSIS))
    database.annotate(SPOT, (5, 6), agreed=None, labels=(LOOKALIKE,))
    database.annotate(SPOT, (7, 8), agreed=None, labels=(MITOSIS, LOOKALIKE))
    database.annotate(SPOT, (7, 8), agreed=None)
    database.annotate(SPOT, (7, 8), agreed=TUMOR)
    database.annotate(SPOT, (7, 8), agreed=99)
    found = database.read()
    assert found.by_image["01_01.tif"].mitoses.tolist() == [[4, 3]]
    assert found.by_image["01_01.tif"].lookalikes.tolist() == [[2, 1], [6, 5]]
    assert found.notes == ("4 annotations of other classes left out: no agreed class (2), Tumor (1), class 99 (1)",)


def test_a_slide_that_nobody_has_annotated_is_left_out(database):
    database.execute("INSERT INTO Slides (filename) VALUES ('c:\\slides\\02_01.tif'), ('03_01.tif'), ('04_01.tif')")
    database.annotate(SPOT, (1, 2))
    database.annotate(SPOT, (1, 2), agreed=TUMOR, slide=2)
    database.annotate(SPOT, (1, 2), deleted=1, slide=3)
    database.annotate(IMAGE, slide=1)
    database.annotate(SPOT, (1, 2), slide=77)
    found = database.read()
    assert found.by_image.keys() == {"01_01.tif", "02_01.tif"} and len(found.by_image["02_01.tif"].mitoses) == 0
    assert found.notes == (
        "1 annotations of other classes left out: Tumor (1)",
        "1 images have annotations of other classes only, and are taken to have no mitosis: 02_01.tif: Tumor (1); if "
        "one of these classes is mitoses, import again and name it with --mitosis",
        "1 annotations of whole images or without a position left out",
        "1 annotations of no slide left out",
        "2 slides without annotations left out",
    )


def test_a_database_of_an_older_version_is_read(database):
    database.annotate(SPOT, (10, 20))
    database.execute(
        "ALTER TABLE Annotations DROP COLUMN deleted; ALTER TABLE Annotations_coordinates DROP COLUMN orderIdx;"
    )
    assert len(database.read().by_image["01_01.tif"].mitoses) == 1


def test_the_database_is_not_written(database):
    database.annotate(SPOT, (10, 20))
    before = database.path.read_bytes(), database.path.stat().st_mtime_ns
    database.path.chmod(0o444)
    database.read()
    assert (database.path.read_bytes(), database.path.stat().st_mtime_ns) == before
    assert [path.name for path in database.path.parent.iterdir()] == [database.path.name]


def test_two_slides_of_one_name_are_rejected(database):
    database.execute("INSERT INTO Slides (filename, directory) VALUES ('01_01.tif', '/others')")
    with pytest.raises(InputError, match=r"two slides have the file name 01_01\.tif"):
        database.read()


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("DROP TABLE Slides", "has no column uid in a table Slides; is it a SlideRunner database"),
        ("ALTER TABLE Annotations DROP COLUMN type", "has no column type in a table Annotations"),
        ("UPDATE Slides SET filename = NULL", "slide 1 has no file name"),
        ("UPDATE Annotations_coordinates SET coordinateX = 'left'", "annotation 1 has a coordinate that is not"),
        ("UPDATE Annotations_coordinates SET coordinateX = NULL", "annotation 1 has a coordinate that is not"),
        ("UPDATE Classes SET name = 'A'", r"has no annotation of the class Mitosis, but of A \(1\)"),
    ],
)
def test_bad_databases_are_one_line(database, script, message):
    database.annotate(SPOT, (10, 20))
    database.execute(script)
    with pytest.raises(InputError, match=message):
        database.read()


@pytest.mark.parametrize("content", [b"", b"a text, and no database " * 99])
def test_what_is_no_database_is_one_line(tmp_path, content):
    (tmp_path / "a.sqlite").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.sqlite: .*SlideRunner database"):
        read_sliderunner(tmp_path / "a.sqlite", Classes())
    with pytest.raises(InputError, match=r"absent\.sqlite: no such file"):
        read_sliderunner(tmp_path / "absent.sqlite", Classes())
    assert not (tmp_path / "absent.sqlite").exists()


COLUMNS = [
    *("Annotations.type", "Annotations.agreedClass", "Annotations.deleted", "Annotations.slide", "Slides.filename"),
    *("Annotations_coordinates.coordinateX", "Annotations_coordinates.annoId", "Annotations_label.class"),
    *("Classes.name", "Slides.uid"),
]
VALUES = st.none() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text(max_size=5) | st.binary(max_size=5)


@pytest.mark.slow  # many examples
@settings(max_examples=60, deadline=None)
@given(st.sampled_from(COLUMNS), VALUES)
def test_any_value_anywhere_gives_a_line_or_a_result(tmp_path_factory, column, value):
    path = tmp_path_factory.getbasetemp() / "fuzz.sqlite"
    path.unlink(missing_ok=True)
    database = Database(path)
    database.annotate(AREA, (10, 20), (30, 40), agreed=None, labels=(MITOSIS,))
    table, name = column.split(".")
    with closing(sqlite3.connect(path)) as connection, connection:
        try:
            connection.execute(f"UPDATE {table} SET {name} = ?", (value,))
        except (sqlite3.IntegrityError, UnicodeEncodeError):
            return
    _read_or_reject(path)


@pytest.mark.slow  # many examples
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 12 * 4096), st.binary(min_size=1, max_size=4))
@example(3927, b"\x80")  # in the schema, where SQLite itself decodes
def test_damaged_bytes_give_a_line_or_a_result(tmp_path_factory, place, patch):
    path = tmp_path_factory.getbasetemp() / "bytes.sqlite"
    path.unlink(missing_ok=True)
    Database(path).annotate(SPOT, (10, 20))
    content = path.read_bytes()
    path.write_bytes(content[:place] + patch + content[place + len(patch) :])
    _read_or_reject(path)


def _read_or_reject(path: Path) -> None:
    try:
        found = read_sliderunner(path, Classes())
    except InputError as error:
        assert str(error).count("\n") == 0 and path.name in str(error)
    else:
        assert all(np.isfinite(annotations.mitoses).all() for annotations in found.by_image.values())
