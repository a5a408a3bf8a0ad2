"""Detections in whole fields: non-maximum suppression, and matching to the truth by the MIDOG rule.

The rule: each mitosis takes its nearest detection that no other has taken, within 7.5 um; every other detection is a
false positive, duplicates too. Source: Aubreville et al., "Mitosis domain generalization in histopathology images -
the MIDOG challenge", Medical Image Analysis 84 (2023).
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
    """Keep a point only where no more probable kept one lies within `radius` (inclusive) of it.

    Args:
        points: (N, 2) row, col.
        probabilities: (N,); of equal ones the first wins.
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
    """Give each truth, in the order of its file, its nearest detection within `radius` (inclusive) that is still free.

    Args:
        points: (N, 2) detections; of two equally near ones the first is taken.
        truths: (M, 2).
        radius: in the unit of both.

    Returns:
        (M,) index of the detection, -1 where the truth is missed.
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
    """Which detections add a match when they are counted from the first to the last; (N,) of 1 and 0.

    With the most probable first, the sum of the labels down to a threshold is the number of matches at this
    threshold: one detection more never loses a match and never adds two. Of two detections of one mitosis the more
    probable one has the label, though at a threshold below both `match` takes the nearer one: the counts are equal.
    """
    labels = np.zeros(len(points), dtype=np.int64)
    if not (len(points) and len(truths)):
        return labels
    near = np.flatnonzero(KDTree(truths).query(points)[0] <= radius)  # the others change nothing
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
    """Detections and missed mitoses of many fields as one table, from which the metrics can be taken.

    Args:
        candidates: patient, field, row, col (full-resolution px) of the candidates of the fields.
        probabilities: (N,) of the candidates.
        truths: the same columns, of the mitoses.
        microns_per_pixel: of each field, by its name PP_FF.
        suppress_um: of two detections this close the more probable one stays, um.

    Returns:
        patient, field, row, col, probability, label. One row per detection, label 1 where it adds a match (see
        `label`); and one per mitosis that no detection reaches, with label 1 and probability 0.
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
