"""Import MIDOG 2021, 2022 and ++: the boxes of the JSON file become centres, and each image becomes a patient."""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ValidationError

from mitoscope.datasets.annotations import Centres, write_centres
from mitoscope.datasets.fields import Description, write_description
from mitoscope.datasets.images import IMAGE_SUFFIXES
from mitoscope.datasets.importers import Summary, check_import
from mitoscope.datasets.validation import Progress
from mitoscope.errors import InputError, first_problem
from mitoscope.files import atomic_folder


def import_midog(
    images: Path,
    annotations: Path,
    out: Path,
    *,
    replace: bool = False,
    on_progress: Progress = lambda step, done, total: None,
) -> Summary:
    """Import MIDOG 2021, 2022 or ++ into the folder `out`: 001.tiff becomes field 01 of patient 001.

    The centres of the boxes of the category "mitotic figure" become mitosis centres; duplicate centres are merged.
    Every image that MIDOG annotates has boxes, at least of look-alikes. An image without boxes comes from a scanner
    that was left unlabelled. It is skipped, because training would treat all its mitoses as negatives.

    Args:
        images: The folder of the TIFF images.
        annotations: `MIDOG.json` or `MIDOG++.json`.
        out: The new raw dataset; its parent folders are created.
        replace: Replace the contents of `out`.
        on_progress: Called with the name of a step, the amount done and the total.

    Raises:
        InputError: the JSON is not MIDOG's, an annotated image is missing or cannot be read, or `out` is not empty and
            `replace` is false.
    """
    if not images.is_dir():
        raise InputError(f"{images}: no such folder; give the folder with MIDOG's images")
    centres = _read_midog(annotations)
    for name in centres:
        if not (images / name).is_file():
            raise InputError(f"{images / name}: no such image, but {annotations.name} annotates it; download it again")
    origins: dict[Path, str] = {}
    with atomic_folder(out, replace=replace) as folder:
        for done, (name, of_image) in enumerate(centres.items(), start=1):
            image = folder / f"{Path(name).stem}_01{Path(name).suffix}"
            csv = image.with_suffix(".csv")
            shutil.copyfile(images / name, image)
            write_centres(csv, of_image)
            origins |= {image: str(images / name), csv: f"{annotations} as {csv.name}"}
            on_progress("copying", done, len(centres))
        write_description(folder, Description(name="MIDOG", source=annotations.name))
        left = sorted(path.name for path in images.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
        skipped = [name for name in left if name not in centres]
        return check_import(folder, origins=origins, skipped=skipped, on_progress=on_progress)


# MIDOG's JSON has the entries of COCO, but another box format.


class _Image(BaseModel):
    id: int
    file_name: str
    width: int
    height: int


class _Annotation(BaseModel):
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]


class _Category(BaseModel):
    id: int
    name: str


class _Midog(BaseModel):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category]


def _read_midog(path: Path) -> dict[str, Centres]:
    """Return the (N, 2) mitosis centres (row, col in pixels) of each annotated image, by file name."""
    try:
        midog = _Midog.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give MIDOG.json or MIDOG++.json") from error
    except ValidationError as error:
        raise InputError(f"{path}: {first_problem(error)}; is it MIDOG.json or MIDOG++.json?") from error
    images = {image.id: image for image in midog.images}
    mitotic = {category.id for category in midog.categories if category.name.lower().startswith("mitotic")}
    if not mitotic:
        raise InputError(f"{path}: has no category `mitotic figure`; is it MIDOG.json or MIDOG++.json?")
    for index, annotation in enumerate(midog.annotations):
        if annotation.image_id not in images:
            raise InputError(f"{path}: annotations.{index}: there is no image {annotation.image_id}; download it again")
    annotated = {annotation.image_id for annotation in midog.annotations}
    names = {image.id: _image_name(path, image) for image in midog.images if image.id in annotated}
    if not names:
        raise InputError(f"{path}: annotates no images; is it MIDOG.json or MIDOG++.json?")
    if len({Path(name).stem for name in names.values()}) < len(names):
        raise InputError(f"{path}: two images have the same name, so they would be one patient; keep one of them")
    mitoses: dict[int, dict[tuple[float, float], None]] = {image_id: {} for image_id in names}
    for annotation, (x, y) in zip(midog.annotations, _box_centres(path, midog.annotations, images), strict=True):
        if annotation.category_id in mitotic:
            mitoses[annotation.image_id][y, x] = None
    return {names[image_id]: np.array(list(centres)).reshape(-1, 2) for image_id, centres in mitoses.items()}


def _image_name(path: Path, image: _Image) -> str:
    """Return the file name of an image without its folder; the stem becomes the patient id."""
    name = PurePosixPath(image.file_name).name
    if not re.fullmatch(r"[A-Za-z0-9]+\.[A-Za-z]+", name) or Path(name).suffix.lower() not in IMAGE_SUFFIXES:
        raise InputError(f"{path}: image {image.id} is named {image.file_name!r}; expected a name such as 001.tiff")
    return name


def _box_centres(path: Path, annotations: list[_Annotation], images: Mapping[int, _Image]) -> npt.NDArray[np.float64]:
    """Return the (N, 2) centres x, y of all boxes.

    MIDOG's own files give two corners (x0, y0, x1, y1) of boxes of 50 x 50 px. Some copies have been converted to COCO,
    which gives a corner and a size (x, y, width, height). All boxes of a file have the same format, and only the right
    one makes each of them a box centred inside its image: read as corners, a COCO box has a negative size if
    x > width; read as COCO, corners lead outside the image. If both formats fit, MIDOG's is used.
    """
    boxes = np.array([annotation.bbox for annotation in annotations])
    sizes = np.array([(images[a.image_id].width, images[a.image_id].height) for a in annotations])
    corner, other = boxes[:, :2], boxes[:, 2:]
    readings = [((corner + other) / 2, other - corner), (corner + other / 2, other)]
    wrong = []
    for centres, extents in readings:
        fits = ((extents > 0) & (centres >= 0) & (centres < sizes)).all(axis=1)
        if fits.all():
            return np.asarray(centres, dtype=np.float64)
        wrong.append(int(np.argmin(fits)))
    raise InputError(
        f"{path}: annotations.{wrong[0]}: {list(annotations[wrong[0]].bbox)} is not a box centred inside its image; "
        "expected x0, y0, x1, y1 (MIDOG) or x, y, width, height (COCO) in pixels for all boxes"
    )
