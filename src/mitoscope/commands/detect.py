"""Command `detect`: mitoses in any field, for a person to look at and for other tools."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt
from rich.table import Table

from mitoscope.errors import InputError
from mitoscope.files import write_json
from mitoscope.histology.blue_ratio import find_candidates, to_scale
from mitoscope.histology.detections import MATCH_UM, suppress
from mitoscope.histology.exports import FieldCount, write_detections_csv, write_geojson, write_summary
from mitoscope.histology.fields import Centres, Image, Mask, read_image, read_mask
from mitoscope.histology.overlays import NUCLEUS_UM, Marks, draw_overlay
from mitoscope.histology.patches import cut_windows, resize
from mitoscope.histology.stain import normalise
from mitoscope.progress import console, progress

if TYPE_CHECKING:
    from mitoscope.learning.devices import Place
    from mitoscope.learning.networks import PatchNetwork

_MOST_ZOOM = 4
_AT_ONCE = 4096  # windows in memory: 200 MB of 128 px


def detect(images: Sequence[Path], *, model: str, out: Path, microns_per_pixel: float | None) -> int:
    """Detect mitoses in fields; write per field a CSV, a GeoJSON and an overlay, and of all summary.csv and model.json.

    A file that is no field is reported and left out. Files of the same names in `out` are replaced, each as a whole.

    Args:
        images: 8-bit RGB fields of any size. Where `NAME_cmask.png` lies beside one, candidates are taken from this
            mask only, as in training.
        model: a file best.pt, `runs:/<run>/best` or `models:/<name>@<alias>`.
        out: folder to write into.
        microns_per_pixel: of the images; None = as the fields that the model was trained on.

    Returns:
        How many images could not be read.

    Raises:
        InputError: there is no such model, two images have the same name, or the pixels are far from the model's.
    """
    from mitoscope.learning import checkpoints
    from mitoscope.learning.devices import join
    from mitoscope.tracking.models import network_file

    names = [path.stem for path in images]
    if twice := {name for name in names if names.count(name) > 1}:
        raise InputError(f"{sorted(twice)[0]}: two images have this name; give them one call and one --out each")
    with network_file(model) as path:
        network, kept = checkpoints.load_network(path)
    if "typical_spread" not in kept.get("fields", {}):
        raise InputError(f"{model}: was saved without its settings for whole fields; train it again with `dvc repro`")
    threshold, known = kept["field_threshold"], kept["fields"]["microns_per_pixel"]
    microns = microns_per_pixel or known
    if not 1 / _MOST_ZOOM <= microns / known <= _MOST_ZOOM:
        raise InputError(
            f"--microns-per-pixel {microns}: the model knows {known} um, and more than {_MOST_ZOOM} times finer or "
            "coarser pixels do not show what it learned"
        )
    note = ", by a model trained on synthetic data" if kept["fields"]["synthetic"] else ""
    console.print(f"{model}: threshold {threshold:.3f}, fields at {microns} um per pixel{note}")
    counts = []
    with join() as place, progress() as show:
        network.to(place.device)
        for done, path in enumerate(images, start=1):
            try:
                image = read_image(path)
                points, probabilities = detect_field(image, _mask(path, image), network, kept, place, microns)
                title = f"{path.stem}: {len(points)} mitoses of probability {threshold:.3f} or more{note}"
                # Not PP_FF.csv, which in a dataset's folder is the truth.
                overlay = out / f"{path.stem}_overlay.jpg"
                draw_overlay(overlay, image, Marks(points), radius=NUCLEUS_UM / microns, title=title)
            except InputError as error:
                console.print(f"skipped: {error}", style="red", markup=False)
            else:
                write_detections_csv(out / f"{path.stem}_mitoses.csv", points, probabilities)
                write_geojson(out / f"{path.stem}_mitoses.geojson", points, probabilities, radius=NUCLEUS_UM / microns)
                rows, columns = image.shape[:2]
                counts.append(FieldCount(path.stem, columns, rows, len(points), rows * columns * microns**2 / 1e6))
            show("detect", done, len(images))
    if counts:
        write_summary(out / "summary.csv", counts)
        evidence = {"model": model, "run_id": kept.get("run_id"), "threshold": threshold, "microns_per_pixel": microns}
        write_json(out / "model.json", evidence | {"fields": kept["fields"]})
        _print_counts(counts, out, note)
    return len(images) - len(counts)


def detect_field(
    image: Image,
    mask: Mask | None,
    network: "PatchNetwork",
    kept: dict[str, Any],
    place: "Place",
    microns_per_pixel: float,
) -> tuple[Centres, npt.NDArray[np.float64]]:
    """Detect the mitoses of one field as training and evaluation would.

    Args:
        image: (H, W, 3) uint8 RGB.
        mask: (H, W) bool, where candidates may lie; None = anywhere.
        network: from the model's file.
        kept: the rest of that file, with `fields` and `field_threshold`.
        place: where to compute.
        microns_per_pixel: of the image; it is resized to the pixel size that the network knows.

    Returns:
        (N, 2) row, col in the image's pixels, and (N,) probabilities, the highest first.
    """
    from mitoscope.learning.batches import PatchSet
    from mitoscope.learning.calibration import calibrate
    from mitoscope.learning.scoring import score_patches

    settings = kept["fields"]
    zoom = microns_per_pixel / settings["microns_per_pixel"]
    known, normalised = normalise(resize(image, zoom), settings["stain"])
    if settings["stain"] != "none" and not normalised:
        console.print("too little tissue to normalise the stain of the next field: left as it is", style="yellow")
    if mask is not None:
        size = (known.shape[1], known.shape[0])
        mask = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST).astype(np.bool_)
    area_mm2 = known.shape[0] * known.shape[1] * settings["microns_per_pixel"] ** 2 / 1e6
    candidates = find_candidates(
        known,
        mask,
        count=math.ceil(settings["candidates_per_mm2"] * area_mm2),
        sigma=settings["sigma"],
        window=settings["peak_window"],
    )
    reduced = resize(known, settings["scale"])
    probabilities = np.zeros(len(candidates))
    for start in range(0, len(candidates), _AT_ONCE):
        some = slice(start, start + _AT_ONCE)
        windows, _ = cut_windows(reduced, to_scale(candidates[some], settings["scale"]), network.patch_size)
        numbers = np.arange(len(windows))
        patches = PatchSet([windows], np.zeros_like(numbers), numbers, np.zeros_like(numbers))
        probabilities[some] = score_patches(network, patches, place)
    if len(candidates) and settings["typical_spread"] is not None:
        probabilities = calibrate(probabilities, settings["typical_spread"])
    found = np.flatnonzero(probabilities >= kept["field_threshold"])
    found = found[suppress(candidates[found], probabilities[found], MATCH_UM / settings["microns_per_pixel"])]
    return to_scale(candidates[found], 1 / zoom), probabilities[found]


def _mask(path: Path, image: Image) -> Mask | None:
    """The mask of candidates beside a field, if there is one."""
    mask = path.with_name(f"{path.stem}_cmask.png")
    return read_mask(mask, (image.shape[0], image.shape[1])) if mask.exists() else None


def _print_counts(counts: Sequence[FieldCount], out: Path, note: str) -> None:
    table = Table(title=f"Mitoses{note}, also in {out / 'summary.csv'}", title_justify="left")
    table.add_column("field")
    for column in ("mitoses", "mm2", "per mm2", "per 2 mm2"):
        table.add_column(column, justify="right")
    for count in counts:
        row = (str(count.mitoses), f"{count.area_mm2:.3f}", f"{count.per_mm2:.1f}", f"{count.per_2mm2:.1f}")
        table.add_row(count.name, *row)
    console.print(table)
    console.print("For research only. The density of a field smaller than 2 mm2 says little about 2 mm2.")
