"""Pictures of a detector's hits and errors in whole fields: an overlay per field, and a sheet of the worst errors."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from mitoscope.datasets.fields import FieldOfView
from mitoscope.datasets.readers import Image, read_image
from mitoscope.evaluation.fields import sort_detections
from mitoscope.files import atomic_folder
from mitoscope.histology.windows import FieldWindows
from mitoscope.reporting.galleries import draw_gallery
from mitoscope.reporting.overlays import NUCLEUS_UM, Marks, draw_overlay

_SHOWN, _SHOWN_UM = 40, 32  # number of errors of each kind on the sheet, and width of their windows


def draw_errors(
    out: Path,
    objects: pd.DataFrame,
    truths: pd.DataFrame,
    fields: Sequence[FieldOfView],
    microns_per_pixel: Mapping[str, float],
    *,
    note: str,
    on_field: Callable[[int, int], None] | None = None,
) -> None:
    """Draw every test field with its hits, false positives and misses, and a sheet of the worst errors.

    Args:
        out: folder for `overlays/` and `errors.png`.
        objects: table from `evaluation.matching.find_objects`, with a column `predicted`.
        truths: patient, field, row and col of the mitoses.
        fields: fields to draw.
        microns_per_pixel: pixel size of each field by its name PP_FF, um.
        note: appended to the titles, as ", synthetic data".
        on_field: called after each field with the number of fields drawn and the number of all fields.
    """
    worst: dict[str, list[tuple[float, str, Image]]] = {"false positives": [], "missed mitoses": []}
    counts = dict.fromkeys(worst, 0)
    with atomic_folder(out / "overlays", replace=True) as folder:
        for done, field in enumerate(fields, start=1):
            image, microns = read_image(field.image), microns_per_pixel[field.name]
            here, there = (
                table[(table.patient == field.patient) & (table.field == field.field)] for table in (objects, truths)
            )
            found, false, missed = sort_detections(here, there, microns)
            marks = Marks(*(rows[["row", "col"]].to_numpy() for rows in (found, false, missed)))
            path = folder / f"{field.name}.jpg"
            draw_overlay(path, image, marks, radius=NUCLEUS_UM / microns, title=f"{field.name}{note}")
            for kind, rows in (("false positives", false), ("missed mitoses", missed)):
                tiles = worst[kind] + _show_errors(field.name, image, rows, round(_SHOWN_UM / microns))
                # The worst are the most probable false positives and the least probable misses.
                worst[kind] = sorted(tiles, key=lambda tile: tile[0], reverse=kind == "false positives")[:_SHOWN]
                counts[kind] += len(rows)
            if on_field:
                on_field(done, len(fields))
    sections = []
    for kind, tiles in worst.items():
        title = f"{counts[kind]} {kind}{note}: the worst {len(tiles)}, each {_SHOWN_UM} um wide, with its probability"
        sections.append((title, [(name, window) for _, name, window in tiles]))
    draw_gallery(out / "errors.png", sections)


def _show_errors(field: str, image: Image, rows: pd.DataFrame, side: int) -> list[tuple[float, str, Image]]:
    """Probability, caption and window (`side` px wide) of each error in a field."""
    windows = FieldWindows(image, rows[["row", "col"]].to_numpy(), side).cut()
    return [
        (float(probability), f"{probability:.2f} {field} {row:.0f},{col:.0f}", window)
        for probability, row, col, window in zip(rows.probability, rows.row, rows.col, windows, strict=True)
    ]
