"""Scores of patches and objects, worked by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score

from mitoscope.evaluation import metrics
from mitoscope.evaluation.metrics import best_threshold, froc, metric, patch_scores, scores


def test_the_four_scores_worked_by_hand():
    labels = np.array([1, 1, 1, 0, 0, 0, 0, 0])
    probabilities = np.array([0.9, 0.6, 0.1, 0.7, 0.4, 0.3, 0.2, 0.0])
    # Found: 0.9, 0.6 (both right) and 0.7 (wrong); missed: 0.1.
    assert scores("patches", labels, probabilities, 0.5, ranking=False) == pytest.approx(
        {"accuracy": 6 / 8, "precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3}
    )
    # Found at 0.4: 0.9, 0.6, 0.7 and 0.4 itself, because the threshold belongs to the mitoses.
    assert scores("patches", labels, probabilities, 0.4, ranking=False) == pytest.approx(
        {"accuracy": 5 / 8, "precision": 2 / 4, "recall": 2 / 3, "f1": 4 / 7}
    )


@pytest.mark.parametrize(("labels", "accuracy"), [([0, 0], 1.0), ([1, 0], 0.5)], ids=["no mitosis", "no mitosis found"])
def test_what_is_undefined_counts_as_nothing(labels, accuracy):
    found = scores("patches", np.array(labels), np.array([0.1, 0.2]), 0.5, ranking=False)
    assert found == {"accuracy": accuracy, "precision": 0.0, "recall": 0.0, "f1": 0.0}


def test_ranking_worked_by_hand():
    # Ranked: mitosis, other, mitosis, other. Precision at the mitoses is 1/1 and 2/3; of the 4 pairs 3 are in order.
    found = scores("patches", np.array([0, 1, 0, 1]), np.array([0.1, 0.4, 0.6, 0.9]), 0.5)
    assert (found["ap"], found["auc"]) == pytest.approx(((1 + 2 / 3) / 2, 3 / 4))


@pytest.mark.parametrize("labels", [[1, 1], [0, 0], []])
def test_one_class_has_no_ranking(labels):
    found = scores("patches", np.array(labels, np.int64), np.linspace(0, 1, len(labels)), 0.5)
    assert found.keys() == {"precision", "recall", "f1"} | ({"accuracy"} if labels else set())


@pytest.mark.parametrize(
    ("labels", "probabilities", "threshold", "f1"),
    [
        ([0, 0, 1, 1], [0.1, 0.2, 0.6, 0.8], 0.4, 1.0),
        ([0, 0, 0, 1], [0.2, 0.6, 0.8, 0.4], 0.3, 2 / 4),
        ([0, 1, 0, 1], [0.5, 0.5, 0.5, 0.5], 0.25, 2 / 3),
        ([0, 1, 1, 0], [0.2, 0.6, 0.6, 0.6], 0.4, 4 / 5),
        ([1, 0, 1, 1], [0.2, 0.4, 0.6, 0.8], 0.1, 6 / 7),
        ([0, 1, 0, 0, 1, 1], [0.1, 0.2, 0.3, 0.4, 0.6, 0.8], 0.5, 4 / 5),
        ([1, 1], [0.5, 0.5], 0.25, 1.0),
    ],
    ids=["perfect", "mitosis in the middle", "all equal", "ties", "all", "upper half", "mitoses only"],
)
def test_the_best_threshold_worked_by_hand(labels, probabilities, threshold, f1):
    assert best_threshold(np.array(labels), np.array(probabilities)) == pytest.approx((threshold, f1))


def test_of_equally_good_thresholds_the_lowest_is_taken():
    # At 0.2: 2 found, 2 wrong, 0 missed = 4/6. At 0.8: 1 found, 0 wrong, 1 missed = 2/3.
    assert best_threshold(np.array([1, 0, 0, 1]), np.array([0.2, 0.4, 0.6, 0.8])) == pytest.approx((0.1, 2 / 3))


def test_no_mitosis_no_threshold():
    with pytest.raises(ValueError, match="at least one mitosis"):
        best_threshold(np.array([0, 0]), np.array([0.1, 0.2]))


# Probabilities are what a softmax in float32 gives: many are equal, many are exactly 0 or 1.
probability = st.floats(0, 1, width=32) | st.sampled_from([0.0, 0.25, 0.5, 1.0])


SAMPLES = st.lists(st.tuples(st.integers(0, 1), probability), min_size=1, max_size=20)


@settings(max_examples=30, deadline=None)
@given(SAMPLES, st.sampled_from([1e-6, 0.25, 0.5, 1.0]))
def test_the_four_scores_are_scikit_learns(samples, threshold):
    labels, probabilities = (np.array(column) for column in zip(*samples, strict=True))
    predicted = probabilities >= threshold
    found = scores("patches", labels, probabilities, threshold, ranking=False)
    assert found.pop("accuracy") == pytest.approx(accuracy_score(labels, predicted))
    expected = {"precision": precision_score, "recall": recall_score, "f1": f1_score}
    assert found == pytest.approx({name: how(labels, predicted, zero_division=0) for name, how in expected.items()})


@settings(max_examples=60, deadline=None)
@given(SAMPLES)
def test_no_other_threshold_is_better(samples):
    labels, probabilities = (np.array(column) for column in zip(*samples, strict=True))
    labels[0] = 1
    threshold, f1 = best_threshold(labels, probabilities)

    def f1_at(threshold: float) -> float:
        found = probabilities >= threshold
        return 2 * (found & (labels == 1)).sum() / max(found.sum() + labels.sum(), 1)

    assert f1_at(threshold) == pytest.approx(f1)
    cuts = [other for other in probabilities if other > 0]  # what has no probability at all is never found
    assert max((f1_at(other) for other in cuts), default=0) == pytest.approx(f1)
    assert 0 < threshold <= max(probabilities.max(), 0.5)


# Detections with 0.9, 0.8, 0.7 and 0.2: right, wrong, right, wrong; and a mitosis that none of them matches.
OBJECTS = np.array([1, 0, 1, 0, 1]), np.array([0.9, 0.8, 0.7, 0.2, 0.0])


def test_object_scores_worked_by_hand():
    # At 0.7: two of three mitoses, one false positive. Average precision: 1/3 of recall at 1/1 and 1/3 at 2/3.
    assert scores("fields", *OBJECTS, 0.7) == pytest.approx(
        {"precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3, "ap": 1 / 3 * 1 + 1 / 3 * 2 / 3}
    )
    # A mitosis that no detection matches is missed at every threshold.
    assert scores("fields", *OBJECTS, 1e-12)["recall"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("labels", "probabilities", "expected"),
    [
        ([0], [0.9], {"precision": 0, "recall": 0, "f1": 0}),
        ([1], [0.0], {"precision": 0, "recall": 0, "f1": 0, "ap": 0}),
        ([0, 1], [0.9, 0.0], {"precision": 0, "recall": 0, "f1": 0, "ap": 0}),
    ],
    ids=["no mitosis", "no detection", "nothing found"],
)
def test_objects_of_which_little_is_known(labels, probabilities, expected):
    assert scores("fields", np.array(labels, np.int64), np.array(probabilities, float), 0.5) == expected


def test_densities_need_an_area():
    found = scores("fields", *OBJECTS, 0.75, area_mm2=0.5)
    assert (found["mitoses_per_mm2"], found["detections_per_mm2"]) == (6, 4)
    assert found.keys() - scores("fields", *OBJECTS, 0.75, area_mm2=0.5, ranking=False).keys() == {"ap"}
    assert "mitoses_per_mm2" not in scores("fields", *OBJECTS, 0.75)


def test_froc_worked_by_hand():
    curve = froc(*OBJECTS, area_mm2=0.5)
    np.testing.assert_allclose(curve["threshold"], [0.9, 0.8, 0.7, 0.2])
    np.testing.assert_allclose(curve["fp_per_mm2"], [0, 2, 2, 4])
    np.testing.assert_allclose(curve["recall"], [1 / 3, 1 / 3, 2 / 3, 2 / 3])


def test_froc_at_its_extremes():
    nothing_false = froc(np.array([1, 1]), np.array([0.5, 0.5]), 1.0)  # equal probabilities are one point
    assert {name: values.tolist() for name, values in nothing_false.items()} == {
        "fp_per_mm2": [0],
        "recall": [1],
        "threshold": [0.5],
    }
    nothing_found = froc(np.array([0, 1]), np.array([0.5, 0.0]), 0.5)
    assert nothing_found["fp_per_mm2"].tolist() == [2] and nothing_found["recall"].tolist() == [0]
    assert len(froc(np.array([1]), np.array([0.0]), 1.0)["recall"]) == 0


def test_the_threshold_of_objects_leaves_out_mitoses_that_no_detection_matches():
    # Finding "all" mitoses at probability 0 would give F1 6/8; the best of the detections is 4/6, at 0.7.
    assert best_threshold(*OBJECTS) == pytest.approx(((0.7 + 0.2) / 2, 2 / 3))
    assert best_threshold(np.array([0, 1]), np.array([0.9, 0.0])) == (0.5, 0.0)


def test_training_gets_the_scores_at_half_and_the_best_threshold():
    labels, probabilities = np.array([1, 1, 0, 0]), np.array([0.9, 0.4, 0.2, 0.1])
    found = patch_scores(labels, probabilities)
    assert (found.pop("best_f1"), found.pop("threshold")) == pytest.approx((1, 0.3))
    assert found == scores("patches", labels, probabilities, 0.5)
    assert found["recall"] == 0.5 and found["ap"] == 1
    assert "ap" not in patch_scores(np.array([1]), np.array([0.9]))
    with pytest.raises(ValueError, match="at least one mitosis"):
        patch_scores(np.array([0]), np.array([0.9]))


@pytest.fixture
def registry(monkeypatch):
    """A registry of the test's own."""
    monkeypatch.setattr(metrics, "_METRICS", {level: dict(known) for level, known in metrics._METRICS.items()})


def test_a_registered_function_is_a_metric_of_its_level(registry):
    @metric("fields")
    def fp_per_mm2(labels, probabilities, threshold, area_mm2):
        return float(((labels == 0) & (probabilities >= threshold)).sum() / area_mm2) if area_mm2 else None

    assert scores("fields", *OBJECTS, 0.1, area_mm2=0.5)["fp_per_mm2"] == 4
    assert scores("fields", *OBJECTS, 0.75, area_mm2=0.5)["fp_per_mm2"] == 2
    assert "fp_per_mm2" not in scores("fields", *OBJECTS, 0.1)  # undefined without an area
    assert "fp_per_mm2" not in scores("patches", *OBJECTS, 0.1, area_mm2=0.5)


def test_a_metric_may_be_of_both_levels_and_have_a_name(registry):
    @metric("patches", "fields", name="share", ranks=True)
    def share_of_all(labels, probabilities, threshold, area_mm2):
        return float(labels.mean())

    for level in ("patches", "fields"):
        assert scores(level, *OBJECTS, 0.5)["share"] == 3 / 5
        assert "share" not in scores(level, *OBJECTS, 0.5, ranking=False)


def test_a_name_is_given_once(registry):
    with pytest.raises(ValueError, match="fields already have a metric 'f1'"):
        metric("fields", name="f1")(lambda labels, probabilities, threshold, area_mm2: 0.0)
