"""Put images and annotations together into a raw dataset, a new one or one that is there."""

import filecmp
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

import numpy as np

from mitoscope.datasets import field_table
from mitoscope.datasets.annotations import Centres, read_lookalikes, write_centres
from mitoscope.datasets.field_table import Entry, composed, read_field_table, write_field_table
from mitoscope.datasets.fields import (
    Description,
    FieldOfView,
    list_fields,
    list_images,
    read_description,
    write_description,
)
from mitoscope.datasets.importers import Annotations, Found, Summary, Target, check_import, require_outside
from mitoscope.datasets.importers.naming import find_images, name_fields
from mitoscope.datasets.importers.tidy import Tidy, near_image
from mitoscope.datasets.readers import read_microns
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
    and a look-alike at the place of a mitosis is left out. All of this is counted in the notes.

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
            `target.out` is not empty and neither replaced nor added to. `target.out` is unchanged.
    """
    if target.add and target.replace:
        raise InputError(f"{target.out}: --add keeps what is there and --replace does not; give one of them")
    if not images.is_dir():
        raise InputError(f"{images}: no such folder; give the folder with the images")
    require_outside(images, target)
    listed = list_images(images)
    if not found.by_image:
        raise InputError(f"{images}: no image has an annotation; nothing to import")
    paths = find_images(images, listed, found.by_image)
    entries = name_fields(images, listed, paths.values(), target, known or {})
    old = _Old(target)
    with atomic_folder(target.out, replace=target.replace or target.add) as folder:
        origins = {folder: str(target.out)}
        if old.kept:
            _keep(target.out, folder)
        if not old.described:
            given = {} if target.microns_per_pixel is None else {"microns_per_pixel": target.microns_per_pixel}
            write_description(folder, _described(images, description).model_copy(update=given))
        fields: dict[str, FieldOfView] = {}
        rows: dict[Path, Entry] = {}
        for done, (name, path) in enumerate(paths.items(), start=1):
            row = entries[path]._replace(file=old.place(path, entries[path]))
            fields[name] = FieldOfView(folder / row.file, row.patient, row.field)
            _copy(path, fields[name])
            origins[fields[name].image] = str(path)
            rows[path] = row
            on_progress("copying", done, len(paths))
        old.write_table(folder, rows)
        # The images are read once, to check them; only then are their sizes known, and the centres can be written.
        report = check_import(folder, origins=origins, on_progress=on_progress)
        checked = {field.name: field for field in report.fields}
        tidy = Tidy()
        for name, field in fields.items():
            shape = _shape(checked[field.name], paths[name], found.shapes.get(name))
            _require_inside(paths[name], found.by_image[name], shape)
            mitoses, lookalikes = tidy.tidy(found.by_image[name], shape, old.lookalikes(field, shape))
            write_centres(field.annotation, old.in_order(mitoses))
            if len(lookalikes):
                write_centres(field.lookalikes, old.in_order(lookalikes))
    new = [checked.pop(field.name) for field in fields.values()]
    used = set(paths.values())
    return Summary(
        len(report.fields),
        len(report.patients),
        tidy.mitoses + sum(field.mitoses for field in checked.values()),
        tidy.lookalikes + sum(field.lookalikes for field in checked.values()),
        () if old.holds(images) else tuple(path.relative_to(images).as_posix() for path in listed if path not in used),
        (*found.notes, *tidy.notes(), *old.notes(new), *report.pixel_sizes),
    )


def _described(images: Path, description: Description) -> Description:
    """Return the `dataset.yaml` beside the images, with the order that is written here, or else `description`."""
    if not (images / "dataset.yaml").exists():
        return description
    try:
        return read_description(images).model_copy(update={"annotation_order": "row,col"})
    except InputError:  # of another tool
        return description


def _keep(out: Path, folder: Path) -> None:
    """Bring everything in `out` into `folder`, as hard links where the disk has them; links stay links."""

    def link(source: str, copy: str) -> str:
        try:
            os.link(source, copy, follow_symlinks=False)
        except OSError:  # another disk, or one without hard links
            shutil.copy2(source, copy, follow_symlinks=False)
        return copy

    shutil.copytree(out, folder, symlinks=True, copy_function=link, dirs_exist_ok=True)


def _copy(image: Path, field: FieldOfView) -> None:
    """Copy an image and its mask of candidates unless they are there, and remove the annotations that are there."""
    for source, copy in ((image, field.image), (image.with_name(f"{image.stem}_cmask.png"), field.mask("cmask"))):
        if source.exists() and not copy.exists():
            shutil.copyfile(source, copy)
    field.annotation.unlink(missing_ok=True)
    field.lookalikes.unlink(missing_ok=True)


def _shape(checked: CheckedField, image: Path, said: tuple[int, int] | None) -> tuple[int, int]:
    """Return rows and columns of an image, or raise InputError if the annotations are of an image of another size."""
    shape = (checked.height, checked.width)
    if said and said != shape:
        raise InputError(
            f"{image}: is {shape[1]} x {shape[0]} px, but the annotations are for {said[1]} x {said[0]} px; get the "
            "image as it was published, neither cut nor scaled"
        )
    return shape


def _require_inside(image: Path, found: Annotations, shape: tuple[int, int]) -> None:
    """Check that the annotations can be of this image.

    Raises:
        InputError: there are several, and all of them lie outside it.
    """
    centres = np.concatenate(found)
    if len(centres) > 1 and not near_image(centres, shape).any():
        raise InputError(
            f"{image}: all {len(centres)} annotations lie outside this image of {shape[1]} x {shape[0]} px; is it the "
            "image that was annotated, neither cut nor scaled?"
        )


class _Old:
    """The dataset in the output folder that is added to.

    Attributes:
        kept: whether there is a folder whose content is kept.
        described: whether something is kept for which `dataset.yaml` holds, so that it must stay as it is.
        fields: the fields in it by name.
        description: its `dataset.yaml`.
    """

    def __init__(self, target: Target) -> None:
        self._out = target.out
        self._microns = target.microns_per_pixel
        self.kept = target.add and target.out.is_dir()
        filled = self.kept and bool(list_images(target.out))
        self.fields = {field.name: field for field in list_fields(target.out)} if filled else {}
        self.described = bool(self.fields) or (self.kept and (target.out / "dataset.yaml").exists())
        self.description = read_description(target.out) if self.kept else Description()
        table = target.out / field_table.NAME
        entries = read_field_table(table) if filled and table.exists() else []
        self._rows = {composed(entry.file): entry for entry in entries}

    def holds(self, path: Path) -> bool:
        """Whether this path is in the dataset."""
        return bool(self.fields) and path.resolve().is_relative_to(self._out.resolve())

    def place(self, path: Path, entry: Entry) -> str:
        """Return the path, relative to the dataset, of an image that is there or will be.

        Raises:
            InputError: another image is there under this name.
        """
        if self.holds(path):
            return path.resolve().relative_to(self._out.resolve()).as_posix()
        name = f"{entry.patient}_{entry.field}"
        if name not in self.fields:
            return f"{name}{path.suffix}"
        there = self.fields[name].image
        if not filecmp.cmp(path, there, shallow=False):
            raise InputError(f"{path}: would be the field {name}, but {there} is another image; name it in fields.csv")
        return there.relative_to(self._out).as_posix()

    def write_table(self, folder: Path, rows: Mapping[Path, Entry]) -> None:
        """Write `fields.csv` if a field needs it.

        Args:
            folder: the new dataset.
            rows: the rows of the imported images by their path; what they say takes precedence over what is there.

        Raises:
            InputError: an image whose pixel size is asked for is none.
        """
        merged = dict(self._rows)
        for path, row in rows.items():
            file = composed(row.file)
            before = merged.get(file, row)
            microns = row.microns_per_pixel or before.microns_per_pixel
            if self.described and microns is None and self._microns is not None and read_microns(path) is None:
                microns = self._microns  # in dataset.yaml it would change the other fields too
            entry = row._replace(microns_per_pixel=microns, domain=row.domain or before.domain)
            plain = PurePosixPath(row.file).with_suffix("").as_posix() == f"{row.patient}_{row.field}"
            if file in merged or not plain or entry.microns_per_pixel is not None or entry.domain:
                merged[file] = entry
        if merged:
            write_field_table(folder / field_table.NAME, merged.values())

    def in_order(self, centres: Centres) -> Centres:
        """Return (N, 2) row, col as the dataset's CSV files have them."""
        return centres[:, ::-1] if self.description.annotation_order == "x,y" else centres

    def lookalikes(self, field: FieldOfView, shape: tuple[int, int]) -> Centres:
        """Return the look-alikes that the field had."""
        if field.name not in self.fields:
            return np.empty((0, 2))
        return read_lookalikes(self.fields[field.name], shape, self.description.annotation_order)

    def notes(self, new: Iterable[CheckedField]) -> tuple[str, ...]:
        """Say which pixel size new fields inherit."""
        inherited = [field for field in new if field.name not in self.fields and field.pixel]
        inherited = [field for field in inherited if field.pixel and field.pixel.source == "dataset.yaml"]
        if not (self.fields and inherited):
            return ()
        size = self.description.microns_per_pixel
        return (
            f"{len(inherited)} new fields take the pixel size of dataset.yaml, {size:g} um; give another one with "
            "--microns-per-pixel",
        )
