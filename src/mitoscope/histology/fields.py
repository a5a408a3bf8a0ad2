"""The raw dataset: fields of view with the centres of their mitoses, in Janowczyk's flat layout.

`PP_FF.tif` (also .tiff .png .jpg .jpeg .bmp; PP patient, FF field; RGB, 8 bit) with `PP_FF.csv` beside it (one
`row,col` per line in full-resolution pixels; missing or empty = no mitosis) and optionally `PP_FF_cmask.png` (where
candidates may lie), `PP_FF_brmask.png` and `PP_FF_pc.png` (4 px discs on the centres, read where there is no CSV).
`dataset.yaml` describes the whole.
"""

import math
import re
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mitoscope.errors import InputError
from mitoscope.files import write_text

IMAGE_SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".bmp")
MASKS = ("brmask", "cmask", "pc")
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_FIELD_NAME = re.compile(r"(?P<patient>[A-Za-z0-9]+)_(?P<field>[A-Za-z0-9]+)")

Image = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Centres = npt.NDArray[np.float64]


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
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise InputError(f"{path}: {place}: {first['msg']}") from error


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
    """Whether the name of this image says that it is a mask: `PP_FF_cmask.png`."""
    return path.stem.rpartition("_")[2] in MASKS


def read_image(path: Path) -> Image:
    """Read a field as (H, W, 3) uint8 RGB.

    Raises:
        InputError: the file is missing, no image, truncated, not 8 bit or not RGB.
    """
    pixels = _decode(path)
    if pixels.dtype != np.uint8:
        raise InputError(f"{path}: has {8 * pixels.dtype.itemsize} bits per channel; convert it to 8-bit RGB")
    if pixels.ndim == 2 or pixels.shape[2] == 1:
        raise InputError(f"{path}: is a grey image; fields must be 8-bit RGB")
    if pixels.shape[2] != 3:
        raise InputError(f"{path}: has {pixels.shape[2]} channels; convert it to 8-bit RGB")
    return np.ascontiguousarray(pixels[..., ::-1])


def encode_image(image: Image, suffix: str, *, quality: int = 90) -> bytes:
    """Encode an (H, W, 3) uint8 RGB image as the content of a .png or .jpg file; `quality` (0 to 100) is a JPEG's.

    Write it with `Path.write_bytes`: unlike `cv2.imwrite` that says so when the disk is full.
    """
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if suffix == ".jpg" else []
    _, content = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    return content.tobytes()


def read_mask(path: Path, shape: tuple[int, int]) -> Mask:
    """Read a mask as (H, W) bool, where anything above 0 is set.

    Raises:
        InputError: the file is missing, no image, truncated, or not of `shape` (rows, columns), the field's size.
    """
    pixels = _decode(path)
    if pixels.shape[:2] != shape:
        rows, columns = pixels.shape[:2]
        raise InputError(f"{path}: is {columns} x {rows} px, its field {shape[1]} x {shape[0]} px; they must be equal")
    return np.asarray(pixels > 0 if pixels.ndim == 2 else (pixels[..., :3] > 0).any(axis=2), dtype=np.bool_)


def read_candidate_mask(image: Path, shape: tuple[int, int]) -> Mask | None:
    """The mask `_cmask.png` beside an image, where candidates may lie; None where there is none.

    Raises:
        InputError: as `read_mask`.
    """
    path = image.with_name(f"{image.stem}_cmask.png")
    return read_mask(path, shape) if path.exists() else None


def read_centres(field: FieldOfView, shape: tuple[int, int], order: str = "row,col") -> Centres:
    """Read the mitosis centres of a field of `shape` (rows, columns) as (N, 2) float64: row, col in pixels.

    They come from the CSV; where there is none, from the discs in `_pc.png`; where that is missing too, there are
    none. `order` is the dataset's `annotation_order`.

    Raises:
        InputError: a row is not two numbers, lies outside the image or repeats a centre.
    """
    centres, problems = scan_centres(field, shape, order)
    if problems:
        raise InputError(problems[0])
    return centres


def scan_centres(field: FieldOfView, shape: tuple[int, int], order: str = "row,col") -> tuple[Centres, list[str]]:
    """Read the centres as `read_centres` does, but go on after a bad row and collect the problems of all rows.

    Raises:
        InputError: the file as a whole cannot be read.
    """
    path = field.annotation
    if not path.exists():
        return (_disc_centres(field.mask("pc"), shape) if field.mask("pc").exists() else np.empty((0, 2))), []
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not a text file; expected one `{order}` per line") from error
    seen: dict[tuple[float, float], int] = {}
    problems = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        numbers = _two_numbers(line)
        if numbers is None:
            problems.append(f"{path}: row {number}: {line.strip()[:60]!r} is not two numbers; expected `{order}`")
            continue
        row, col = numbers if order == "row,col" else numbers[::-1]
        if not (0 <= row < shape[0] and 0 <= col < shape[1]):
            problems.append(
                f"{path}: row {number}: row {row:g}, col {col:g} lies outside the image of {shape[0]} rows and "
                f"{shape[1]} columns; is annotation_order in dataset.yaml right ({order})?"
            )
        elif (row, col) in seen:
            problems.append(f"{path}: row {number}: the same centre as row {seen[row, col]}; remove one of them")
        else:
            seen[row, col] = number
    return np.array(list(seen), dtype=np.float64).reshape(-1, 2), problems


def write_centres(path: Path, centres: Centres) -> None:
    """Write (N, 2) mitosis centres as `row,col` lines, with all digits, so that they read back equal."""
    write_text(path, "".join(f"{float(row)!r},{float(col)!r}\n" for row, col in centres))


def _two_numbers(line: str) -> tuple[float, float] | None:
    """The two finite numbers of a CSV line, or None where it holds anything else."""
    try:
        first, second = (float(cell) for cell in line.split(","))
    except ValueError:
        return None
    return (first, second) if math.isfinite(first) and math.isfinite(second) else None


def _disc_centres(path: Path, shape: tuple[int, int]) -> Centres:
    """Centroids (row, col) of the connected blobs of a `_pc.png`."""
    mask = read_mask(path, shape).astype(np.uint8)
    _, _, _, centroids = cv2.connectedComponentsWithStats(mask, connectivity=8)
    return centroids[1:, ::-1].astype(np.float64)  # the first is the background; OpenCV says x, y


def _decode(path: Path) -> Any:
    """Decode an image file as it is: any depth, any number of channels, OpenCV's BGR order."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    # Older OpenCV fills what a JPEG lacks with grey and says nothing, and libpng writes to the terminal: so look
    # first whether those are whole. The other formats' decoders fail by themselves.
    is_jpeg, is_png = content.startswith(b"\xff\xd8"), content.startswith(_PNG_SIGNATURE)
    if (is_jpeg and not _is_whole_jpeg(content)) or (is_png and not _is_whole_png(content)):
        raise InputError(f"{path}: the image is truncated or damaged; copy it again from its source")
    try:
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED) if content else None
    except cv2.error:  # such as a size in the header that no image has
        pixels = None
    if pixels is None:
        raise InputError(f"{path}: is not an image that can be read, or is truncated; copy it again from its source")
    return pixels


def _is_whole_jpeg(content: bytes) -> bool:
    """Whether the last scan is closed by an end mark; a thumbnail in the header has marks of its own."""
    return content.rfind(b"\xff\xd9") > content.rfind(b"\xff\xda")


def _is_whole_png(content: bytes) -> bool:
    """Whether every chunk up to the end mark is there and matches its checksum."""
    position = len(_PNG_SIGNATURE)
    while position + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, position)
        body = content[position + 4 : position + 8 + length]
        if content[position + 8 + length : position + 12 + length] != struct.pack(">I", zlib.crc32(body)):
            return False
        if body.startswith(b"IEND"):
            return True
        position += 12 + length
    return False
