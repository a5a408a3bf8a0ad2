"""Suspects: which labels disagree with a score, and how much."""

import math

import numpy as np
import pandas as pd
import pytest

from mitoscope.evaluation.suspects import rank_labels

MICRONS = {"01_a": 0.25, "02_a": 0.25}  # 7.5 um are 30 px
THRESHOLDS = {"01": 0.5, "02": 0.1}
Place = tuple[str, float, float]


def places(*rows: Place) -> pd.DataFrame:
    """Patient, row and col; the field is `a`."""
    table = pd.DataFrame(rows, columns=["patient", "row", "col"]).astype({"row": float, "col": float})
    return table.assign(field="a")


def objects(*rows: tuple[str, float, float, float]) -> pd.DataFrame:
    """Patient, row, col and probability."""
    return places(*(row[:3] for row in rows)).assign(probability=[row[3] for row in rows])


def rank(found: pd.DataFrame, mitoses: pd.DataFrame, lookalikes: pd.DataFrame | None = None) -> pd.DataFrame:
    return rank_labels(found, mitoses, places() if lookalikes is None else lookalikes, THRESHOLDS, MICRONS)


def described(table: pd.DataFrame) -> list[tuple[int, str, float]]:
    """Rank, label and column of each row."""
    return list(zip(table["rank"], table.label, table.col, strict=True))


def test_a_mitosis_that_scores_low_and_a_place_that_scores_high_are_suspects():
    found = objects(("01", 0, 100, 0.2), ("01", 0, 300, 0.9), ("01", 0, 500, 0.9), ("01", 0, 700, 0.05))
    table = rank(found, places(("01", 5, 100), ("01", 0, 300)))
    assert described(table) == [(1, "none", 500), (2, "mitosis", 100), (0, "mitosis", 300), (0, "none", 700)]
    assert table.row.iloc[1] == 5  # where the annotation is
    expected = [math.log(9), math.log(4), -math.log(9), -math.log(19)]  # the log-odds of the threshold are 0
    np.testing.assert_allclose(table.disagreement, expected)


def test_folds_are_compared_by_the_distance_from_their_own_threshold():
    """0.5 is as far above the threshold 0.1 as 0.9 is above 0.5: each has nine times its odds."""
    table = rank(objects(("01", 0, 500, 0.9), ("02", 0, 500, 0.5), ("02", 0, 700, 0.51)), places(("01", 0, 0)))
    first, second, third = table.disagreement[:3]
    assert second == pytest.approx(third) == pytest.approx(math.log(9)) and first > second
    assert table.threshold[:3].tolist() == [0.1, 0.5, 0.1]


def test_a_score_at_the_threshold_is_no_suspect():
    table = rank(objects(("01", 0, 0, 0.5), ("01", 0, 500, 0.5)), places(("01", 0, 0)))
    assert table["rank"].tolist() == [0, 0]


def test_the_score_of_an_annotation_is_the_highest_within_the_matching_radius():
    found = objects(("01", 0, 1, 0.2), ("01", 0, 30, 0.8), ("01", 0, -31, 0.9))
    table = rank(found, places(("01", 0, 0)))
    assert described(table) == [(1, "none", -31), (0, "mitosis", 0)]
    assert table.probability.tolist() == [0.9, 0.8]


def test_mitoses_without_a_score_come_last():
    """`find_objects` has a row with probability 0 for a mitosis that no detection matches."""
    found = objects(("01", 0, 0, 0.0), ("01", 0, 200, 0.49))
    table = rank(found, places(("01", 0, 0), ("01", 0, 200), ("02", 0, 0)))
    assert described(table) == [(1, "mitosis", 200), (2, "mitosis", 0), (3, "mitosis", 0)]
    assert table.probability.isna().tolist() == table.disagreement.isna().tolist() == [False, True, True]


def test_a_labelled_lookalike_is_a_suspect_where_it_scores_high():
    found = objects(("01", 0, 0, 0.9), ("01", 0, 104, 0.8), ("01", 0, 300, 0.3))
    # The first look-alike is near a mitosis, whose score says nothing about it; nothing is near the last one.
    lookalikes = places(("01", 0, 10), ("01", 0, 100), ("01", 0, 300), ("01", 0, 600))
    table = rank(found, places(("01", 0, 0)), lookalikes)
    assert described(table)[0] == (1, "look-alike", 100)
    assert table["rank"].sum() == 1 and len(table) == 5
    assert table.set_index("col").probability[[10, 600]].isna().all()


def test_certain_scores_stay_finite():
    table = rank(objects(("01", 0, 0, 1e-300), ("01", 0, 500, 1.0)), places(("01", 0, 0)))
    assert table.disagreement.tolist() == [36, 36]
