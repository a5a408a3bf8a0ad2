"""The raw dataset: fields of view with the centres of their mitoses, in Janowczyk's flat layout.

`PP_FF.tif` (also .tiff .png .jpg .jpeg .bmp; PP patient, FF field; RGB, 8 bit) with `PP_FF.csv` beside it (one
`row,col` per line in full-resolution pixels; missing or empty = no mitosis) and optionally `PP_FF_cmask.png` (where
candidates may lie) and `PP_FF_pc.png` (4 px discs on the centres, read where there is no CSV). Nothing reads
Janowczyk's `PP_FF_brmask.png`. `dataset.yaml` describes the whole.
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
    """The content of `dataset.yaml`; every entry has a default, and so has the file itself."""

    model_config = ConfigDict(extra="forbid")

    name: str = "unnamed"
    source: str = "unknown"
    licence: str = "unknown"
    microns_per_pixel: float = Field(default=0.25, gt=0)
    annotation_order: Literal["row,col", "x,y"] = "row,col"
    synthetic: bool = False


@dataclass(frozen=True)
class FieldOfView:
    """One image of the dataset and the files beside it."""

    image: Path
    patient: str
    field: str

    @property
    def name(self) -> str:
        """`PP_FF`, the name that the field has in every table and file."""
        return f"{self.patient}_{self.field}"

    @property
    def annotation(self) -> Path:
        """The CSV of the centres, which may be missing."""
        return self.image.with_name(f"{self.name}.csv")

    def mask(self, kind: str) -> Path:
        """The optional mask of this `kind`, one of MASKS, which may be missing."""
        return self.image.with_name(f"{self.name}_{kind}.png")


def read_description(data: Path) -> Description:
    """Read `dataset.yaml` in the folder `data`; a missing file means the defaults.

    Raises:
        InputError: the file is not YAML, or has an unknown or wrong entry.
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
        InputError: there is no such folder or no field in it, an image's name is not PATIENT_FIELD, or two images
            have the same name and different suffixes.
    """
    fields, problems = scan_fields(data)
    if problems:
        raise InputError(problems[0])
    return fields


def scan_fields(data: Path) -> tuple[list[FieldOfView], list[str]]:
    """List the fields in the folder `data` as `list_fields` does, but go on after a problem and collect them all.

    Raises:
        InputError: there is no such folder.
    """
    if not data.is_dir():
        raise InputError(f"{data}: no such folder; bring the sample with `dvc pull data.dvc` or import a dataset")
    fields: dict[str, FieldOfView] = {}
    problems = []
    for path in sorted(data.iterdir()):
        if path.name.startswith(".") or path.suffix.lower() not in IMAGE_SUFFIXES or is_mask(path):
            continue
        match = _FIELD_NAME.fullmatch(path.stem)
        if match is None:
            problems.append(
                f"{path}: no patient id in the name; name it PATIENT_FIELD{path.suffix}, as in 01_02{path.suffix}"
            )
            continue
        field = FieldOfView(path, match["patient"], match["field"])
        first = fields.setdefault(field.name, field)
        if first is not field:
            problems.append(f"{path}: is field {field.name} again, beside {first.image.name}; keep one of them")
    if not fields and not problems:
        problems.append(f"{data}: holds no field; expected images named PATIENT_FIELD.tif, .png, .jpg or .bmp")
    return list(fields.values()), problems


def is_mask(path: Path) -> bool:
    """Whether the name of this image says that it is a mask, read or not: `PP_FF_cmask.png`."""
    return path.stem.rpartition("_")[2] in _NO_FIELDS
