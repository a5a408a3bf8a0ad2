"""Command `detect`: find the mitoses in any field; write them for viewing and for other tools."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from mitoscope.datasets.images import read_candidate_mask, read_image
from mitoscope.errors import InputError
from mitoscope.files import write_json
from mitoscope.progress import console, progress
from mitoscope.reporting.exports import FieldCount, write_detections_csv, write_geojson, write_summary
from mitoscope.reporting.overlays import NUCLEUS_UM, Marks, draw_overlay
from mitoscope.tracking.models import detector_file


def detect(images: Sequence[Path], *, model: str, out: Path, microns_per_pixel: float | None) -> int:
    """Detect mitoses in fields; write a CSV, a GeoJSON and an overlay per field, and summary.csv and model.json.

    An image that cannot be read is reported and skipped. Files of the same names in `out` are replaced atomically.

    Args:
        images: 8-bit RGB fields of any size. If `NAME_cmask.png` is next to a field, candidates are taken only from
            this mask, as in training.
        model: a file detector.pt, `runs:/<run>/detector` or `models:/<name>@<alias>`.
        out: output folder.
        microns_per_pixel: um per pixel of the images; None = that of the fields that the model was trained on.

    Returns:
        The number of images that could not be read.

    Raises:
        InputError: the model does not exist, two images have the same name, `out` is not a folder, or the pixel size is
            too far from the model's.
    """
    from mitoscope.detection.detector import Detector
    from mitoscope.learning.devices import join

    seen: dict[str, Path] = {}
    for path in images:
        if path.stem in seen:
            raise InputError(f"{path}: {seen[path.stem]} has the same name; use a separate call and --out for each")
        seen[path.stem] = path
    if blocking := next((place for place in (out, *out.parents) if place.exists() and not place.is_dir()), None):
        raise InputError(f"--out {out}: {blocking} is a file, not a folder; choose another folder")
    with detector_file(model) as file:
        detector = Detector.load(file)
    threshold, microns = detector.threshold, detector.check_pixels(microns_per_pixel)
    note = ", by a model trained on synthetic data" if detector.origin.synthetic else ""
    console.print(f"{model}: threshold {threshold:.3f}, fields at {microns} um per pixel{note}", markup=False)
    counts = []
    with join() as device, progress() as show:
        detector.to(device.torch)
        for done, path in enumerate(images, start=1):
            try:
                image = read_image(path)
                mask = read_candidate_mask(path, image.shape[:2])
                if mask is not None:
                    line = f"{path}: candidates only from the mask next to it; densities are for the whole field"
                    console.print(line, markup=False)
                points, probabilities, normalised = detector.detect(image, microns, mask)
                if detector.extract.stain != "none" and not normalised:
                    line = f"{path}: too little tissue for stain normalisation; left unchanged"
                    console.print(line, style="yellow", markup=False)
                title = f"{path.stem}: {len(points)} mitoses with probability {threshold:.3f} or more{note}"
                # Not PP_FF.csv, which is the name of the annotations in a dataset's folder.
                overlay = out / f"{path.stem}_overlay.jpg"
                draw_overlay(overlay, image, Marks(points), radius=NUCLEUS_UM / microns, title=title)
            except InputError as error:
                left = (out / f"{path.stem}_mitoses.csv").exists()
                note_left = "; its files in --out are from an earlier call" if left else ""
                console.print(f"skipped: {error}{note_left}", style="red", markup=False)
            else:
                write_detections_csv(out / f"{path.stem}_mitoses.csv", points, probabilities)
                write_geojson(out / f"{path.stem}_mitoses.geojson", points, probabilities, radius=NUCLEUS_UM / microns)
                rows, columns = image.shape[:2]
                counts.append(FieldCount(path.stem, columns, rows, len(points), rows * columns * microns**2 / 1e6))
            show("detect", done, len(images))
    if counts:
        write_summary(out / "summary.csv", counts)
        evidence = {"model": model, "threshold": threshold, "microns_per_pixel": microns}
        settings = {"extract": detector.extract.model_dump(), "detection": detector.detection.model_dump()}
        write_json(out / "model.json", evidence | settings | {"origin": asdict(detector.origin)})
        _print_counts(counts, out, note)
    return len(images) - len(counts)


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
