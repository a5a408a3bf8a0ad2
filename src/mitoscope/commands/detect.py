"""Command `detect`: find the mitoses in any field; write them for viewing and for other tools."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from mitoscope.commands.pixel_sizes import PixelSizes
from mitoscope.commands.results_folder import ResultsFolder, check_out, only_writer
from mitoscope.datasets.fields import PixelSize
from mitoscope.datasets.readers import Image, Picture, read_candidate_mask, read_picture
from mitoscope.errors import InputError, printable
from mitoscope.files import hash_file
from mitoscope.progress import console, progress
from mitoscope.reporting.exports import FieldCount, write_detections_csv, write_evaluator_json, write_geojson
from mitoscope.reporting.overlays import NUCLEUS_UM, Marks, draw_overlay
from mitoscope.tracking.models import detector_file

if TYPE_CHECKING:
    from mitoscope.detection.detector import Detections, Detector

_OVERLAY, _EVALUATOR = "_overlay", "_mitoses.json"


@dataclass(frozen=True)
class _Formats:
    """What is written beside the CSV, the GeoJSON and the overlay, and how."""

    points: bool
    evaluator: bool


def detect(
    images: Sequence[Path],
    *,
    model: str,
    out: Path,
    microns_per_pixel: float | None,
    points: bool = False,
    evaluator: bool = False,
    replace: bool = False,
) -> int:
    """Detect mitoses in fields; write a CSV, a GeoJSON and an overlay per field, and summary.csv and model.json.

    An image that cannot be read is reported and skipped. Fields that `out` already has from the same model stay; those
    of this call are done again. summary.csv and model.json describe all files in `out` after each field, also when the
    call is stopped; the same call then does all its fields again. A GeoJSON that was changed since is not replaced.

    Args:
        images: 8-bit RGB fields of any size. If `NAME_cmask.png` is next to a field, candidates are taken only from
            this mask, as in training.
        model: a file detector.pt, `runs:/<run>/detector` or `models:/<name>@<alias>`.
        out: output folder.
        microns_per_pixel: um per pixel of all images; None = each image's own, as `PixelSizes` finds it.
        points: whether the GeoJSON has points instead of outlines.
        evaluator: whether to write `NAME_mitoses.json` too, for the evaluators of MIDOG and grand-challenge; also done
            if `out` has such a file of one of the fields, unless `replace`.
        replace: remove all results that are in `out`.

    Returns:
        The number of images that could not be read, or whose GeoJSON was changed.

    Raises:
        InputError: the model does not exist, an image is a folder, two images have the same name, `out` is not a folder
            that can be written to, has an image, has results of another model or of another program, or another call
            writes there, or `microns_per_pixel` is too far from the model's.
        OSError: the disk is full.
    """
    fields = _name_fields(images)
    check_out(out, fields.values())
    from mitoscope.detection.detector import Detector

    with detector_file(model) as file:
        detector, digest = Detector.load(file), hash_file(file)
    known = detector.check_pixels(None)
    if microns_per_pixel is not None:
        detector.check_pixels(microns_per_pixel)
    settings = {"extract": detector.extract.model_dump(), "detection": detector.detection.model_dump()}
    evidence = {"model": model, "detector_sha256": digest, "threshold": detector.threshold, **settings}
    evidence["origin"] = asdict(detector.origin)
    note = ", by a model trained on synthetic data" if detector.origin.synthetic else ""
    _say(f"{model}: threshold {detector.threshold:.3f}, trained at {known:g} um per pixel{note}")
    earlier = [name for name in fields if (out / f"{name}{_EVALUATOR}").exists()]
    if earlier and not (evaluator or replace):  # it would be lost, or belong to other detections than the CSV
        evaluator = True
        _say(f"{out}: has {earlier[0]}{_EVALUATOR}; this call writes such files too, as with --evaluator")
    sizes = PixelSizes(microns_per_pixel, known)
    counts: list[FieldCount] = []
    try:
        with only_writer(out):
            folder = ResultsFolder(out, fields, evidence, replace=replace)
            _detect_all(fields, detector, folder, sizes, counts, _Formats(points, evaluator))
            unknown = folder.unknown
    except (KeyboardInterrupt, OSError):
        _say(
            f"stopped: {len(counts)} of {len(fields)} images are done"
            + (f", and are in {out / 'summary.csv'}" if counts else "")
            + "; the same command does all of them again",
            style="red",
        )
        raise
    finally:
        for line in sizes.lines():
            _say(line)
        for line in sizes.warnings():
            _say(f"warning: {line}", style="yellow")
    for name in unknown:
        _say(f"{out}: the files of {name} are not in summary.csv; detect it again, or remove them", style="yellow")
    if counts:
        _print_counts(counts, out, note)
    return len(fields) - len(counts)


def _name_fields(images: Sequence[Path]) -> dict[str, Path]:
    """Return the images by the names of their results, without overlays of an earlier call.

    Raises:
        InputError: one is a folder, two images have the same name, or all are overlays.
    """
    fields: dict[str, Path] = {}
    overlays = []
    for path in images:
        if path.is_dir():
            raise InputError(f"{path}: is a folder; give its images, such as {path}/*.tif")
        name = printable(path.stem)
        if name.endswith(_OVERLAY) and path.with_name(f"{path.stem.removesuffix(_OVERLAY)}_mitoses.csv").exists():
            overlays.append(path)
        elif name in fields:
            raise InputError(f"{path}: {fields[name]} has the same name; use a separate call and --out for each")
        else:
            fields[name] = path
    if overlays:
        line = f"{len(overlays)} overlays of an earlier call left out, such as {printable(str(overlays[0]))}"
        if not fields:
            raise InputError(f"{line}; give the fields themselves")
        _say(line, style="yellow")
    return fields


def _detect_all(
    fields: dict[str, Path],
    detector: "Detector",
    folder: ResultsFolder,
    sizes: PixelSizes,
    counts: list[FieldCount],
    formats: _Formats,
) -> None:
    """Do one field after the other; `counts` gets those that are done."""
    from mitoscope.learning.devices import join

    with join() as device, progress() as show:
        detector.to(device.torch)
        for done, (name, path) in enumerate(fields.items(), start=1):
            try:
                folder.check(name)
                picture = read_picture(path)
                size = sizes.find(path, picture.microns_per_pixel)
                try:
                    detector.check_pixels(size.microns)
                except InputError as error:
                    raise InputError(f"{printable(str(path))}: {error} ({size.source} gives it)") from error
                detections = _detect_one(path, picture, detector, size.microns)
                count = _write(folder, name, picture, size, detections, detector, formats)
            except InputError as error:
                left = "; its files in --out are from an earlier call" if folder.has(name) else ""
                _say(f"skipped: {error}{left}", style="red")
            else:
                sizes.note(path, name, picture.microns_per_pixel, size)
                counts.append(count)
            show("detect", done, len(fields))


def _detect_one(path: Path, picture: Picture, detector: "Detector", microns: float) -> "Detections":
    """Find the mitoses of one field, and say what is special about it."""
    rows, columns = picture.pixels.shape[:2]
    mask = read_candidate_mask(path, (rows, columns))
    name = printable(str(path))
    if mask is not None:
        _say(f"{name}: candidates only from the mask next to it; densities are for the whole field")
    if share := picture.transparent:
        _say(f"{name}: {share} of it is transparent; this part has no candidates and does not count as area")
    detections = detector.detect(picture.pixels, microns, mask, picture.opaque)
    if detector.extract.stain != "none" and not detections.normalised:
        _say(f"{name}: too little tissue for stain normalisation; left unchanged", style="yellow")
    return detections


def _write(
    folder: ResultsFolder,
    name: str,
    picture: Picture,
    size: PixelSize,
    detections: "Detections",
    detector: "Detector",
    formats: _Formats,
) -> FieldCount:
    """Write all files of one field, and its row of the summary."""
    centres, probabilities = detections.points, detections.probabilities
    rows, columns = picture.pixels.shape[:2]
    radius = NUCLEUS_UM / size.microns
    area = picture.area_mm2(size.microns)
    count = FieldCount(name, columns, rows, len(centres), area, size.microns, size.source)
    with folder.field(name):
        start = folder.out / name
        write_detections_csv(start.with_name(f"{name}_mitoses.csv"), centres, probabilities)
        if formats.evaluator:
            json = start.with_name(f"{name}{_EVALUATOR}")
            write_evaluator_json(json, centres, probabilities, microns_per_pixel=size.microns)
        note = ", by a model trained on synthetic data" if detector.origin.synthetic else ""
        title = f"{name}: {len(centres)} mitoses with probability {detector.threshold:.3f} or more{note}"
        _draw(start, picture.pixels, Marks(centres), radius, title)
        # Last, so that a killed process hardly leaves one that `folder` does not know and takes for a corrected one.
        geojson = start.with_name(f"{name}_mitoses.geojson")
        write_geojson(geojson, centres, probabilities, radius=radius, shape=(rows, columns), points=formats.points)
        folder.add(count)
    return count


def _draw(start: Path, image: Image, marks: Marks, radius: float, title: str) -> None:
    """Write the overlay, as PNG where the image is too large for a JPEG."""
    # Not PP_FF.jpg, which is the name of the field in a dataset's folder.
    try:
        draw_overlay(start.with_name(f"{start.name}{_OVERLAY}.jpg"), image, marks, radius=radius, title=title)
    except InputError:
        path = start.with_name(f"{start.name}{_OVERLAY}.png")
        draw_overlay(path, image, marks, radius=radius, title=title)
        rows, columns = image.shape[:2]
        _say(f"{start.name}: {columns} x {rows} px are too large for a JPEG; the overlay is {path.name}")


def _print_counts(counts: Sequence[FieldCount], out: Path, note: str) -> None:
    table = Table(title=escape(f"Mitoses{note}, also in {out / 'summary.csv'}"), title_justify="left")
    table.add_column("field")
    for column in ("mitoses", "mm2", "per mm2", "per 2 mm2"):
        table.add_column(column, justify="right")
    for count in counts:
        row = (str(count.mitoses), f"{count.area_mm2:.3f}", f"{count.per_mm2:.1f}", f"{count.per_2mm2:.1f}")
        table.add_row(escape(count.name), *row)
    console.print(table)
    console.print("For research only. For a field smaller than 2 mm2, the count per 2 mm2 is only an extrapolation.")


def _say(line: str, style: str | None = None) -> None:
    console.print(printable(line), style=style, markup=False)
