"""The field level: detections in whole fields, their scores by the MIDOG rule, and pictures of the errors."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mitoscope.files import atomic_folder
from mitoscope.histology.detections import MATCH_UM, find_objects, match
from mitoscope.histology.fields import FieldOfView, Image, list_fields, read_image
from mitoscope.histology.galleries import draw_gallery
from mitoscope.histology.overlays import NUCLEUS_UM, Marks, draw_overlay
from mitoscope.histology.patches import cut_windows, read_summary
from mitoscope.params import Evaluate
from mitoscope.paths import DATA, PATCHES
from mitoscope.stages.subsets import read_candidates

if TYPE_CHECKING:
    from mitoscope.learning.devices import Place
    from mitoscope.learning.loop import OnBatch
    from mitoscope.learning.networks import PatchNetwork

_SHOWN, _SHOWN_UM = 40, 32  # of the worst errors, each with its surroundings


def detect(network: "PatchNetwork", subset: str, place: "Place", on_batch: "OnBatch | None" = None) -> pd.DataFrame:
    """Detect mitoses in the whole fields of a subset's patients; the table of `histology.detections.find_objects`.

    Raises:
        InputError: there is no patch store, or a patient of it is in no subset.
    """
    from mitoscope.learning.loop import score_patches

    patches, candidates, truths = read_candidates(subset)
    probabilities = score_patches(network, patches, place, on_batch, f"{network.arch} {subset} fields")
    return find_objects(candidates, probabilities, truths, read_summary(PATCHES)["dataset"]["microns_per_pixel"])


def score_fields(
    objects: pd.DataFrame, fields: pd.DataFrame, threshold: float, settings: Evaluate
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Scores of the whole test fields by the MIDOG rule, counts pooled, and their 95 % intervals by patient.

    Args:
        objects: the table of `histology.detections.find_objects`.
        fields: the table of `count_fields`.
        threshold: chosen on the validation patients' fields.
        settings: of the intervals.

    Returns:
        Counts; precision, recall, f1 at `threshold`; ap; `reachable`, the recall of the candidates and so the highest
        that any network can reach; mitoses per mm2, true and detected. And under the same names [low, high].
    """
    from mitoscope.learning.scores import object_scores, patient_intervals

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
        "reachable": float(((labels == 1) & (probabilities > 0)).sum() / labels.sum()),
        "mitoses_per_mm2": float(totals.mitoses / totals.area_mm2),
        "detections_per_mm2": float(totals.detections / totals.area_mm2),
    }
    intervals = patient_intervals(
        patients, labels, probabilities, score, resamples=settings.bootstrap, seed=settings.seed
    )
    return metrics, intervals


def count_fields(objects: pd.DataFrame, areas_mm2: dict[str, float], patients: list[str]) -> pd.DataFrame:
    """One row per field of these patients: its mitoses, detections, matches and errors, and their densities.

    Args:
        objects: the table of `histology.detections.find_objects` with a column `predicted`.
        areas_mm2: area of every field of the dataset, by its name PP_FF.
        patients: whose fields.
    """
    names = [name for name in areas_mm2 if name.partition("_")[0] in patients]
    table = pd.DataFrame([name.split("_") for name in names], columns=["patient", "field"])
    table["area_mm2"] = [areas_mm2[name] for name in names]
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


def draw_errors(out: Path, objects: pd.DataFrame, microns_per_pixel: float, show: "OnBatch") -> None:
    """Draw every test field with its hits, false positives and misses, and a contact sheet of the worst of these.

    Args:
        out: folder for `overlays/` and `errors.png`.
        objects: the table of `histology.detections.find_objects` with a column `predicted`.
        microns_per_pixel: of the fields.
        show: told how many fields are drawn.
    """
    _, _, truths = read_candidates("test")
    patients = {*objects.patient, *truths.patient}
    fields = [field for field in list_fields(DATA) if field.patient in patients]
    worst = {
        "false positives": objects[(objects.label == 0) & (objects.predicted == 1)].nlargest(_SHOWN, "probability"),
        "missed mitoses": objects[(objects.label == 1) & (objects.predicted == 0)].nsmallest(_SHOWN, "probability"),
    }
    side = round(_SHOWN_UM / microns_per_pixel)
    tiles: dict[Any, Image] = {}
    with atomic_folder(out / "overlays", replace=True) as folder:
        for done, field in enumerate(fields, start=1):
            image = read_image(field.image)
            marks = mark(field, objects[objects.predicted == 1], truths, MATCH_UM / microns_per_pixel)
            path = folder / f"{field.name}.jpg"
            draw_overlay(path, image, marks, radius=NUCLEUS_UM / microns_per_pixel, title=field.name)
            for rows in worst.values():
                here = rows[(rows.patient == field.patient) & (rows.field == field.field)]
                windows, _ = cut_windows(image, here[["row", "col"]].to_numpy(), side)
                tiles.update(zip(here.index, windows, strict=True))
            show("overlays", done, len(fields))
    sections = []
    for kind, rows in worst.items():
        places = (f"{row.patient}_{row.field} {row.row:.0f},{row.col:.0f}" for row in rows.itertuples())
        names = [f"{chance:.2f} {place}" for chance, place in zip(rows.probability, places, strict=True)]
        title = f"{kind}: the worst {len(rows)}, {_SHOWN_UM} um wide, each with its probability"
        sections.append((title, list(zip(names, (tiles[index] for index in rows.index), strict=True))))
    draw_gallery(out / "errors.png", sections)


def mark(field: FieldOfView, detections: pd.DataFrame, truths: pd.DataFrame, radius: float) -> Marks:
    """The marks of one field: detections that match a mitosis, those that do not, and mitoses without detection."""
    points, centres = (
        table[(table.patient == field.patient) & (table.field == field.field)][["row", "col"]].to_numpy()
        for table in (detections, truths)
    )
    taken = match(points, centres, radius)
    found = taken[taken >= 0]
    return Marks(found=points[found], false=np.delete(points, found, axis=0), missed=centres[taken < 0])
