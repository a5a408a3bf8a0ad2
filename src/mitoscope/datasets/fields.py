"""The raw dataset: fields of view with the centres of their mitoses, in Janowczyk's flat layout.

    PP_FF.tif            the field FF of patient PP, 8-bit RGB; also .tiff, .png, .jpg, .jpeg, .bmp
    PP_FF.csv            one mitosis centre `row,col` per line, in full-resolution pixels; missing or empty = no mitosis
    PP_FF_nonmitotic.csv optional: look-alikes that are no mitoses, in the same form
    PP_FF_cmask.png      optional: where candidates may lie
    PP_FF_pc.png         optional: 4 px discs on the centres, read if there is no CSV
    fields.csv           optional: patient, field, pixel size and domain of images with any name
    dataset.yaml         optional: describes the dataset

Janowczyk's `PP_FF_brmask.png` is ignored.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mitoscope.datasets import field_table
from mitoscope.datasets.field_table import (
    COARSEST_UM,
    FINEST_UM,
    Entry,
    as_id,
    composed,
    is_id,
    scan_field_table,
    split_name,
)
from mitoscope.errors import InputError, first_problem
from mitoscope.files import write_text

IMAGE_SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".bmp")  # of the formats in `readers`, which load OpenCV
MASKS = ("cmask", "pc")
_NO_FIELDS = (*MASKS, "brmask")


class Description(BaseModel):
    """The content of `dataset.yaml`. All entries are optional, and so is the file."""

    model_config = ConfigDict(extra="forbid")

    name: str = "unnamed"
    source: str = "unknown"
    licence: str = "unknown"
    microns_per_pixel: float = Field(default=0.25, ge=FINEST_UM, le=COARSEST_UM, strict=True)
    annotation_order: Literal["row,col", "x,y"] = "row,col"
    synthetic: bool = False


@dataclass(frozen=True)
class FieldOfView:
    """One image of the dataset, and the paths of its annotations and masks.

    Attributes:
        image: path of the image.
        patient: id of the patient.
        field: id of the field among the patient's.
        microns_per_pixel: um, if `fields.csv` gives it; else None.
        domain: scanner, laboratory or tumour, as in `fields.csv`; may be empty.
    """

    image: Path
    patient: str
    field: str
    microns_per_pixel: float | None = None
    domain: str = ""

    @property
    def name(self) -> str:
        """The name of the field in every table and file, `PP_FF`."""
        return f"{self.patient}_{self.field}"

    @property
    def annotation(self) -> Path:
        """Path of the CSV with the centres of the mitoses; the file may be missing."""
        return self.image.with_name(f"{self.image.stem}.csv")

    @property
    def lookalikes(self) -> Path:
        """Path of the CSV with the centres of labelled look-alikes; the file may be missing."""
        return self.image.with_name(f"{self.image.stem}_nonmitotic.csv")

    def mask(self, kind: str) -> Path:
        """Return the path of the mask of this `kind`, one of MASKS; the file may be missing."""
        return self.image.with_name(f"{self.image.stem}_{kind}.png")


class PixelSize(NamedTuple):
    """The pixel size of a field, um, and where it is from: `fields.csv`, `file`, `dataset.yaml` or `default`."""

    microns: float
    source: str


def pixel_size(listed: float | None, tag: float | None, description: Description) -> PixelSize:
    """Return the pixel size of a field: from `fields.csv`, else from the image file, else from `dataset.yaml`.

    Args:
        listed: um per pixel that `fields.csv` gives, if any.
        tag: um per pixel that the image file itself gives, if any.
        description: the dataset's `dataset.yaml`.
    """
    if listed is not None:
        return PixelSize(listed, field_table.NAME)
    if tag is not None:
        return PixelSize(tag, "file")
    given = "microns_per_pixel" in description.model_fields_set
    return PixelSize(description.microns_per_pixel, "dataset.yaml" if given else "default")


def contradicted(size: PixelSize, tag: float | None, description: Description) -> PixelSize | None:
    """Return the setting from which the image file's own pixel size differs by more than 5 %, that is 10 % of an area.

    Args:
        size: the pixel size that is used.
        tag: um per pixel that the image file itself gives, if any.
        description: the dataset's `dataset.yaml`, with which the file is compared if its own size is used.
    """
    setting = pixel_size(None, None, description) if size.source == "file" else size
    if tag is None or setting.source == "default" or abs(tag / setting.microns - 1) <= 0.05:
        return None
    return setting


def read_description(data: Path) -> Description:
    """Read `dataset.yaml` in the folder `data`; if the file is missing, return the defaults.

    Raises:
        InputError: the file is not YAML, or has an unknown entry or an invalid value.
    """
    path = data / "dataset.yaml"
    if not path.exists():
        return Description()
    try:
        return Description.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: is not valid YAML ({str(error).splitlines()[0]})") from error
    except ValidationError as error:
        raise InputError(f"{path}: {first_problem(error, Description)}") from error


def write_description(data: Path, description: Description) -> None:
    """Write `dataset.yaml` into the folder `data`; a pixel size that nobody has given stays out of it."""
    known = "microns_per_pixel" in description.model_fields_set
    content = description.model_dump(exclude=None if known else {"microns_per_pixel"})
    write_text(data / "dataset.yaml", yaml.safe_dump(content, sort_keys=False))


def list_fields(data: Path) -> list[FieldOfView]:
    """List the fields in the folder `data`, sorted by name.

    Raises:
        InputError: the folder does not exist or contains no fields, an image has no patient, two fields have one name,
            or `fields.csv` is bad.
    """
    fields, problems, _ = scan_fields(data)
    if problems:
        raise InputError(problems[0])
    return fields


def scan_fields(data: Path) -> tuple[list[FieldOfView], list[str], list[Path]]:
    """List the fields in the folder `data` like `list_fields`, but continue after a problem.

    Returns:
        The fields, all problems, and the images in folders that `fields.csv` does not name, so that they are no fields.

    Raises:
        InputError: the folder does not exist.
    """
    if not data.is_dir():
        raise InputError(f"{data}: no such folder; get the sample with `dvc pull data.dvc` or import a dataset")
    table = data / field_table.NAME
    try:
        entries, problems = scan_field_table(table) if table.exists() else ({}, [])
    except InputError as error:  # without its table, nothing is known about an image
        return [], [str(error)], []
    fields: dict[str, FieldOfView] = {}
    stems: dict[Path, Path] = {}
    unlisted = []
    for path in list_images(data):
        name = composed(path.relative_to(data).as_posix())
        if name not in entries and path.parent != data:
            unlisted.append(path)
            continue
        entry = entries.pop(name, Entry(path.name))
        if entry is None:  # its row is bad
            continue
        field = _field(path, entry)
        if field is None:
            problems.append(
                f"{path}: no patient id in the name; rename it to PATIENT_FIELD{path.suffix}, as in "
                f"01_02{path.suffix}, or name its patient in {field_table.NAME} (`mitoscope fields` writes one to edit)"
            )
            continue
        first = fields.setdefault(field.name, field)
        beside = stems.setdefault(path.with_suffix(""), path)
        if first is not field:
            problems.append(
                f"{path}: has the same field name as {first.image.name}; keep one of them, or give each a field of its "
                f"own in {field_table.NAME}"
            )
        elif beside is not path or path.stem.endswith("_nonmitotic"):
            shared = beside.name if beside is not path else f"{path.stem.removesuffix('_nonmitotic')}{path.suffix}"
            problems.append(f"{path}: would share an annotation file with {shared}; rename it")
    problems += [f"{data / name}: no such image, but {table.name} names it" for name, entry in entries.items() if entry]
    if not fields and not problems:
        problems.append(_what_is_missing(data, unlisted))
    problems += _similar_patients(data, {field.patient for field in fields.values()})
    return sorted(fields.values(), key=lambda field: field.name), problems, unlisted


def list_images(folder: Path) -> list[Path]:
    """List the images in a folder and its subfolders, sorted by path; masks and hidden files are left out."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES
        and not is_mask(path)
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def is_mask(path: Path) -> bool:
    """Whether this image is named like a mask, such as `PP_FF_cmask.png`, including masks that are ignored."""
    return path.stem.rpartition("_")[2] in _NO_FIELDS


def _similar_patients(data: Path, patients: set[str]) -> Iterator[str]:
    """Yield a problem for names that are surely one patient: a spreadsheet turns 01 into 1."""
    alike: dict[str, list[str]] = {}
    for patient in sorted(patients):
        alike.setdefault(patient.lstrip("0").casefold(), []).append(patient)
    for names in alike.values():
        if names[1:]:
            yield f"{data}: patients {names[0]} and {names[1]} look like one patient; give them one name, or others"


def _field(path: Path, entry: Entry) -> FieldOfView | None:
    """Return an image as a field; None if neither its entry nor its name says whose it is."""
    patient, field = split_name(path.stem) or ("", as_id(path.stem))
    patient, field = entry.patient or patient, entry.field or field
    if not (is_id(patient) and is_id(field)):
        return None
    return FieldOfView(path, patient, field, entry.microns_per_pixel, entry.domain)


def _what_is_missing(data: Path, unlisted: list[Path]) -> str:
    if not unlisted:
        return f"{data}: contains no fields; expected images named PATIENT_FIELD.tif, .png, .jpg or .bmp"
    return (
        f"{data}: has its images in folders, such as {unlisted[0].relative_to(data)}; {field_table.NAME} must name "
        "their patients (`mitoscope fields` writes one to edit)"
    )
