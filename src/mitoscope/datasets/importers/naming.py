"""Whose field each image is: from `fields.csv`, from the user, from the importer, or from the file's name."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path, PurePosixPath

from mitoscope.datasets import field_table
from mitoscope.datasets.field_table import Entry, as_id, composed, is_id, read_field_table, split_name
from mitoscope.datasets.fields import is_mask
from mitoscope.datasets.importers import Target
from mitoscope.datasets.importers.sorting import plain
from mitoscope.errors import InputError


def name_fields(images: Path, listed: Iterable[Path], target: Target, known: Mapping[str, Entry]) -> dict[Path, Entry]:
    """Return the entry of each image, with patient and field as far as they can be known.

    Args:
        images: the folder of the images.
        listed: the images in it and in its folders.
        target: what the user says about them.
        known: the importer's own entries by relative path; what the user says takes precedence.

    Raises:
        InputError: the table of fields is bad, or names an image that is missing.
    """
    told = _told(images, listed, target)
    files = {path: path.relative_to(images).as_posix() for path in listed}
    return {
        path: _named(told.get(file, Entry(file)), known.get(file), per_image=target.patient_per_image)
        for path, file in files.items()
    }


def find_images(images: Path, entries: Mapping[Path, Entry], names: Collection[str]) -> dict[str, Path]:
    """Find the image of each name.

    Args:
        images: the folder of the images.
        entries: the images in it and in its folders, with patient and field.
        names: file names with or without suffix, paths relative to `images`, or PATIENT_FIELD. Of a path that is not
            there, folders at its start are ignored if the rest is the whole path of an image, or PATIENT_FIELD: an
            image in another folder may be another patient's. Composed and decomposed letters are the same.

    Raises:
        InputError: an image is missing, several images have the name, or two names mean one image.
    """
    known: dict[str, set[Path]] = {}
    alike: dict[str, set[Path]] = {}
    whole: dict[str, set[Path]] = {}  # the names that tell an image from those in other folders
    for path, entry in entries.items():
        relative = path.relative_to(images)
        field = [f"{entry.patient}_{entry.field}"] if entry.patient and entry.field else []
        unique = (relative.as_posix(), relative.with_suffix("").as_posix(), *field)
        for name in unique:
            whole.setdefault(composed(name), set()).add(path)
        for name in (*unique, path.name, path.stem):
            known.setdefault(name, set()).add(path)
            alike.setdefault(composed(name), set()).add(path)
    found: dict[str, Path] = {}
    missing = []
    for name in names:
        path_named = PurePosixPath(name.replace("\\", "/"))
        full, parts = path_named.as_posix(), path_named.parts
        ends = ("/".join(parts[start:]) for start in range(1, len(parts)))
        candidates = known.get(full) or alike.get(composed(full)) or set()
        candidates = candidates or next((same for end in ends if (same := whole.get(composed(end)))), set())
        if images / path_named in candidates:
            candidates = {images / path_named}
        if len(candidates) > 1:
            first, second = sorted(path.relative_to(images).as_posix() for path in candidates)[:2]
            raise InputError(
                f"{images}: {plain(name)} is annotated, but there are {first} and {second}; keep one of them, or name "
                "it in the annotations by its path or as PATIENT_FIELD"
            )
        if candidates:
            (found[name],) = candidates
        else:
            missing.append(name)
    if missing:
        more = f" (and {len(missing) - 1} more)" if missing[1:] else ""
        raise InputError(
            f"{images / plain(missing[0])}: no such image, but it is annotated{more}; get the images again, each in "
            "the folder that its annotation names"
        )
    names_of: dict[Path, str] = {}
    for name, path in found.items():
        if (first := names_of.setdefault(path, name)) != name:
            raise InputError(f"{path}: is annotated as {plain(first)} and as {plain(name)}; keep one of them")
    return found


def require_fields(images: Path, entries: Mapping[Path, Entry]) -> None:
    """Check that the annotated images are fields, each another one.

    Args:
        images: the folder of the images.
        entries: the annotated ones, with patient and field as far as they are known.

    Raises:
        InputError: some images have no patient; the line says how to name them. Or two images are the same field.
    """
    unknown = []
    by_name: dict[tuple[str, str], Path] = {}
    for path, entry in entries.items():
        if not (is_id(entry.patient) and is_id(entry.field)):
            unknown.append(path)
        elif is_mask(path.with_stem(f"{entry.patient}_{entry.field}")):
            raise InputError(
                f"{path}: cannot be the field {entry.field!r}, which is the name of masks; name it otherwise"
            )
        elif (first := by_name.setdefault((entry.patient, entry.field), path)) != path:
            raise InputError(
                f"{path}: would be the field {entry.patient}_{entry.field}, as {first} is; name them in "
                f"{field_table.NAME} (`mitoscope fields {images}` writes one to edit)"
            )
    if unknown:
        more = f" (and {len(unknown) - 1} more images)" if unknown[1:] else ""
        raise InputError(
            f"{unknown[0]}: whose field is this? The name is not PATIENT_FIELD{more}; run `mitoscope fields {images}`, "
            f"fill in the column patient of {images / field_table.NAME} and import again, or give another table with "
            "--fields; or pass --patient-per-image if every image is another patient"
        )


def _told(images: Path, listed: Iterable[Path], target: Target) -> dict[str, Entry]:
    """Return what the table of fields says, by the relative paths of the images.

    Raises:
        InputError: a row names no image. Its image would be imported under the patient in its name, perhaps another.
    """
    table = target.fields or images / field_table.NAME
    if not (target.fields or table.exists()):
        return {}
    rows = {entry.file: entry for entry in read_field_table(table)}
    alike = {composed(file): entry for file, entry in rows.items()}
    files = [path.relative_to(images).as_posix() for path in listed]
    present = {composed(file) for file in files}
    if missing := [file for file in rows if composed(file) not in present]:
        more = f" (and {len(missing) - 1} more rows)" if missing[1:] else ""
        raise InputError(
            f"{table}: names {plain(missing[0])}, but {images} has no such image{more}; correct the name with its "
            "suffix, or remove the row"
        )
    told = {file: rows.get(file) or alike.get(composed(file)) for file in files}
    return {file: entry._replace(file=file) for file, entry in told.items() if entry}


def _named(entry: Entry, known: Entry | None, *, per_image: bool) -> Entry:
    """Return an entry with patient and field as far as they can be known."""
    file = PurePosixPath(entry.file)
    patient, field = split_name(file.stem) or ("", as_id(file.stem))
    if entry.patient:
        return entry._replace(field=entry.field or field)
    if per_image:
        return entry._replace(patient=as_id(str(file.with_suffix(""))), field=entry.field or "01")
    if known:
        return entry._replace(patient=known.patient, field=entry.field or known.field)
    return entry._replace(patient=patient, field=entry.field or field)
