"""`fields.csv`: whose field each image is, its pixel size and where it comes from, for images with names of any kind.

    file,patient,field,microns_per_pixel,domain
    TCGA-A1-A0SB_01.tif,TCGA-A1-A0SB,01,0.2456,Aperio
    05/Schnitt 3.png,05,03,,

`file` is a path relative to the folder of the table. Empty cells and missing columns are filled from the file's name,
the file's own pixel size, and `dataset.yaml`. `domain` is free text: scanner, laboratory or tumour.
"""

import csv
import io
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from mitoscope.datasets.tables import Table, read_table
from mitoscope.errors import InputError
from mitoscope.files import write_text

NAME = "fields.csv"
COLUMNS = ("file", "patient", "field", "microns_per_pixel", "domain")
FINEST_UM, COARSEST_UM = 0.05, 2.0  # um per pixel of any light microscope's image
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*")
_SHOWN = 3  # bad rows that the line about them describes


class Entry(NamedTuple):
    """One row of `fields.csv`; what is empty or None is filled from elsewhere."""

    file: str
    patient: str = ""
    field: str = ""
    microns_per_pixel: float | None = None
    domain: str = ""


def is_id(text: str) -> bool:
    """Whether this can be the id of a patient or a field: letters A to Z, digits, `-` and `.`; no `_`, no blanks."""
    return _ID.fullmatch(text) is not None


def composed(name: str) -> str:
    """Return a name with composed letters: macOS writes an umlaut as two characters, other systems as one."""
    return unicodedata.normalize("NFC", name)


def split_name(stem: str) -> tuple[str, str] | None:
    """Return patient and field of a name PATIENT_FIELD; None if it is no such name.

    Part of another name is no patient: case1roi2 may be of the same patient as case1roi1.
    """
    patient, _, field = stem.partition("_")
    return (patient, field) if is_id(patient) and is_id(field) else None


def as_id(text: str) -> str:
    """Return this text without accents, and everything else that an id cannot hold replaced by `-`; may be empty."""
    plain = "".join(sign for sign in unicodedata.normalize("NFD", text) if not unicodedata.combining(sign))
    return re.sub(r"[^A-Za-z0-9.]+", "-", plain).strip("-.")


def read_field_table(path: Path) -> list[Entry]:
    """Read `fields.csv`.

    Raises:
        InputError: the file cannot be read, has an unknown column, or rows are bad; the line names the rows.
    """
    entries, problems = scan_field_table(path)
    if problems:
        raise InputError(problems[0])
    return [entry for entry in entries.values() if entry]


def scan_field_table(path: Path) -> tuple[dict[str, Entry | None], list[str]]:
    """Read `fields.csv` like `read_field_table`, but continue after a bad row.

    Returns:
        The entry of each file by its `composed` name, None if its row is bad; and one line if any row is bad.

    Raises:
        InputError: the file cannot be read, or has an unknown column.
    """
    table = read_table(path)
    header = [cell.lower() for cell in table.rows[0][1]] if table.rows else []
    if "file" not in header:
        raise InputError(f"{path}: has no column `file`; expected the header {','.join(COLUMNS)}")
    if unknown := [name for name in header if name not in COLUMNS]:
        raise InputError(f"{path}: has the unknown column {unknown[0]!r}; expected {','.join(COLUMNS)}")
    entries: dict[str, Entry | None] = {}
    bad = []
    for number, cells in table.rows[1:]:
        row = dict(zip(header, cells, strict=False))
        file = row["file"] = row.get("file", "").replace("\\", "/")
        name = composed(str(PurePosixPath(file)))
        if file and name in entries:
            bad.append(f"row {number}: {file} is listed twice; keep one row")
            continue
        try:
            entries[name] = _entry(table, row)
        except ValueError as error:
            entries[name] = None
            bad.append(f"row {number}: {error}")
    more = f" (and {len(bad) - _SHOWN} more bad rows)" if bad[_SHOWN:] else ""
    return entries, [f"{path}: {'; '.join(bad[:_SHOWN])}{more}"] if bad else []


def write_field_table(path: Path, entries: Iterable[Entry]) -> None:
    """Write `fields.csv`, one row per entry in their order."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for entry in entries:
        size = "" if entry.microns_per_pixel is None else f"{entry.microns_per_pixel:g}"
        writer.writerow([entry.file, entry.patient, entry.field, size, entry.domain])
    write_text(path, text.getvalue())


def _entry(table: Table, row: dict[str, str]) -> Entry:
    """Return one row as an entry.

    Raises:
        ValueError: what is wrong with it.
    """
    pure = PurePosixPath(row["file"])
    if not row["file"] or pure.is_absolute() or ".." in pure.parts:
        raise ValueError(f"{row['file']!r} is not a path inside the folder")
    for column in ("patient", "field"):
        if row.get(column) and not is_id(row[column]):
            raise ValueError(
                f"{column} {row[column]!r} may have the letters A to Z, digits, `-` and `.` only, with a letter or "
                "digit first"
            )
    size = row.get("microns_per_pixel", "")
    microns = table.number(size) if size else None
    if size and (microns is None or not FINEST_UM <= microns <= COARSEST_UM):
        raise ValueError(
            f"microns_per_pixel {size!r} is not a pixel size in um, {FINEST_UM} to {COARSEST_UM:g}, at 40x about 0.25"
        )
    return Entry(str(pure), row.get("patient", ""), row.get("field", ""), microns, row.get("domain", ""))
