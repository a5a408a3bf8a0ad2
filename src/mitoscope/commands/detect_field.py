"""Detection in one field, a task of `mitoscope detect`: in its process, or on a worker of a cluster."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from mitoscope.commands.pixel_sizes import PixelSizes
from mitoscope.datasets.fields import PixelSize
from mitoscope.datasets.readers import Image, Picture, read_candidate_mask, read_picture
from mitoscope.errors import InputError, printable
from mitoscope.reporting.exports import (
    TRANSPARENT,
    UNNORMALISED,
    FieldCount,
    detected_annotations,
    write_annotations,
    write_detections_csv,
    write_evaluator_json,
)
from mitoscope.reporting.overlays import NUCLEUS_UM, Marks, draw_overlay

if TYPE_CHECKING:
    from mitoscope.detection.detector import Detections, Detector

OVERLAY, EVALUATOR = "_overlay", "_mitoses.json"
Messages = list[tuple[str, str | None]]  # to print, each with its style


@dataclass(frozen=True)
class Task:
    """What is to be done with a field, the same for all fields of a call.

    Attributes:
        detector: returns the detector; it is called in the process that does the field.
        sizes: finds the pixel size of an image.
        points: whether the GeoJSON has points instead of outlines.
        evaluator: whether to write `NAME_mitoses.json` too.
        note: what the title of an overlay says of the model.
        out: output folder, for messages.
        folder: for unfinished results; each field gets a new folder in it.
    """

    detector: "Callable[[], Detector]"
    sizes: PixelSizes
    points: bool
    evaluator: bool
    note: str
    out: Path
    folder: Path


@dataclass(frozen=True)
class FieldResult:
    """The result of a field.

    Attributes:
        files: the folder with the files of the field.
        count: the field's row of the summary.
        size: pixel size that was used.
        tag: um per pixel that the image file itself gives, if any.
        messages: lines to print.
    """

    files: Path
    count: FieldCount
    size: PixelSize
    tag: float | None
    messages: Messages


def field_name(image: Path) -> str:
    """Return the name of the results of an image."""
    return printable(image.stem)


@lru_cache(maxsize=1)
def load_detector(path: Path, sha256: str) -> "Detector":
    """Load a detector onto this process's device; a worker keeps it for all fields, until it gets another one.

    Args:
        path: the file.
        sha256: of the file that the detector is from, by which it is known again.
    """
    from mitoscope.detection.detector import Detector
    from mitoscope.learning.devices import join

    with join(keep_memory=False) as device:
        return Detector.load(path).to(device.torch)


def detect_field(task: Task, path: Path) -> FieldResult | InputError:
    """Find the mitoses of a field and write its files into a new folder.

    An image that cannot be read gives the error back, because the other fields are to be done.

    Raises:
        OSError: the disk is full, or the folder cannot be written to.
    """
    try:
        picture = read_picture(path)
        size = task.sizes.find(path, picture.microns_per_pixel)
        detector = task.detector()
        try:
            detector.check_pixels(size.microns)
        except InputError as error:
            raise InputError(f"{printable(str(path))}: {error} ({size.source} gives it)") from error
        messages: Messages = []
        detections = _detect(path, picture, detector, size.microns, messages)
    except InputError as error:
        return error
    rows, columns = picture.shape
    area = picture.area_mm2(size.microns)
    count = FieldCount(field_name(path), columns, rows, len(detections.points), area, size.microns, size.source)
    # A name of its own: a lost worker may still be writing the same field.
    files = task.folder / uuid.uuid4().hex
    try:
        files.mkdir()
        _write(files / count.name, picture.pixels, detections, count, task, detector.threshold, messages)
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(task.out)) from error  # it names a hidden file
    return FieldResult(files, count, size, picture.microns_per_pixel, messages)


def _detect(path: Path, picture: Picture, detector: "Detector", microns: float, messages: Messages) -> "Detections":
    """Find the mitoses of one field, and say what is special about it."""
    mask = read_candidate_mask(path, picture.shape)
    name = printable(str(path))
    if mask is not None:
        messages.append((f"{name}: candidates only from the mask next to it; densities are for the whole field", None))
    if share := picture.transparent:
        messages.append((f"{name}: {share} {TRANSPARENT}", None))
    detections = detector.detect(picture.pixels, microns, mask, picture.opaque)
    if detector.extract.stain != "none" and not detections.normalised:
        messages.append((f"{name}: {UNNORMALISED}", "yellow"))
    return detections


def _write(
    start: Path,
    image: Image,
    detections: "Detections",
    count: FieldCount,
    task: Task,
    threshold: float,
    messages: Messages,
) -> None:
    """Write all files of one field; their names begin with that of `start`."""
    centres, probabilities = detections.points, detections.probabilities
    assert count.microns_per_pixel
    radius = NUCLEUS_UM / count.microns_per_pixel
    write_detections_csv(start.with_name(f"{start.name}_mitoses.csv"), centres, probabilities)
    if task.evaluator:
        json = start.with_name(f"{start.name}{EVALUATOR}")
        write_evaluator_json(json, centres, probabilities, microns_per_pixel=count.microns_per_pixel)
    title = f"{start.name}: {len(centres)} mitoses with probability {threshold:.3f} or more{task.note}"
    # Not PP_FF.jpg, which is the name of the field in a dataset's folder.
    overlay = start.with_name(f"{start.name}{OVERLAY}.jpg")
    try:
        draw_overlay(overlay, image, Marks(centres), radius=radius, title=title)
    except InputError:
        overlay = overlay.with_suffix(".png")
        draw_overlay(overlay, image, Marks(centres), radius=radius, title=title)
        size = f"{count.width} x {count.height} px"
        messages.append((f"{start.name}: {size} are too large for a JPEG; the overlay is {overlay.name}", None))
    geojson = start.with_name(f"{start.name}_mitoses.geojson")
    shape = (count.height, count.width)
    annotations = detected_annotations(centres, probabilities)
    write_annotations(geojson, annotations, radius=radius, shape=shape, points=task.points)
