"""Suspects: annotations, and places without one, whose label disagrees with the held-out score of a detector."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.spatial.distance import cdist
from scipy.special import logit

from mitoscope.evaluation.matching import MATCH_UM

MITOSIS, LOOKALIKE, NONE = "mitosis", "look-alike", "none"  # the labels of a place
_FARTHEST = 36.0  # log-odds; beyond this, float64 probabilities round to 1


def rank_labels(
    objects: pd.DataFrame,
    mitoses: pd.DataFrame,
    lookalikes: pd.DataFrame,
    thresholds: Mapping[str, float],
    microns_per_pixel: Mapping[str, float],
) -> pd.DataFrame:
    """Compare every label with the score at its place, and rank those that disagree, the farthest apart first.

    The score of an annotation is that of the most probable detection within 7.5 um. A detection near a mitosis says
    nothing about another place, and one farther from all annotations is a place of its own, with the label `none`.

    The disagreement is the difference of the log-odds of the score and of the threshold, because each fold of a
    cross-validation has a network and a threshold of its own: threshold minus score for a mitosis, score minus
    threshold for everything else. Only what is above 0 is a suspect. A mitosis without a detection near has neither
    score nor disagreement: it had no candidate, or a more probable one suppressed it. Such mitoses come last.

    Args:
        objects: the table of `evaluation.matching.find_objects`, of detectors that had not seen the patients.
        mitoses: patient, field, row and col (full-resolution px) of the annotated mitoses of the same patients.
        lookalikes: the labelled look-alikes, with the same columns.
        thresholds: by patient, the threshold of the detector that scored this patient.
        microns_per_pixel: pixel size of each field, um, by its name PP_FF.

    Returns:
        rank, patient, field, row, col, label, probability, threshold, disagreement. A row per annotation and place, in
        the order of the ranks, which begin at 1; rank 0 = no suspect. Empty values are NaN. The index sorts the rows by
        field, label and the order of the annotations given.
    """
    position, key = ["row", "col"], ["patient", "field"]
    tables = (objects[objects.probability > 0], mitoses, lookalikes)  # 0 = a mitosis without a detection, not a score
    by_field = [dict(list(table.groupby(key))) for table in tables]
    parts = []
    for names in sorted(set().union(*by_field)):
        found, true, alike = (groups.get(names, table.iloc[:0]) for groups, table in zip(by_field, tables, strict=True))
        radius = MATCH_UM / microns_per_pixel["{}_{}".format(*names)]
        at_mitosis, at_lookalike = (cdist(table[position], found[position]) <= radius for table in (true, alike))
        at_lookalike &= ~at_mitosis.any(axis=0)
        scores = found.probability.to_numpy()
        for label, places, near in ((MITOSIS, true, at_mitosis), (LOOKALIKE, alike, at_lookalike)):
            best = np.where(near, scores, 0.0).max(axis=1, initial=0.0)
            parts.append(places.assign(label=label, probability=np.where(best > 0, best, np.nan)))
        alone = ~(at_mitosis.any(axis=0) | at_lookalike.any(axis=0))
        parts.append(found[alone].assign(label=NONE))
    table = pd.concat([part[[*key, *position, "label", "probability"]] for part in parts], ignore_index=True)
    table["threshold"] = table.patient.map(thresholds)
    is_mitosis = (table.label == MITOSIS).to_numpy()
    below = _log_odds(table.threshold.to_numpy()) - _log_odds(table.probability.to_numpy())
    table["disagreement"] = np.where(is_mitosis, below, -below)
    table = table.sort_values("disagreement", ascending=False, kind="stable")  # NaN come last
    suspect = (table.disagreement > 0) | ((table.label == MITOSIS) & table.probability.isna())
    table.insert(0, "rank", suspect.cumsum().where(suspect, 0))
    return pd.concat([table[suspect], table[~suspect]])


def _log_odds(probabilities: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(np.clip(logit(probabilities), -_FARTHEST, _FARTHEST), dtype=np.float64)
