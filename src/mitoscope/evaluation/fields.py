"""Field-level evaluation: scores of the detections in whole fields by the MIDOG rule."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from scipy.spatial import KDTree

from mitoscope.evaluation.intervals import patient_intervals
from mitoscope.evaluation.matching import MATCH_UM, match
from mitoscope.evaluation.metrics import scores
from mitoscope.params import Evaluate

UNNAMED = "(no domain)"  # how tables name the fields for which fields.csv has no domain


def score_fields(
    objects: pd.DataFrame, fields: pd.DataFrame, threshold: float, settings: Evaluate
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Score whole test fields by the MIDOG rule with pooled counts, and compute 95 % intervals by patient.

    Args:
        objects: the table of `evaluation.matching.find_objects`.
        fields: the table of `count_fields`.
        threshold: chosen without these patients.
        settings: number of resamples and seed of the intervals.

    Returns:
        The counts and all field metrics at `threshold`; and the interval (low, high) of each score by name, empty if
        there is only one patient.
    """
    labels, probabilities = objects.label.to_numpy(), objects.probability.to_numpy()
    score = partial(scores, "fields", threshold=threshold)
    totals = fields[["mitoses", "detections", "tp", "fp", "fn", "area_mm2"]].sum()
    metrics = {
        "patients": fields.patient.nunique(),
        "fields": len(fields),
        **{name: int(totals[name]) for name in ("mitoses", "detections", "tp", "fp", "fn")},
        "area_mm2": float(totals.area_mm2),
        "threshold": threshold,
        **score(labels, probabilities, area_mm2=float(totals.area_mm2)),
    }
    intervals = patient_intervals(
        objects.patient.to_numpy(dtype=str),
        labels,
        probabilities,
        score,
        resamples=settings.bootstrap,
        seed=settings.seed,
        areas_mm2={str(patient): float(area) for patient, area in fields.groupby("patient").area_mm2.sum().items()},
    )
    return metrics, intervals


def score_domains(
    objects: pd.DataFrame, fields: pd.DataFrame, threshold: float, settings: Evaluate
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Score the fields of each domain alone, like `score_fields`; empty if all fields have the same domain.

    Args:
        objects: the table of `evaluation.matching.find_objects`.
        fields: the table of `count_fields`.
        threshold: the one of all domains.
        settings: number of resamples and seed of the intervals.

    Returns:
        By domain, the metrics and the intervals of `score_fields`; without recall and F1 where there are no mitoses.
    """
    found: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    for domain, inside, mine in by_domain(fields, objects):
        metrics, found[1][domain] = score_fields(mine, inside, threshold, settings)
        found[0][domain] = without_undefined(metrics)
    return found


def without_undefined(metrics: dict[str, Any]) -> dict[str, Any]:
    """Return the metrics of a domain, without recall and F1 if it has no mitoses: they would be 0 whatever is found."""
    return metrics if metrics["mitoses"] else {name: metrics[name] for name in metrics if name not in ("recall", "f1")}


def by_domain(fields: pd.DataFrame, objects: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame, pd.DataFrame]]:
    """Yield each domain with its rows of both tables, sorted by name; nothing if all fields have the same domain.

    Args:
        fields: a row per field: patient, field, domain.
        objects: any number of rows per field: patient, field.
    """
    domains = sorted(set(fields.domain))
    owner = pd.MultiIndex.from_frame(objects[["patient", "field"]])
    for domain in domains if len(domains) > 1 else ():
        inside = fields[fields.domain == domain]
        yield domain or UNNAMED, inside, objects[owner.isin(pd.MultiIndex.from_frame(inside[["patient", "field"]]))]


def count_fields(objects: pd.DataFrame, areas_mm2: Mapping[str, float], domains: Mapping[str, str]) -> pd.DataFrame:
    """Count the mitoses, detections, matches and errors of each field, one row per field, and compute densities.

    Args:
        objects: the table of `evaluation.matching.find_objects` with a column `predicted`.
        areas_mm2: area of each field, by its name PP_FF; a field without any object has a row too.
        domains: domain of each field, by its name PP_FF.
    """
    table = pd.DataFrame([name.split("_") for name in areas_mm2], columns=["patient", "field"])
    table["domain"] = [domains[name] for name in areas_mm2]
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


def sort_detections(
    objects: pd.DataFrame, truths: pd.DataFrame, microns_per_pixel: float
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Split one field into detections that match a mitosis, detections that do not, and missed mitoses.

    Args:
        objects: the field's objects, with `predicted` 1 for those detected at the threshold.
        truths: the field's mitoses.
        microns_per_pixel: pixel size of the field, um.

    Returns:
        Three tables with row, col and probability. A missed mitosis has the probability of the most probable detection
        within the matching radius, whatever the threshold, or 0 if there is none.
    """
    radius = MATCH_UM / microns_per_pixel
    detections = objects[objects.predicted == 1]
    taken = match(detections[["row", "col"]].to_numpy(), truths[["row", "col"]].to_numpy(), radius)
    is_found = np.isin(np.arange(len(detections)), taken)
    missed = truths[taken < 0]
    points, probabilities = objects[["row", "col"]].to_numpy(), objects.probability.to_numpy()
    near = [np.hypot(*(points - centre).T) <= radius for centre in missed[["row", "col"]].to_numpy()]
    best = [probabilities[reached].max(initial=0.0) for reached in near]
    return detections[is_found], detections[~is_found], missed.assign(probability=np.array(best, dtype=np.float64))


def reach(candidates: pd.DataFrame, truths: pd.DataFrame, microns_per_pixel: Mapping[str, float]) -> float:
    """Return the share of the mitoses with a candidate within the matching radius. No network can find the others.

    Args:
        candidates: patient, field, row, col (full-resolution px).
        truths: the mitoses, with the same columns; at least one.
        microns_per_pixel: pixel size of each field, um, by its name PP_FF.
    """
    position = ["row", "col"]
    proposed = dict(list(candidates.groupby(["patient", "field"])))
    found = 0
    for key, rows in truths.groupby(["patient", "field"]):
        if key in proposed:
            radius = MATCH_UM / microns_per_pixel["{}_{}".format(*key)]
            tree = KDTree(proposed[key][position].to_numpy())
            found += int(np.sum(tree.query(rows[position].to_numpy())[0] <= radius))
    return found / len(truths)
