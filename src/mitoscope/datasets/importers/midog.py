"""Import MIDOG 2021, 2022, ++ and 2025: the boxes of the JSON file become centres of mitoses and look-alikes."""

import codecs
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from mitoscope.datasets.field_table import Entry
from mitoscope.datasets.fields import Description, list_images
from mitoscope.datasets.importers import Annotations, Found, Summary, Target, require_outside
from mitoscope.datasets.importers.assemble import assemble
from mitoscope.datasets.importers.classes import Classes, Kind
from mitoscope.datasets.importers.sorting import plain
from mitoscope.datasets.validation import Progress
from mitoscope.errors import InputError, first_problem

_WHAT = "is it MIDOG.json, MIDOG++.json or one in the same form?"
_SIDE, _SIDE_TOLERANCE = 50.0, 2.0  # px, of all published boxes, whatever the pixel size is

Boxes = npt.NDArray[np.float64]


def import_midog(
    images: Path, annotations: Path, target: Target, on_progress: Progress = lambda step, done, total: None
) -> Summary:
    """Import MIDOG 2021, 2022, ++ or 2025, or a file in the same form.

    An image with a number as its name is a patient: 001.tiff becomes field 01 of patient 001. Others need a name
    PATIENT_FIELD, `fields.csv` or `target.patient_per_image`. Every image that MIDOG annotates has boxes, at least of
    look-alikes. An image without boxes comes from a scanner that was left unlabelled. It is skipped, because training
    would treat all its mitoses as negatives.

    Args:
        images: the folder of the images, also in folders.
        annotations: `MIDOG.json`, `MIDOG++.json` ...
        target: where to, and what the user says about the images.
        on_progress: called with the name of a step, the amount done and the total.

    Raises:
        InputError: the JSON is not MIDOG's, or as in `assemble`.
    """
    require_outside(annotations, target)
    found = read_midog(annotations)
    listed = list_images(images) if images.is_dir() else []
    numbered = [path.relative_to(images).as_posix() for path in listed if path.stem.isdecimal()]
    # Numbers in several folders may be the fields of one patient each: there the user must say it.
    alone = all(len({PurePosixPath(file).parent for file in files}) <= 1 for files in (numbered, found.by_image))
    known = {file: Entry(file, PurePosixPath(file).stem, "01") for file in numbered if alone}
    return assemble(images, found, target, Description(name="MIDOG", source=annotations.name), on_progress, known=known)


def read_midog(path: Path) -> Found:
    """Read the boxes of a JSON file in MIDOG's form, which has the entries of COCO, but other boxes.

    Raises:
        InputError: the file is not in this form, has no category of mitoses, or annotates no image.
    """
    midog = _read(path)
    names = _by_id(path, "images", [(image.id, image.file_name) for image in midog.images])
    kinds = _Kinds(path, midog.categories)
    size_of = {image.file_name: (image.height, image.width) for image in midog.images}
    shapes = {name: (height, width) for name, (height, width) in size_of.items() if min(height, width) > 0}
    taken = []
    unknown: Counter[str] = Counter()
    for annotation in midog.annotations:
        name = names.get(annotation.image_id)
        kind = kinds.count(annotation.category_id)
        if name is None:
            unknown[annotation.image_id] += 1
        elif kind:
            taken.append((name, kind, annotation.bbox))
    if not taken:
        raise InputError(f"{path}: has no box of a mitosis or look-alike in any of its images; {_WHAT}")
    boxes = np.array([box for _, _, box in taken])
    sizes = np.array([shapes.get(name, (np.inf, np.inf))[::-1] for name, _, _ in taken])
    centres, is_box = _box_centres(path, boxes, sizes)
    points: dict[str, dict[Kind, list[list[float]]]] = {}
    for (name, kind, _), (x, y), good in zip(taken, centres.tolist(), is_box.tolist(), strict=True):
        of_image = points.setdefault(name, {"mitosis": [], "lookalike": []})
        if good:
            of_image[kind].append([y, x])
    notes = [kinds.note()]
    if unknown:
        notes.append(
            f"annotations of images that the file does not list: {unknown.total()} left out, such as of image "
            f"{plain(min(unknown))}"
        )
    if wrong := int((~is_box).sum()):
        notes.append(f"boxes without a size: {wrong} left out")
    by_image = {
        name: Annotations(_centres(of_image["mitosis"]), _centres(of_image["lookalike"]))
        for name, of_image in points.items()
    }
    return Found(by_image, tuple(notes), {name: shape for name, shape in shapes.items() if name in by_image})


def _as_text(value: object) -> object:
    """Return an id as text: some files have numbers, others text, and some both; pandas writes 1 as 1.0."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


_Id = Annotated[str, BeforeValidator(_as_text)]


class _Image(BaseModel):
    id: _Id
    file_name: str
    width: int = Field(0, lt=2**31)
    height: int = Field(0, lt=2**31)


class _Annotation(BaseModel):
    image_id: _Id
    category_id: _Id
    bbox: tuple[float, float, float, float]


class _Category(BaseModel):
    id: _Id
    name: str


class _Midog(BaseModel):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category]


def _read(path: Path) -> _Midog:
    try:
        content = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give MIDOG.json or MIDOG++.json") from error
    try:
        return _Midog.model_validate_json(content)
    except ValidationError as error:
        start = content[:4096].lstrip()
        for signs, form in (
            ((b'"FeatureCollection"', b'"Feature"'), "qupath"),
            ((b"SQLite format 3",), "sliderunner"),
            ((b"<Annotations", b"<?xml"), "imagescope"),
        ):
            if any(sign in start for sign in signs):
                raise InputError(f"{path}: is not MIDOG's JSON; `mitoscope import {form}` reads such files") from error
        if start.startswith(b"\x1f\x8b"):
            raise InputError(f"{path}: is compressed; unpack it with gunzip first") from error
        raise InputError(f"{path}: {first_problem(error)}; {_WHAT}") from error


def _by_id(path: Path, kind: str, named: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Return names by their ids, or raise InputError if an id has two names."""
    names: dict[str, str] = {}
    for key, name in named:
        if (first := names.setdefault(key, name)) != name:
            raise InputError(f"{path}: {kind} {plain(first)} and {plain(name)} have the same id {plain(key)}; {_WHAT}")
    return names


class _Kinds:
    """What each category of the file is: mitosis, look-alike or neither; counts the annotations of each.

    Raises:
        InputError: no category is one of mitoses.
    """

    def __init__(self, path: Path, categories: Sequence[_Category]) -> None:
        self._names = _by_id(path, "categories", [(category.id, category.name) for category in categories])
        classes = Classes()
        self._kinds = {key: classes.kind(name) for key, name in self._names.items()}
        self._counts: Counter[str] = Counter()
        if "mitosis" not in self._kinds.values():
            listed = ", ".join(plain(name) for name in self._names.values()) or "none"
            raise InputError(
                f"{path}: has no category of mitoses; it has {listed}; expected `mitotic figure`, `mitosis` or the like"
            )

    def count(self, key: str) -> Kind | None:
        """Count an annotation of a category, and return what it is."""
        self._counts[key] += 1
        return self._kinds.get(key)

    def note(self) -> str:
        """Say which category is taken for what."""
        parts = []
        for kind, words in (("mitosis", "mitoses"), ("lookalike", "look-alikes"), (None, "left out")):
            keys = [key for key in self._names if self._kinds[key] == kind]
            keys += [key for key in self._counts if kind is None and key not in self._names]
            listed = ", ".join(f"{plain(self._names.get(key, key))} ({self._counts[key]})" for key in keys)
            parts += [f"{words}: {listed}"] if keys else []
        return f"categories taken as {'; '.join(parts)}"


@dataclass(frozen=True)
class _Reading:
    """One way to read all boxes: their centres and extents, (N, 2) x, y in px."""

    centres: Boxes
    extents: Boxes

    def fits(self, sizes: Boxes) -> npt.NDArray[np.bool_]:
        """Return which boxes have a size, and a centre up to half a box outside an image of this width and height."""
        near = (self.centres >= -_SIDE / 2) & (self.centres < sizes + _SIDE / 2)
        return np.asarray((near & (self.extents >= 1)).all(axis=1))


def _box_centres(path: Path, boxes: Boxes, sizes: Boxes) -> tuple[Boxes, npt.NDArray[np.bool_]]:
    """Return the (N, 2) centres x, y of (N, 4) boxes, and which of them are boxes at all.

    MIDOG's own files give two corners (x0, y0, x1, y1) of boxes of 50 x 50 px. Some copies have been converted to COCO,
    which gives a corner and a size (x, y, width, height). All boxes of a file have the same form. It is the one in
    which most are 50 px wide, else the one in which more of them lie in their image: read as corners, a COCO box has a
    negative size if x > width; read as COCO, corners lead outside the image. If both fit, it is MIDOG's.
    """
    corner, other = boxes[:, :2], boxes[:, 2:]
    with np.errstate(all="ignore"):  # numbers near the largest ones; such boxes fit nowhere
        readings = (_Reading((corner + other) / 2, other - corner), _Reading(corner + other / 2, other))

    def merit(reading: _Reading) -> tuple[bool, int]:
        fits = reading.fits(sizes)
        published = (np.abs(reading.extents - _SIDE) <= _SIDE_TOLERANCE).all(axis=1)
        return bool((fits & published).mean() >= 0.5), int(fits.sum())

    best = max(readings, key=merit)
    fits = best.fits(sizes)
    if fits.mean() < 0.5:
        wrong = int(np.argmin(fits))
        raise InputError(
            f"{path}: {int((~fits).sum())} of {len(fits)} boxes are not in their images, such as "
            f"{boxes[wrong].tolist()}; expected x0, y0, x1, y1 (MIDOG) or x, y, width, height (COCO) in pixels"
        )
    return best.centres, np.asarray((best.extents > 0).all(axis=1))


def _centres(points: list[list[float]]) -> npt.NDArray[np.float64]:
    return np.array(points, dtype=np.float64).reshape(-1, 2)
