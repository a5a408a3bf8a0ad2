"""Check a raw dataset: read every image, annotation and mask, and collect all problems."""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mitoscope.cluster import results
from mitoscope.datasets import field_table
from mitoscope.datasets.annotations import scan_centres, scan_lookalikes
from mitoscope.datasets.conflicts import find_copies, find_unknown_sizes, hash_pixels
from mitoscope.datasets.fields import (
    IMAGE_SUFFIXES,
    MASKS,
    Description,
    FieldOfView,
    PixelSize,
    contradicted,
    is_mask,
    pixel_size,
    read_description,
    scan_fields,
)
from mitoscope.datasets.readers import read_mask, read_picture
from mitoscope.errors import InputError

Progress = Callable[[str, int, int], None]
"""Called with the name of a step, the amount done and the total."""


@dataclass(frozen=True)
class CheckedField:
    """The contents of one field.

    Attributes:
        name: its name PP_FF.
        patient: id of the patient.
        domain: as in `fields.csv`; may be empty.
        width: px; 0 if the image cannot be read.
        height: px; 0 if the image cannot be read.
        pixel: size of a pixel; None if the image cannot be read.
        tag: um per pixel as the image file says, if it does.
        pixels: SHA-256 of the pixels; empty if the image cannot be read.
        transparent: share of the image that is transparent, as text; empty if it is opaque or cannot be read.
        mitoses: number of annotated mitoses.
        lookalikes: number of labelled look-alikes.
        masks: the kinds of its masks.
        problems: one line each.
    """

    name: str
    patient: str
    domain: str
    width: int
    height: int
    pixel: PixelSize | None
    tag: float | None
    pixels: str
    transparent: str
    mitoses: int
    lookalikes: int
    masks: tuple[str, ...]
    problems: tuple[str, ...]


@dataclass(frozen=True)
class PatientTotal:
    """The fields and mitoses of one patient."""

    patient: str
    fields: int
    mitoses: int


@dataclass(frozen=True)
class Report:
    """The contents of a dataset, and its problems.

    Attributes:
        fields: One entry per field, sorted by name.
        patients: The totals of each patient, sorted by name.
        problems: One line each, naming the file (and the row); any problem makes the dataset unusable.
        copies: Warning that two patients have the same image: the dataset can be corrected, but `extract` rejects it.
        pixel_sizes: Warnings, one line each: image files that disagree with a setting, sizes that nothing gives.
        others: Other warnings, one line each; the dataset can be used, but perhaps not as intended.
    """

    fields: tuple[CheckedField, ...]
    patients: tuple[PatientTotal, ...]
    problems: tuple[str, ...]
    copies: tuple[str, ...]
    pixel_sizes: tuple[str, ...]
    others: tuple[str, ...]

    @property
    def warnings(self) -> tuple[str, ...]:
        """All warnings."""
        return self.copies + self.others + self.pixel_sizes

    @property
    def mitoses(self) -> int:
        """Number of mitoses in all fields."""
        return sum(field.mitoses for field in self.fields)

    @property
    def lookalikes(self) -> int:
        """Number of labelled look-alikes in all fields."""
        return sum(field.lookalikes for field in self.fields)


def check_dataset(
    data: Path, *, on_progress: Progress = lambda step, done, total: None, scheduler: str | None = None
) -> Report:
    """Read every file of the dataset in the folder `data` once, in parallel, and report on it.

    Args:
        data: The raw dataset.
        on_progress: Called after each field.
        scheduler: Address of a Dask scheduler, whose workers read the fields; None = threads of this process.

    Raises:
        InputError: the folder does not exist, or as in `cluster.results`.
        OSError: the cluster is lost.
    """
    (fields, problems, unlisted), description = scan_fields(data), Description()
    try:
        description = read_description(data)
    except InputError as error:
        problems.append(str(error))
    checked: list[CheckedField] = []
    with closing(results(partial(_check_field, description=description), fields, scheduler)) as found:
        for field in found:
            checked.append(field)
            on_progress("checking", len(checked), len(fields))
    problems += [problem for field in checked for problem in field.problems]
    read = [(field, found) for field, found in zip(fields, checked, strict=True) if found.pixel]
    readable = [field for field, _ in read]
    problems += find_unknown_sizes(readable, [found.pixel.source for _, found in read if found.pixel])
    copies = tuple(f"{line} (`extract` rejects it)" for line in find_copies(readable, [at.pixels for _, at in read]))
    # A field without a CSV takes its centres from `_pc.png`, so a problem with this mask is found twice.
    distinct = tuple(dict.fromkeys(problems))
    patients, sizes = _total_patients(checked), tuple(_doubtful_pixel_sizes(checked, description))
    others = (
        *_unused_files(data),
        *_unlisted_images(unlisted, fields),
        *_patients_without_mitosis(patients),
        *_transparent_fields(checked),
    )
    return Report(tuple(checked), patients, distinct, copies, sizes, others)


def _check_field(field: FieldOfView, description: Description) -> CheckedField:
    """Read one field's files. If its image cannot be read, its annotations and masks cannot be checked either."""
    masks = tuple(kind for kind in MASKS if field.mask(kind).exists())
    try:
        picture = read_picture(field.image)
    except InputError as error:
        return CheckedField(
            field.name, field.patient, field.domain, 0, 0, None, None, "", "", 0, 0, masks, (str(error),)
        )
    shape = picture.shape
    problems: list[str] = []
    counts = []
    for scan in (scan_centres, scan_lookalikes):
        count = 0
        try:
            centres, bad_rows = scan(field, shape, description.annotation_order)
            count = len(centres)
        except InputError as error:
            bad_rows = [str(error)]
        counts.append(count)
        problems += bad_rows
    for kind in masks:
        try:
            read_mask(field.mask(kind), shape)
        except InputError as error:
            problems.append(str(error))
    return CheckedField(
        field.name,
        field.patient,
        field.domain,
        width=shape[1],
        height=shape[0],
        pixel=pixel_size(field.microns_per_pixel, picture.microns_per_pixel, description),
        tag=picture.microns_per_pixel,
        pixels=hash_pixels(picture.pixels),
        transparent=picture.transparent,
        mitoses=counts[0],
        lookalikes=counts[1],
        masks=masks,
        problems=tuple(problems),
    )


def _total_patients(checked: list[CheckedField]) -> tuple[PatientTotal, ...]:
    groups: dict[str, list[CheckedField]] = {}
    for field in checked:
        groups.setdefault(field.patient, []).append(field)
    return tuple(
        PatientTotal(patient, len(fields), sum(field.mitoses for field in fields))
        for patient, fields in sorted(groups.items())
    )


def _unused_files(data: Path) -> Iterator[str]:
    """Warn about annotations and masks without an image: their mitoses would not be counted."""
    files = sorted(data.rglob("*"))
    used = {data / field_table.NAME}
    for path in files:
        if path.suffix.lower() in IMAGE_SUFFIXES and not is_mask(path):
            image = FieldOfView(path, "", "")  # if it is no field, a line about the image says so
            used |= {image.annotation, image.lookalikes, *map(image.mask, MASKS)}
    for path in files:
        suffix = path.suffix.lower()
        belongs_to_field = suffix == ".csv" or (suffix in IMAGE_SUFFIXES and path.stem.rpartition("_")[2] in MASKS)
        if belongs_to_field and not path.name.startswith(".") and path not in used:
            yield f"{path}: belongs to no field and is not used; is its image missing, or its name misspelt?"


def _unlisted_images(unlisted: list[Path], fields: list[FieldOfView]) -> Iterator[str]:
    if unlisted and fields:
        yield (
            f"{unlisted[0]}: is in a folder and not in {field_table.NAME}, so it is not used "
            f"({len(unlisted)} such images)"
        )


def _patients_without_mitosis(patients: tuple[PatientTotal, ...]) -> Iterator[str]:
    for patient in patients:
        if not patient.mitoses:
            yield f"patient {patient.patient}: no mitosis in any field ({patient.fields}); are annotations missing?"


def _doubtful_pixel_sizes(checked: list[CheckedField], description: Description) -> Iterator[str]:
    """Warn where an image file disagrees with a setting, and where nothing gives the pixel size."""
    known = [(field, field.pixel) for field in checked if field.pixel]
    off: dict[str, list[str]] = {"dataset.yaml": [], field_table.NAME: []}
    for field, pixel in known:
        if setting := contradicted(pixel, field.tag, description):
            line = f"{field.name}: {field.tag:.4g} um in the file, {setting.microns:.4g} um in {setting.source}"
            off[setting.source].append(line)
    for name, lines in off.items():
        if lines:
            used = "the files'" if name == "dataset.yaml" else "the table's"
            count = f"{len(lines)} of {len(checked)} images"
            yield f"{count} say another pixel size than {name}; {used} is used. {lines[0]}"
    if assumed := [pixel for _, pixel in known if pixel.source == "default"]:
        yield (
            f"nothing gives the pixel size of {len(assumed)} fields, so {assumed[0].microns:g} um is assumed; write "
            "microns_per_pixel into dataset.yaml, or into fields.csv where fields differ"
        )


def _transparent_fields(checked: list[CheckedField]) -> Iterator[str]:
    if partly := [field for field in checked if field.transparent]:
        yield (
            f"{len(partly)} fields are partly transparent, such as {partly[0].name} ({partly[0].transparent}); "
            "transparent parts have no candidates and do not count as area"
        )
