"""Put images and annotations together into a raw dataset, a new one or one that is there."""

import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np

from mitoscope.datasets.field_table import Entry
from mitoscope.datasets.fields import Description, FieldOfView, list_images, read_description, write_description
from mitoscope.datasets.importers import Annotations, Found, Summary, Target, check_import, only_import, require_outside
from mitoscope.datasets.importers.existing import Existing
from mitoscope.datasets.importers.naming import find_images, name_fields, require_fields
from mitoscope.datasets.importers.tidy import Tidy, near_image
from mitoscope.datasets.validation import CheckedField, Progress
from mitoscope.errors import InputError
from mitoscope.files import atomic_folder


def assemble(
    images: Path,
    found: Found,
    target: Target,
    description: Description,
    on_progress: Progress = lambda step, done, total: None,
    *,
    known: Mapping[str, Entry] | None = None,
) -> Summary:
    """Write a raw dataset of all annotated images into `target.out`; each image becomes PATIENT_FIELD.ext.

    Centres up to half a box outside their image are moved to its edge, others are left out; equal centres become one,
    and a look-alike at the place of a mitosis is left out. The notes count all of this.

    With `target.add` the dataset in `target.out` is kept. Its images that are annotated anew, in `images` or in `out`
    itself, stay where they are; their mitoses are replaced, and their look-alikes where a new annotation is near.

    Args:
        images: the folder of the images, also in folders.
        found: the annotations.
        target: where to, and what the user says about the images.
        description: the `dataset.yaml` of a new dataset.
        on_progress: called with the name of a step, the amount done and the total.
        known: patient and field of images by path relative to `images`, where the importer knows them.

    Raises:
        InputError: an annotated image is missing, has no patient or cannot be read, or the result is not valid; or
            `target.out` is not empty and neither replaced nor added to, or another import writes there. `target.out` is
            unchanged.
    """
    if target.add and target.replace:
        raise InputError(f"{target.out}: --add keeps what is there and --replace does not; give one of them")
    if not images.is_dir():
        raise InputError(f"{images}: no such folder; give the folder with the images")
    require_outside(images, target)
    listed = list_images(images)
    if not found.by_image:
        raise InputError(f"{images}: no image has an annotation; nothing to import")
    entries = name_fields(images, listed, target, known or {})
    paths = find_images(images, entries, found.by_image)
    require_fields(images, {path: entries[path] for path in paths.values()})
    with only_import(target.out), atomic_folder(target.out, replace=target.replace or target.add) as folder:
        existing = Existing(target)
        existing.copy_to(folder)
        if not existing.described:
            write_description(folder, _described(images, description, target.microns_per_pixel))
        origins = {folder: str(target.out)}
        fields: dict[str, FieldOfView] = {}
        rows: dict[Path, Entry] = {}
        for done, (name, path) in enumerate(paths.items(), start=1):
            row = entries[path]._replace(file=existing.place(path, entries[path]))
            fields[name] = FieldOfView(folder / row.file, row.patient, row.field)
            _copy(path, fields[name])
            origins[fields[name].image] = str(path)
            rows[path] = row
            on_progress("copying", done, len(paths))
        existing.write_table(folder, rows)
        # The images are read once, to check them; only then are their sizes known, and the centres can be written.
        report = check_import(folder, origins=origins, on_progress=on_progress, scheduler=target.scheduler)
        checked = {field.name: field for field in report.fields}
        tidy = Tidy()
        changes: dict[str, tuple[Annotations, Annotations]] = {}
        for name, field in fields.items():
            shape, microns = _pixels(checked[field.name], paths[name], found.shapes.get(name))
            _require_inside(paths[name], found.by_image[name], shape, microns)
            before = existing.annotations(field, shape)
            after = tidy.tidy(found.by_image[name], shape, microns, before.lookalikes)
            existing.write(field, after)
            changes[field.name] = (before, after)
    new = [checked.pop(field.name) for field in fields.values()]
    skipped = () if existing.holds(images) else (path for path in listed if path not in rows)
    notes = (*found.notes, *existing.replaced(changes), *tidy.notes(), *existing.inherited(new))
    return Summary(
        len(report.fields),
        len(report.patients),
        tidy.mitoses + sum(field.mitoses for field in checked.values()),
        tidy.lookalikes + sum(field.lookalikes for field in checked.values()),
        tuple(path.relative_to(images).as_posix() for path in skipped),
        (*notes, *report.copies, *report.pixel_sizes),
    )


def _described(images: Path, description: Description, microns_per_pixel: float | None) -> Description:
    """Return the `dataset.yaml` beside the images, or else `description`, with what holds for what is written here."""
    if (images / "dataset.yaml").exists():
        with suppress(InputError):  # it is of another tool
            description = read_description(images)
    given = {} if microns_per_pixel is None else {"microns_per_pixel": microns_per_pixel}
    return description.model_copy(update={"annotation_order": "row,col"} | given)


def _copy(image: Path, field: FieldOfView) -> None:
    """Copy an image and its mask of candidates unless they are there, and remove the annotations that are there."""
    for source, copy in ((image, field.image), (image.with_name(f"{image.stem}_cmask.png"), field.mask("cmask"))):
        if source.exists() and not copy.exists():
            shutil.copyfile(source, copy)
    field.annotation.unlink(missing_ok=True)
    field.lookalikes.unlink(missing_ok=True)


def _pixels(checked: CheckedField, image: Path, said: tuple[int, int] | None) -> tuple[tuple[int, int], float]:
    """Return rows and columns of an image, and um per pixel.

    Raises:
        InputError: the annotations are of an image of another size.
    """
    shape = (checked.height, checked.width)
    if said and said != shape:
        raise InputError(
            f"{image}: is {shape[1]} x {shape[0]} px, but the annotations are for {said[1]} x {said[0]} px; get the "
            "image as it was published, neither cut nor scaled"
        )
    assert checked.pixel  # the image could be read
    return shape, checked.pixel.microns


def _require_inside(image: Path, found: Annotations, shape: tuple[int, int], microns_per_pixel: float) -> None:
    """Check that the annotations can be of this image.

    Raises:
        InputError: there are several, and all of them lie outside it.
    """
    centres = np.concatenate(found)
    if len(centres) > 1 and not near_image(centres, shape, microns_per_pixel).any():
        raise InputError(
            f"{image}: all {len(centres)} annotations lie outside this image of {shape[1]} x {shape[0]} px; is it the "
            "image that was annotated, neither cut nor scaled?"
        )
