"""Command `fields`: write a first `fields.csv` for images with any names, to be completed by hand."""

import re
from collections import Counter
from pathlib import Path

from mitoscope.datasets.field_table import NAME, Entry, as_id, split_name, write_field_table
from mitoscope.datasets.fields import list_images
from mitoscope.datasets.readers import read_microns
from mitoscope.errors import InputError, printable
from mitoscope.progress import console, progress

# What does not come back from a table: a blank at the beginning, a backslash (read as a slash), line breaks and other
# controls, and surrogates, which Python makes of a byte that is not UTF-8.
_UNWRITABLE = re.compile("^\\s|[\\\\\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def fields(folder: Path, out: Path | None = None, *, replace: bool = False) -> None:
    """Write a row for each image in `folder` and in its folders, and print what is left to fill in.

    Patient and field are those of a PATIENT_FIELD name, or the folder and the name where the images lie in several
    folders. Otherwise the patient stays empty: a wrong guess would put one patient into training and test.

    Args:
        folder: the images.
        out: the table; None = `fields.csv` in the folder.
        replace: replace the table if it is there.

    Raises:
        InputError: there is no image in the folder, a name cannot be written, or the table is there and not replaced.
    """
    out = out or folder / NAME
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give the folder with the images")
    if out.exists() and not replace:
        raise InputError(f"{out}: is there already; edit it, choose another --out, or write it anew with --replace")
    images = list_images(folder)
    if not images:
        raise InputError(f"{folder}: has no image (.tif, .tiff, .png, .jpg, .jpeg, .bmp)")
    _require_writable(folder, images)
    patients = _patient_folders(folder, images)
    entries, unreadable = [], []
    with progress() as show:
        for done, path in enumerate(images, start=1):
            try:
                microns = read_microns(path)
            except InputError as error:
                microns = None
                unreadable.append(str(error))
            entries.append(_entry(path.relative_to(folder), patients.get(path.parent, ""), microns))
            show("reading", done, len(images))
    write_field_table(out, entries)
    for line in unreadable:
        console.print(f"warning: {line}; its row has no pixel size", style="yellow", markup=False)
    lines = [f"{len(entries)} images in {out}"]
    for by_name, place in ((True, "the name PATIENT_FIELD"), (False, "their folder")):
        if found := [
            entry for entry in entries if entry.patient and by_name == bool(split_name(Path(entry.file).stem))
        ]:
            # An example in which the name of the folder is no id, if there is one: it shows what the id was made of.
            example = max(found, key=lambda entry: entry.patient != Path(entry.file).parent.name)
            origin = f"{place}, such as {example.patient} of {example.file}"
            lines.append(f"{len(found)} have the patient of {origin}: check them")
    lines.append(f"{sum(entry.microns_per_pixel is not None for entry in entries)} say their pixel size")
    missing = sum(not entry.patient for entry in entries)
    todo = f"fill in the patient of {missing} images" if missing else "check it, and fill in domain if you like"
    lines.append(f"next: {todo}; then mitoscope validate {folder}, or mitoscope import with --fields {out}")
    for line in lines:
        console.print(line, markup=False)


def _require_writable(folder: Path, images: list[Path]) -> None:
    """Check that the table can hold all names.

    Raises:
        InputError: it cannot.
    """
    bad = [path for path in images if _UNWRITABLE.search(path.relative_to(folder).as_posix())]
    if bad:
        more = f" (and {len(bad) - 1} more images)" if bad[1:] else ""
        raise InputError(
            f"{printable(str(bad[0]))}: cannot be in a table, because its name begins with a blank, is not UTF-8, or "
            f"has a line break or a backslash{more}; rename it"
        )


def _patient_folders(folder: Path, images: list[Path]) -> dict[Path, str]:
    """Return the patient of each folder with images; empty where there is one folder, or two folders have one name."""
    parents = {path.parent for path in images} - {folder}
    ids = {parent: as_id(parent.name) for parent in parents}
    counts = Counter(ids.values())
    return {parent: name for parent, name in ids.items() if len(parents) > 1 and counts[name] == 1}


def _entry(file: Path, folder_patient: str, microns_per_pixel: float | None) -> Entry:
    patient, field = split_name(file.stem) or (folder_patient, as_id(file.stem) if folder_patient else "")
    return Entry(file.as_posix(), patient, field, microns_per_pixel)
