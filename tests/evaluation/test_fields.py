"""Counts of fields by hand, and which detection is what."""

import pandas as pd
import pytest

from mitoscope.evaluation import metrics
from mitoscope.evaluation.fields import count_fields, reach, score_domains, score_fields, sort_detections
from mitoscope.params import Evaluate

# At 0.5: field a has a hit and a false positive, b a miss that was seen weakly and one that was never reached.
OBJECTS = pd.DataFrame(
    [
        ("01", "a", 9.0, 9.0, 0.9, 1),
        ("01", "a", 50.0, 9.0, 0.6, 0),
        ("02", "b", 9.0, 9.0, 0.3, 1),
        ("02", "b", 90.0, 9.0, 0.0, 1),
    ],
    columns=["patient", "field", "row", "col", "probability", "label"],
)
OBJECTS["predicted"] = (OBJECTS.probability >= 0.5).astype(int)
PLACES = pd.DataFrame({"row": [5.0, 500.0], "col": [5.0, 500.0]})
MICRONS = 0.25  # 7.5 um are 30 px
AREAS = {"01_a": 0.5, "02_b": 0.25, "02_c": 0.25}
DOMAINS = {"01_a": "Aperio", "02_b": "", "02_c": "Leica"}


def test_fields_are_counted_by_hand():
    fields = count_fields(OBJECTS, AREAS, DOMAINS).set_index(["patient", "field"])
    counts = ["mitoses", "detections", "tp", "fp", "fn"]
    assert fields.loc[("01", "a"), counts].tolist() == [1, 2, 1, 1, 0]
    assert fields.loc[("02", "b"), counts].tolist() == [2, 0, 0, 0, 2]
    assert fields.loc[("02", "c"), counts].tolist() == [0, 0, 0, 0, 0]  # nothing there, nothing said
    assert fields.detections_per_mm2.tolist() == [4, 0, 0] and fields.mitoses_per_mm2.tolist() == [2, 8, 0]


def test_counts_are_pooled_over_fields():
    fields = count_fields(OBJECTS, AREAS, DOMAINS)
    scores, intervals = score_fields(OBJECTS, fields, 0.5, Evaluate(bootstrap=200, seed=0))
    assert (scores["patients"], scores["fields"], scores["area_mm2"]) == (2, 3, 1.0)
    assert (scores["tp"], scores["fp"], scores["fn"]) == (1, 1, 2)
    assert scores["precision"] == 1 / 2 and scores["recall"] == pytest.approx(1 / 3) and scores["f1"] == 2 / 5
    assert (scores["mitoses_per_mm2"], scores["detections_per_mm2"]) == (3, 2)
    # Patient 01 alone: recall 1, 02 alone: 0.
    assert intervals["recall"] == pytest.approx((0, 1))
    assert intervals.keys() == {"precision", "recall", "f1", "ap", "mitoses_per_mm2", "detections_per_mm2"}


def test_domains_are_scored_apart_at_the_same_threshold():
    fields = count_fields(OBJECTS, AREAS, DOMAINS)
    scores, intervals = score_domains(OBJECTS, fields, 0.5, Evaluate(bootstrap=200, seed=0))
    counts = {domain: [found[name] for name in ("fields", "tp", "fp", "fn")] for domain, found in scores.items()}
    assert counts == {"(no domain)": [1, 0, 0, 2], "Aperio": [1, 1, 1, 0], "Leica": [1, 0, 0, 0]}
    assert scores["Aperio"]["f1"] == pytest.approx(2 / 3) and scores["(no domain)"]["area_mm2"] == 0.25
    assert "f1" not in scores["Leica"] and "recall" not in scores["Leica"]  # no mitosis to find
    assert intervals == {"(no domain)": {}, "Aperio": {}, "Leica": {}}  # one patient each


def test_fields_of_one_domain_have_no_scores_by_domain():
    fields = count_fields(OBJECTS, AREAS, dict.fromkeys(AREAS, "Aperio"))
    assert score_domains(OBJECTS, fields, 0.5, Evaluate()) == ({}, {})


def test_a_new_metric_has_a_score_and_an_interval(monkeypatch):
    monkeypatch.setattr(metrics, "_METRICS", {level: dict(known) for level, known in metrics._METRICS.items()})

    @metrics.metric("fields")
    def fp_per_mm2(labels, probabilities, threshold, area_mm2):
        return float(((labels == 0) & (probabilities >= threshold)).sum() / area_mm2)

    scores, intervals = score_fields(
        OBJECTS, count_fields(OBJECTS, AREAS, DOMAINS), 0.5, Evaluate(bootstrap=200, seed=0)
    )
    assert scores["fp_per_mm2"] == 1
    assert intervals["fp_per_mm2"] == pytest.approx((0, 2))  # patient 01 alone: 1 in 0.5 mm2


def test_detections_of_a_field_are_sorted_into_hits_errors_and_misses():
    truths = pd.DataFrame({"row": [12.0, 200.0, 90.0], "col": [9.0] * 3})
    here = OBJECTS.assign(row=[9.0, 50.0, 210.0, 400.0])
    found, false, missed = sort_detections(here, truths, MICRONS)
    assert found.row.tolist() == [9] and false.row.tolist() == [50]
    # One miss was seen with 0.3, below the threshold; nothing lies near the other.
    assert list(zip(missed.row, missed.probability, strict=True)) == [(200, 0.3), (90, 0.0)]


def test_of_two_detections_the_nearer_one_is_the_hit():
    here = pd.DataFrame({"row": [24.0, 8.0], "col": [0.0, 0.0], "probability": [0.9, 0.8], "predicted": [1, 1]})
    found, false, missed = sort_detections(here, pd.DataFrame({"row": [0.0], "col": [0.0]}), MICRONS)
    assert found.row.tolist() == [8] and false.row.tolist() == [24] and missed.empty


def test_a_field_without_truth_or_detection_has_nothing_to_sort():
    for objects, truths, sizes in ((OBJECTS[:1], PLACES[:0], [0, 1, 0]), (OBJECTS[:0], PLACES, [0, 0, 2])):
        assert [len(rows) for rows in sort_detections(objects, truths, MICRONS)] == sizes


def test_errors_are_sorted_alike_whatever_the_pixel_size():
    fine = pd.DataFrame({"row": [29.0, 80.0], "col": 0.0, "probability": [0.9, 0.4], "predicted": [1, 0]})
    truths = pd.DataFrame({"row": [0.0, 60.0], "col": 0.0})
    sizes = []
    for microns in (0.25, 0.5):
        parts = sort_detections(
            *(table.assign(row=table.row * 0.25 / microns, col=0.0) for table in (fine, truths)), microns
        )
        assert parts[2].probability.tolist() == [0.4]
        sizes.append([len(part) for part in parts])
    assert sizes == [[1, 0, 1]] * 2


def test_reach_is_that_of_the_candidates_whatever_the_network_says():
    # Both candidates lie within 30 px of a mitosis, though suppression would leave one of them.
    candidates = pd.DataFrame({"patient": "01", "field": "a", "row": [0.0, 25.0], "col": [0.0, 0.0]})
    truths = pd.DataFrame({"patient": "01", "field": ["a", "a", "a", "b"], "row": [-10.0, 45.0, 90.0, 0.0], "col": 0.0})
    assert reach(candidates, truths, {"01_a": 0.25, "01_b": 0.25}) == 2 / 4
    # 0.5 um a pixel: 7.5 um are 15 px, so the mitosis 20 px away is out of reach.
    assert reach(candidates, truths, {"01_a": 0.5, "01_b": 0.25}) == 1 / 4
    assert reach(candidates[:0], truths, {}) == 0
