"""Detections: what survives suppression, and which of them find a mitosis."""

import numpy as np
import pandas as pd
import pytest
from grand_challenge_metrics.scorers import score_detection
from hypothesis import given, settings
from hypothesis import strategies as st

from mitoscope.evaluation.matching import find_objects, label, match, suppress

# Whole numbers in a small square, so that ties, duplicates and points on the very radius are common.
PLACES = st.tuples(st.integers(0, 12), st.integers(0, 12)).map(lambda place: (float(place[0]), float(place[1])))
POINTS = st.lists(PLACES, max_size=12).map(lambda places: np.array(places).reshape(-1, 2))
MICRONS = {"01_a": 0.25, "01_b": 0.25, "02_a": 0.25}
RADIUS = 5.0  # of which 3-4-5 triangles hit the edge exactly


def points(*places: tuple[float, float]) -> np.ndarray:
    return np.array(places, dtype=float).reshape(-1, 2)


def match_by_force(detections: np.ndarray, truths: np.ndarray, radius: float) -> list[int]:
    """The rule again, in words: each truth in turn looks at every detection."""
    taken: list[int] = []
    for truth in truths:
        nearest, shortest = -1, radius
        for index, detection in enumerate(detections):
            distance = float(np.hypot(*(detection - truth)))
            if index not in taken and (distance < shortest or (distance == shortest and nearest < 0)):
                nearest, shortest = index, distance
        taken.append(nearest)
    return taken


@pytest.mark.parametrize(
    ("detections", "truths", "expected"),
    [
        (points((0, 1), (0, 2)), points((0, 0)), [0]),  # two on one truth: the nearer one, the other is false
        (points((0, 4)), points((0, 0), (0, 7)), [0, -1]),  # one between two: the first truth has it, though farther
        (points((0, 4), (0, 5)), points((0, 0), (0, 7)), [0, 1]),
        (points((0, 2), (0, 9)), points((0, 0), (0, 1)), [0, -1]),  # the second's only detection is taken
        (points((3, 4)), points((0, 0)), [0]),  # on the radius is within it
        (points((3, 4.01)), points((0, 0)), [-1]),
        (points((0, 3), (3, 0)), points((0, 0)), [0]),  # equally near: the first, which is the more probable
        (points(), points((0, 0)), [-1]),  # no detection
        (points((0, 0)), points(), []),  # empty field
        (points(), points(), []),
    ],
)
def test_matching_by_hand(detections, truths, expected):
    assert match(detections, truths, RADIUS).tolist() == expected


@settings(max_examples=60, deadline=None)
@given(POINTS, POINTS)
def test_matching_equals_a_brute_force_matcher(detections, truths):
    assert match(detections, truths, RADIUS).tolist() == match_by_force(detections, truths, RADIUS)


@settings(max_examples=30, deadline=None)
@given(POINTS, POINTS)
def test_labels_down_to_a_threshold_sum_to_the_matches_there(detections, truths):
    labels = label(detections, truths, RADIUS)
    assert labels.shape == (len(detections),) and set(labels.tolist()) <= {0, 1}
    for count in range(len(detections) + 1):
        assert labels[:count].sum() == (match(detections[:count], truths, RADIUS) >= 0).sum()


def test_the_duplicate_is_false_even_when_it_is_nearer():
    """Counted from the most probable, the first one finds the mitosis; that one more is there changes nothing."""
    assert label(points((0, 2), (0, 1)), points((0, 0)), RADIUS).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("places", "probabilities", "expected"),
    [
        (points((0, 0), (0, 4)), [0.8, 0.9], [1]),
        (points((0, 0), (3, 4)), [0.9, 0.8], [0]),  # on the radius
        (points((0, 0), (0, 4), (0, 8)), [0.9, 0.8, 0.7], [0, 2]),  # a suppressed one suppresses nothing
        (points((0, 0), (0, 4), (0, 8)), [0.7, 0.9, 0.8], [1]),
        (points((0, 0), (0, 4)), [0.5, 0.5], [0]),  # equal: the first
        (points((0, 0), (0, 0)), [0.5, 0.6], [1]),
        (points(), [], []),
    ],
)
def test_suppression_by_hand(places, probabilities, expected):
    assert suppress(places, np.array(probabilities, dtype=float), RADIUS).tolist() == expected


@settings(max_examples=60, deadline=None)
@given(POINTS, st.randoms(use_true_random=False))
def test_suppression_keeps_the_strongest_and_no_two_neighbours(places, random):
    probabilities = np.array([random.choice([0.1, 0.5, 0.9]) for _ in places])
    kept = suppress(places, probabilities, RADIUS)
    assert (np.diff(probabilities[kept]) <= 0).all()
    for index, place in enumerate(places):
        near = kept[np.hypot(*(places[kept] - place).T) <= RADIUS] if len(kept) else kept
        if index in kept:
            assert near.tolist() == [index]
        else:
            assert probabilities[near].max() >= probabilities[index]


def test_the_counts_are_those_of_the_challenges_own_scorer():
    rng = np.random.default_rng(0)
    for _ in range(300):
        # Crowded, so that points compete for one another; the scorer leaves open which of equally near ones it takes.
        detections, truths = (rng.uniform(0, 20, (rng.integers(0, 16), 2)) for _ in range(2))
        matched = int((match(detections, truths, RADIUS) >= 0).sum())
        theirs = score_detection(ground_truth=truths.tolist(), predictions=detections.tolist(), radius=RADIUS)
        assert (matched, len(truths) - matched, len(detections) - matched) == theirs


def table(*rows: tuple[str, str, float, float]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["patient", "field", "row", "col"]).astype({"row": float, "col": float})


def test_objects_of_fields_with_and_without_mitoses_and_detections():
    candidates = table(("01", "a", 0, 0), ("01", "a", 0, 5), ("01", "a", 90, 90), ("02", "a", 0, 0))
    truths = table(("01", "a", 0, 4), ("01", "b", 7, 7))
    # 0.25 um a pixel: 7.5 um are 30 px, so the second candidate suppresses the first.
    objects = find_objects(candidates, np.array([0.6, 0.7, 0.2, 0.9]), truths, MICRONS)
    assert list(objects.itertuples(index=False, name=None)) == [
        ("01", "a", 0, 5, 0.7, 1),
        ("01", "a", 90, 90, 0.2, 0),
        ("01", "b", 7, 7, 0.0, 1),  # no candidate there: missed at every threshold
        ("02", "a", 0, 0, 0.9, 0),
    ]


def test_nothing_at_all_gives_an_empty_table():
    objects = find_objects(table(), np.zeros(0), table(), {})
    assert objects.empty and objects.label.dtype == np.int64 and objects.probability.dtype == np.float64


def test_the_radius_is_in_microns():
    candidates, truths = table(("01", "a", 0, 29)), table(("01", "a", 0, 0))
    assert find_objects(candidates, np.array([0.5]), truths, {"01_a": 0.25}).label.tolist() == [1]
    assert find_objects(candidates, np.array([0.5]), truths, {"01_a": 0.5}).label.tolist() == [0, 1]


def test_the_same_scene_from_two_scanners_has_the_same_labels():
    rng = np.random.default_rng(1)
    scene = [pd.DataFrame({"row": rng.uniform(0, 200, n), "col": rng.uniform(0, 200, n)}) for n in (120, 40)]  # um
    probabilities = rng.uniform(0.01, 1, 120)
    microns = {"01_a": 0.25, "01_b": 0.5}
    candidates, truths = (
        pd.concat([(points / microns[f"01_{field}"]).assign(patient="01", field=field) for field in "ab"])
        for points in scene
    )
    objects = find_objects(candidates, np.tile(probabilities, 2), truths, microns)
    one, other = (objects[objects.field == field].reset_index(drop=True) for field in "ab")
    assert 0 < one.label.sum() < len(one) and (one.probability == 0).any()  # hits, false positives and misses
    pd.testing.assert_frame_equal(one[["probability", "label"]], other[["probability", "label"]])
    np.testing.assert_allclose(one.row * 0.25, other.row * 0.5)


def test_the_suppression_radius_is_a_setting_of_its_own():
    candidates, truths = table(("01", "a", 0, 0), ("01", "a", 0, 25)), table(("01", "a", 0, 12))
    probabilities = np.array([0.9, 0.8])
    found = {um: find_objects(candidates, probabilities, truths, MICRONS, suppress_um=um).label for um in (5, 7.5)}
    assert found[5].tolist() == [1, 0] and found[7.5].tolist() == [1]  # matched within 7.5 um either way
