"""The field level of evaluation: scores of the detections by the MIDOG rule, and pictures of the errors."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mitoscope.datasets.fields import FieldOfView
from mitoscope.datasets.images import Image, read_image
from mitoscope.evaluation.matching import MATCH_UM, match, nearest
from mitoscope.files import atomic_folder
from mitoscope.histology.windows import cut_windows
from mitoscope.params import Evaluate
from mitoscope.reporting.galleries import draw_gallery
from mitoscope.reporting.overlays import NUCLEUS_UM, Marks, draw_overlay

if TYPE_CHECKING:
    from mitoscope.learning.scoring import OnBatch

_SHOWN, _SHOWN_UM = 40, 32  # of the worst errors, each with its surroundings


def score_fields(
    objects: pd.DataFrame, fields: pd.DataFrame, threshold: float, settings: Evaluate
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Scores of the whole test fields by the MIDOG rule, counts pooled, and their 95 % intervals by patient.

    Args:
        objects: the table of `evaluation.matching.find_objects`.
        fields: the table of `count_fields`.
        threshold: chosen on the validation patients' fields.
        settings: of the intervals.

    Returns:
        Counts; precision, recall, f1 at `threshold`; ap; mitoses per mm2, true and detected. And under the same names
        [low, high].
    """
    from mitoscope.evaluation.metrics import object_scores, patient_intervals

    labels, probabilities = objects.label.to_numpy(), objects.probability.to_numpy()
    patients = objects.patient.to_numpy(dtype=str)

    def score(some: Any, values: Any) -> dict[str, float]:
        return object_scores(some, values, threshold)

    totals = fields[["mitoses", "detections", "tp", "fp", "fn", "area_mm2"]].sum()
    metrics = {
        "patients": fields.patient.nunique(),
        "fields": len(fields),
        **{name: int(totals[name]) for name in ("mitoses", "detections", "tp", "fp", "fn")},
        "area_mm2": float(totals.area_mm2),
        "threshold": threshold,
        **score(labels, probabilities),
        "mitoses_per_mm2": float(totals.mitoses / totals.area_mm2),
        "detections_per_mm2": float(totals.detections / totals.area_mm2),
    }
    intervals = patient_intervals(
        patients, labels, probabilities, score, resamples=settings.bootstrap, seed=settings.seed
    )
    return metrics, intervals


def count_fields(objects: pd.DataFrame, areas_mm2: dict[str, float]) -> pd.DataFrame:
    """One row per field: its mitoses, detections, matches and errors, and their densities.

    Args:
        objects: the table of `evaluation.matching.find_objects` with a column `predicted`.
        areas_mm2: of the fields, by their names PP_FF; one without any object is a row too.
    """
    table = pd.DataFrame([name.split("_") for name in areas_mm2], columns=["patient", "field"])
    table["area_mm2"] = list(areas_mm2.values())
    found, predicted = objects.label == 1, objects.predicted == 1
    for column, chosen in (
        ("mitoses", found),
        ("detections", predicted),
        ("tp", found & predicted),
        ("fp", ~found & predicted),
        ("fn", found & ~predicted),
    ):
        count = objects[chosen].groupby(["patient", "field"]).size().rename(column)
        table = table.join(count, on=["patient", "field"])
        table[column] = table[column].fillna(0).astype(int)
    for column in ("mitoses", "detections"):
        table[f"{column}_per_mm2"] = (table[column] / table.area_mm2).round(2)
    return table


def draw_errors(
    out: Path,
    objects: pd.DataFrame,
    truths: pd.DataFrame,
    fields: list[FieldOfView],
    microns_per_pixel: float,
    *,
    note: str,
    show: "OnBatch",
) -> None:
    """Draw every test field with its hits, false positives and misses, and a contact sheet of the worst of these.

    Args:
        out: folder for `overlays/` and `errors.png`.
        objects: the table of `evaluation.matching.find_objects` with a column `predicted`.
        truths: patient, field, row, col of the mitoses.
        fields: what to draw.
        microns_per_pixel: of the fields.
        note: for the titles, as ", synthetic data".
        show: told how many fields are drawn.
    """
    side = round(_SHOWN_UM / microns_per_pixel)
    errors: dict[str, list[tuple[float, str, Image]]] = {"false positives": [], "missed mitoses": []}
    with atomic_folder(out / "overlays", replace=True) as folder:
        for done, field in enumerate(fields, start=1):
            image = read_image(field.image)
            here, there = (
                table[(table.patient == field.patient) & (table.field == field.field)] for table in (objects, truths)
            )
            found, false, missed = sort_detections(here, there, MATCH_UM / microns_per_pixel)
            marks = Marks(*(rows[["row", "col"]].to_numpy() for rows in (found, false, missed)))
            path = folder / f"{field.name}.jpg"
            draw_overlay(path, image, marks, radius=NUCLEUS_UM / microns_per_pixel, title=f"{field.name}{note}")
            for kind, rows in (("false positives", false), ("missed mitoses", missed)):
                windows, _ = cut_windows(image, rows[["row", "col"]].to_numpy(), side)
                for row, window in zip(rows.itertuples(), windows, strict=True):
                    name = f"{row.probability:.2f} {field.name} {row.row:.0f},{row.col:.0f}"
                    errors[kind].append((float(str(row.probability)), name, window))
            show("overlays", done, len(fields))
    sections = []
    for kind, tiles in errors.items():
        # The worst: false positives that it is surest of, and misses that it saw least of.
        worst = sorted(tiles, key=lambda tile: tile[0], reverse=kind == "false positives")[:_SHOWN]
        title = f"{len(tiles)} {kind}{note}, the worst {len(worst)}, {_SHOWN_UM} um wide, with their probability"
        sections.append((title, [(name, window) for _, name, window in worst]))
    draw_gallery(out / "errors.png", sections)


def sort_detections(
    objects: pd.DataFrame, truths: pd.DataFrame, radius: float
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Detections of one field that match a mitosis, those that do not, and the mitoses that none matches.

    Args:
        objects: with `predicted` 1 for what counts as detected at the threshold.
        truths: of the same field.
        radius: of a match, px.

    Returns:
        Three tables with row, col and probability; a missed mitosis has that of the most
        probable detection in its reach at any threshold, or 0.
    """
    detections = objects[objects.predicted == 1]
    taken = match(detections[["row", "col"]].to_numpy(), truths[["row", "col"]].to_numpy(), radius)
    is_found = np.isin(np.arange(len(detections)), taken)
    missed = truths[taken < 0]
    places, chances = objects[["row", "col"]].to_numpy(), objects.probability.to_numpy()
    near = [np.hypot(*(places - centre).T) <= radius for centre in missed[["row", "col"]].to_numpy()]
    best = [chances[reached].max(initial=0.0) for reached in near]
    return detections[is_found], detections[~is_found], missed.assign(probability=np.array(best, dtype=np.float64))


def reach(candidates: pd.DataFrame, truths: pd.DataFrame, microns_per_pixel: float) -> float:
    """Share of the mitoses with a candidate within the matching radius: no network can find the others.

    Both tables have patient, field, row and col in pixels.
    """
    found = 0
    for (patient, field), rows in truths.groupby(["patient", "field"]):
        here = candidates[(candidates.patient == patient) & (candidates.field == field)]
        distances = nearest(rows[["row", "col"]].to_numpy(), here[["row", "col"]].to_numpy())
        found += int((distances <= MATCH_UM / microns_per_pixel).sum())
    return found / len(truths)
