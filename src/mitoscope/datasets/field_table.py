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


class Entry(NamedTuple):
    """One row of `fields.csv`; what is empty or None is filled from elsewhere."""

    file: str
    patient: str = ""
    field: str = ""
    microns_per_pixel: float | None = None
    domain: str = ""


def is_id(text: str) -> bool:
    """Whether this text can be the id of a patient or a field: letters, digits, `-` and `.`; no `_`, no blanks."""
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
    """Return this text with everything that an id cannot hold replaced by `-`; may be empty."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-.")


def read_field_table(path: Path) -> list[Entry]:
    """Read `fields.csv`.

    Raises:
        InputError: the file cannot be read, has an unknown column, or a row is bad; the line names the row.
    """
    table = read_table(path)
    header = [cell.lower() for cell in table.rows[0][1]] if table.rows else []
    if "file" not in header:
        raise InputError(f"{path}: has no column `file`; expected the header {','.join(COLUMNS)}")
    if unknown := [name for name in header if name not in COLUMNS]:
        raise InputError(f"{path}: has the unknown column {unknown[0]!r}; expected {','.join(COLUMNS)}")
    entries: dict[str, Entry] = {}
    for number, cells in table.rows[1:]:
        entry = _entry(path, number, table, dict(zip(header, cells, strict=False)))
        if entry.file in entries:
            raise InputError(f"{path}: row {number}: {entry.file} is listed twice; keep one row")
        entries[entry.file] = entry
    return list(entries.values())


def write_field_table(path: Path, entries: Iterable[Entry]) -> None:
    """Write `fields.csv`, one row per entry in their order."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for entry in entries:
        size = "" if entry.microns_per_pixel is None else f"{entry.microns_per_pixel:g}"
        writer.writerow([entry.file, entry.patient, entry.field, size, entry.domain])
    write_text(path, text.getvalue())


def _entry(path: Path, number: int, table: Table, cells: dict[str, str]) -> Entry:
    """Return one row as an entry, or raise InputError."""
    row = f"{path}: row {number}"
    file = cells.get("file", "").replace("\\", "/")
    pure = PurePosixPath(file)
    if not file or pure.is_absolute() or ".." in pure.parts:
        raise InputError(f"{row}: {file!r} is not a path inside the folder")
    for column in ("patient", "field"):
        if cells.get(column) and not is_id(cells[column]):
            raise InputError(f"{row}: {column} {cells[column]!r} may have letters, digits, `-` and `.` only")
    size = cells.get("microns_per_pixel", "")
    microns = table.number(size) if size else None
    if size and (microns is None or not FINEST_UM <= microns <= COARSEST_UM):
        raise InputError(
            f"{row}: microns_per_pixel {size!r} is not a pixel size in um, {FINEST_UM} to {COARSEST_UM:g}; "
            "at 40x it is about 0.25"
        )
    return Entry(str(pure), cells.get("patient", ""), cells.get("field", ""), microns, cells.get("domain", ""))
