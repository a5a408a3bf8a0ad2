"""The raw dataset: fields of view with the centres of their mitoses, in Janowczyk's flat layout.

    PP_FF.tif        the field FF of patient PP, 8-bit RGB; also .tiff, .png, .jpg, .jpeg, .bmp
    PP_FF.csv        one mitosis centre `row,col` per line, in full-resolution pixels; missing or empty = no mitosis
    PP_FF_cmask.png  optional: where candidates may lie
    PP_FF_pc.png     optional: 4 px discs on the centres, read if there is no CSV
    dataset.yaml     optional: describes the dataset

Janowczyk's `PP_FF_brmask.png` is ignored.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mitoscope.datasets.images import IMAGE_SUFFIXES
from mitoscope.errors import InputError, first_problem
from mitoscope.files import write_text

MASKS = ("cmask", "pc")
_NO_FIELDS = (*MASKS, "brmask")
_FIELD_NAME = re.compile(r"(?P<patient>[A-Za-z0-9]+)_(?P<field>[A-Za-z0-9]+)")


class Description(BaseModel):
    """The content of `dataset.yaml`. All entries are optional, and so is the file."""

    model_config = ConfigDict(extra="forbid")

    name: str = "unnamed"
    source: str = "unknown"
    licence: str = "unknown"
    microns_per_pixel: float = Field(default=0.25, gt=0)
    annotation_order: Literal["row,col", "x,y"] = "row,col"
    synthetic: bool = False


@dataclass(frozen=True)
class FieldOfView:
    """One image of the dataset, and the paths of its annotation and masks."""

    image: Path
    patient: str
    field: str

    @property
    def name(self) -> str:
        """The name of the field in every table and file, `PP_FF`."""
        return f"{self.patient}_{self.field}"

    @property
    def annotation(self) -> Path:
        """Path of the CSV with the centres; the file may be missing."""
        return self.image.with_name(f"{self.name}.csv")

    def mask(self, kind: str) -> Path:
        """Return the path of the mask of this `kind`, one of MASKS; the file may be missing."""
        return self.image.with_name(f"{self.name}_{kind}.png")


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
        raise InputError(f"{path}: {first_problem(error)}") from error


def write_description(data: Path, description: Description) -> None:
    """Write `dataset.yaml` into the folder `data`."""
    write_text(data / "dataset.yaml", yaml.safe_dump(description.model_dump(), sort_keys=False))


def list_fields(data: Path) -> list[FieldOfView]:
    """List the fields in the folder `data`, sorted by name.

    Raises:
        InputError: the folder does not exist or contains no fields, an image is not named PATIENT_FIELD, or two images
            differ only in their suffix.
    """
    fields, problems = scan_fields(data)
    if problems:
        raise InputError(problems[0])
    return fields


def scan_fields(data: Path) -> tuple[list[FieldOfView], list[str]]:
    """List the fields in the folder `data` like `list_fields`, but continue after a problem and collect all problems.

    Raises:
        InputError: the folder does not exist.
    """
    if not data.is_dir():
        raise InputError(f"{data}: no such folder; get the sample with `dvc pull data.dvc` or import a dataset")
    fields: dict[str, FieldOfView] = {}
    problems = []
    for path in sorted(data.iterdir()):
        if path.name.startswith(".") or path.suffix.lower() not in IMAGE_SUFFIXES or is_mask(path):
            continue
        match = _FIELD_NAME.fullmatch(path.stem)
        if match is None:
            problems.append(
                f"{path}: no patient id in the name; rename it to PATIENT_FIELD{path.suffix}, as in 01_02{path.suffix}"
            )
            continue
        field = FieldOfView(path, match["patient"], match["field"])
        first = fields.setdefault(field.name, field)
        if first is not field:
            problems.append(f"{path}: has the same field name as {first.image.name}; keep one of them")
    if not fields and not problems:
        problems.append(f"{data}: contains no fields; expected images named PATIENT_FIELD.tif, .png, .jpg or .bmp")
    return list(fields.values()), problems


def is_mask(path: Path) -> bool:
    """Whether this image is named like a mask, such as `PP_FF_cmask.png`, including masks that are ignored."""
    return path.stem.rpartition("_")[2] in _NO_FIELDS
