"""Command `detect`: find the mitoses in any field; write them for viewing and for other tools."""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from mitoscope.cluster import results
from mitoscope.commands.detect_field import EVALUATOR, OVERLAY, Task, detect_field, field_name, load_detector
from mitoscope.commands.pixel_sizes import PixelSizes
from mitoscope.commands.results_folder import ResultsFolder, check_out, only_writer
from mitoscope.errors import InputError, printable
from mitoscope.files import hash_file
from mitoscope.progress import console, progress
from mitoscope.reporting.exports import FieldCount
from mitoscope.tracking.models import detector_file

if TYPE_CHECKING:
    from mitoscope.detection.detector import Detector


def detect(
    images: Sequence[Path],
    *,
    model: str,
    out: Path,
    microns_per_pixel: float | None,
    points: bool = False,
    evaluator: bool = False,
    replace: bool = False,
    scheduler: str | None = None,
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
        scheduler: address of a Dask scheduler, whose workers do the fields; None = this process.

    Returns:
        The number of images that could not be read, or whose GeoJSON was changed.

    Raises:
        InputError: the model does not exist, an image is a folder, two images have the same name, `out` is not a folder
            that can be written to, has an image, has results of another model or of another program, or another call
            writes there, or `microns_per_pixel` is too far from the model's; or as in `cluster.results`.
        OSError: the disk is full, or the cluster is lost.
    """
    fields = _name_fields(images)
    check_out(out, fields.values())
    from mitoscope.detection.detector import Detector

    with detector_file(model) as file:
        detector, digest = Detector.load(file), hash_file(file)
    known = detector.check_pixels(None)
    if microns_per_pixel is not None:
        detector.check_pixels(microns_per_pixel)
    note = ", by a model trained on synthetic data" if detector.origin.synthetic else ""
    _say(f"{model}: threshold {detector.threshold:.3f}, trained at {known:g} um per pixel{note}")
    earlier = [name for name in fields if (out / f"{name}{EVALUATOR}").exists()]
    if earlier and not (evaluator or replace):  # it would be lost, or belong to other detections than the CSV
        evaluator = True
        _say(f"{out}: has {earlier[0]}{EVALUATOR}; this call writes such files too, as with --evaluator")
    sizes = PixelSizes(microns_per_pixel, known)
    counts: list[FieldCount] = []
    try:
        with only_writer(out) as unfinished:
            folder = ResultsFolder(out, fields, _evidence(model, detector, digest), replace=replace)
            source = _source(detector, digest, None if scheduler is None else unfinished)
            task = Task(source, sizes, points, evaluator, note, out, unfinished)
            _detect_all(fields, task, folder, counts, scheduler)
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


def _evidence(model: str, detector: "Detector", digest: str) -> dict[str, Any]:
    """Return what model.json says: the name that the user gave, and all that the results depend on."""
    settings = {"extract": detector.extract.model_dump(), "detection": detector.detection.model_dump()}
    evidence = {"model": model, "detector_sha256": digest, "threshold": detector.threshold, **settings}
    return evidence | {"origin": asdict(detector.origin)}


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
        name = field_name(path)
        if name.endswith(OVERLAY) and path.with_name(f"{path.stem.removesuffix(OVERLAY)}_mitoses.csv").exists():
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


def _source(detector: "Detector", digest: str, shared: Path | None) -> "Callable[[], Detector]":
    """Return what gives a task its detector: this one, or a copy in a folder that workers share, read once by each."""
    from mitoscope.learning.devices import join

    if shared is not None:
        detector.save(shared / "detector.pt")
        return partial(load_detector, shared / "detector.pt", digest)
    with join() as device:
        detector.to(device.torch)
    return lambda: detector


def _detect_all(
    fields: dict[str, Path], task: Task, folder: ResultsFolder, counts: list[FieldCount], scheduler: str | None
) -> None:
    """Do all fields; `counts` gets those that are done."""

    def skip(name: str, error: InputError) -> None:
        left = "; its files in --out are from an earlier call" if folder.has(name) else ""
        _say(f"skipped: {error}{left}", style="red")

    todo = dict(fields)
    for name in fields:
        try:
            folder.check(name)
        except InputError as error:
            skip(name, error)
            del todo[name]
    paths = list(todo.values())
    with progress() as show, closing(results(partial(detect_field, task), paths, scheduler, threads=1)) as found:
        for done, (name, result) in enumerate(zip(todo, found, strict=True), start=len(fields) - len(todo) + 1):
            try:
                if isinstance(result, InputError):
                    raise result
                for line, style in result.messages:
                    _say(line, style)
                with folder.field(name):
                    # The GeoJSON last, so that a killed process hardly leaves one that passes for a corrected one.
                    for path in sorted(result.files.iterdir(), key=lambda path: path.suffix == ".geojson"):
                        path.rename(folder.out / path.name)
                    folder.add(result.count)
            except InputError as error:
                skip(name, error)
            else:
                task.sizes.note(fields[name], name, result.tag, result.size)
                counts.append(result.count)
            show("detect", done, len(fields))


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
