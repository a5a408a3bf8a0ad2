"""The dataset in the output folder that an import adds to, and what the import replaces in it."""

import filecmp
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

import numpy as np

from mitoscope.datasets import field_table
from mitoscope.datasets.annotations import Centres, distance_to_nearest, read_lookalikes, scan_centres, write_centres
from mitoscope.datasets.field_table import Entry, composed, read_field_table, write_field_table
from mitoscope.datasets.fields import Description, FieldOfView, list_fields, list_images, read_description
from mitoscope.datasets.importers import Annotations, Target
from mitoscope.datasets.importers.detected import ROUNDING
from mitoscope.datasets.readers import read_microns
from mitoscope.datasets.validation import CheckedField
from mitoscope.errors import InputError

_MOST_FIELDS = 5  # named in a note


class Existing:
    """The dataset in the output folder that is added to; of a folder that is not kept, nothing.

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

    def copy_to(self, folder: Path) -> None:
        """Bring everything that is kept into `folder`, as hard links where the disk has them; links stay links."""

        def link(source: str, copy: str) -> str:
            try:
                os.link(source, copy, follow_symlinks=False)
            except OSError:  # another disk, or one without hard links
                shutil.copy2(source, copy, follow_symlinks=False)
            return copy

        if self.kept:
            shutil.copytree(self._out, folder, symlinks=True, copy_function=link, dirs_exist_ok=True)

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

    def write(self, field: FieldOfView, annotations: Annotations) -> None:
        """Write the CSV files of a field in the dataset's order of columns."""
        step = -1 if self.description.annotation_order == "x,y" else 1
        write_centres(field.annotation, annotations.mitoses[:, ::step])
        if len(annotations.lookalikes):
            write_centres(field.lookalikes, annotations.lookalikes[:, ::step])

    def annotations(self, field: FieldOfView, shape: tuple[int, int]) -> Annotations:
        """Return what the field had, none if it is new; bad rows of mitoses, which are replaced, are left out.

        Raises:
            InputError: the look-alikes, some of which may be kept, cannot be read.
        """
        nothing = np.empty((0, 2))
        if field.name not in self.fields:
            return Annotations(nothing, nothing)
        there, order = self.fields[field.name], self.description.annotation_order
        try:
            mitoses, _ = scan_centres(there, shape, order)
        except InputError:
            mitoses = nothing
        return Annotations(mitoses, read_lookalikes(there, shape, order))

    def replaced(self, changes: Mapping[str, tuple[Annotations, Annotations]]) -> Iterator[str]:
        """Yield a line on the fields whose annotations were replaced by others, and one on those with the same.

        Args:
            changes: the annotations of each imported field by name, before and after.
        """
        replaced = []
        same = 0
        for name, (before, after) in changes.items():
            if name in self.fields:
                kinds = zip(("mitoses", "look-alikes"), before, after, strict=True)
                counts = [_change(was, now, kind) for kind, was, now in kinds if not _is_same(was, now)]
                replaced += [f"{name}: {' and '.join(counts)}"] if counts else []
                same += not counts
        if replaced:
            more = f"; and {len(replaced) - _MOST_FIELDS} more fields" if replaced[_MOST_FIELDS:] else ""
            yield f"replaced in {self._out}: {'; '.join(replaced[:_MOST_FIELDS])}{more}"
        if same:
            yield f"unchanged in {self._out}: the annotations of {same} fields"

    def inherited(self, new: Iterable[CheckedField]) -> Iterator[str]:
        """Say which pixel size new fields inherit."""
        inherited = [field for field in new if field.name not in self.fields and field.pixel]
        inherited = [field for field in inherited if field.pixel and field.pixel.source == "dataset.yaml"]
        if self.fields and inherited:
            yield (
                f"{len(inherited)} new fields take the pixel size of dataset.yaml, "
                f"{self.description.microns_per_pixel:g} um; give another one with --microns-per-pixel"
            )


def _is_same(was: Centres, now: Centres) -> bool:
    return len(was) == len(now) and bool((distance_to_nearest(was, now) <= ROUNDING).all())


def _change(was: Centres, now: Centres, kind: str) -> str:
    return f"{len(was)} -> {len(now)} {kind}" + (" (other positions)" if len(was) == len(now) else "")
