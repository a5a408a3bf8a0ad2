"""Detections in whole fields: non-maximum suppression, and matching to the annotated mitoses by the MIDOG rule.

The rule: each mitosis takes its nearest detection within 7.5 um that no other mitosis has taken. All other detections
are false positives, including duplicates. Source: Aubreville et al., "Mitosis domain generalization in histopathology
images - the MIDOG challenge", Medical Image Analysis 84 (2023).
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.spatial import KDTree

MATCH_UM = 7.5

Points = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def suppress(points: Points, probabilities: Floats, radius: float) -> Integers:
    """Keep a point only if no more probable kept point lies within `radius` (inclusive) of it.

    Args:
        points: (N, 2) row, col.
        probabilities: (N,); of equally probable points the first is kept.
        radius: in the unit of the points.

    Returns:
        Indices of the kept points, most probable first.
    """
    order = np.argsort(-probabilities, kind="stable")
    neighbours = KDTree(points).query_ball_point(points, radius) if len(points) else []
    kept, alive = [], np.ones(len(points), dtype=bool)
    for index in order:
        if alive[index]:
            kept.append(index)
            alive[neighbours[index]] = False
    return np.array(kept, dtype=np.int64)


def match(points: Points, truths: Points, radius: float) -> Integers:
    """Match each mitosis, in order, to the nearest free detection within `radius` (inclusive).

    Args:
        points: (N, 2) detections; of two equally near ones the first is taken.
        truths: (M, 2) mitoses, in the order of their file.
        radius: in the unit of both.

    Returns:
        (M,) index of the matched detection, -1 for a missed mitosis.
    """
    taken = np.full(len(truths), -1, dtype=np.int64)
    if not (len(points) and len(truths)):
        return taken
    for number, near in enumerate(KDTree(points).query_ball_point(truths, radius)):
        free = np.setdiff1d(near, taken).astype(np.int64)
        if len(free):
            taken[number] = free[np.argmin(np.linalg.norm(points[free] - truths[number], axis=1))]
    return taken


def label(points: Points, truths: Points, radius: float) -> Integers:
    """Label each detection 1 if it adds a match to those before it, and 0 if not; (N,).

    With the most probable detection first, the sum of the labels down to a threshold is the number of matches at that
    threshold, because an additional detection never removes a match and never adds two. Of two detections of one
    mitosis the more probable one gets the label, although `match` takes the nearer one at a threshold below both; the
    counts are equal.
    """
    labels = np.zeros(len(points), dtype=np.int64)
    if not (len(points) and len(truths)):
        return labels
    near = np.flatnonzero(KDTree(truths).query(points)[0] <= radius)  # the others match nothing
    matches = [int((match(points[near[:count]], truths, radius) >= 0).sum()) for count in range(len(near) + 1)]
    labels[near] = np.diff(matches)
    return labels


def find_objects(
    candidates: pd.DataFrame,
    probabilities: Floats,
    truths: pd.DataFrame,
    microns_per_pixel: Mapping[str, float],
    *,
    suppress_um: float = MATCH_UM,
) -> pd.DataFrame:
    """Return the detections and missed mitoses of many fields as one table, from which the metrics are computed.

    Args:
        candidates: patient, field, row, col (full-resolution px) of the fields' candidates.
        probabilities: (N,) probabilities of the candidates.
        truths: the mitoses, with the same columns as `candidates`.
        microns_per_pixel: pixel size of each field, um, by its name PP_FF.
        suppress_um: radius of the non-maximum suppression, um; of two candidates this close the more probable one
            stays.

    Returns:
        patient, field, row, col, probability, label. One row per detection, with label 1 if it adds a match (see
        `label`). And one row with label 1 and probability 0 per mitosis that no detection matches at any threshold: no
        candidate lies within the matching radius, or all of them were suppressed or matched to other mitoses.
    """
    position = ["row", "col"]
    scored = candidates.assign(probability=np.asarray(probabilities, dtype=np.float64))
    found = dict(list(scored.groupby(["patient", "field"])))
    known = dict(list(truths.groupby(["patient", "field"])))
    columns = ["patient", "field", *position, "probability", "label"]
    types = dict.fromkeys([*position, "probability"], np.float64) | {"label": np.int64}
    parts = [pd.DataFrame(columns=columns).astype(types)]
    for key in sorted(found.keys() | known.keys()):
        microns = microns_per_pixel["{}_{}".format(*key)]
        here, there = found.get(key, scored.iloc[:0]), known.get(key, truths.iloc[:0])
        detections = here.iloc[suppress(here[position].to_numpy(), here.probability.to_numpy(), suppress_um / microns)]
        points, centres, radius = detections[position].to_numpy(), there[position].to_numpy(), MATCH_UM / microns
        missed = there[match(points, centres, radius) < 0]
        parts.append(detections.assign(label=label(points, centres, radius)))
        parts.append(missed.assign(label=1, probability=0.0))
    return pd.concat([part[columns] for part in parts], ignore_index=True)
