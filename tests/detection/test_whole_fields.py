"""A test in whole fields: what is counted, and what tells two test sets apart."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from mitoscope.datasets.fields import list_fields
from mitoscope.detection.stored import StoredFields
from mitoscope.detection.whole_fields import describe_test_set, score_whole_fields
from mitoscope.params import Evaluate
from mitoscope.paths import DATA, PATCHES, Outputs
from tests.conftest import NETWORK

SETTINGS = Evaluate(bootstrap=100)


def test_scores_counts_and_curve_are_of_the_same_objects(detector, patches, split):
    stored = StoredFields.read(patches, split, "train")
    metrics, intervals, objects, fields, froc = score_whole_fields(detector, stored, SETTINGS)
    assert (objects.predicted == (objects.probability >= detector.threshold)).all()
    assert metrics["mitoses"] == len(stored.truths) == objects.label.sum() == fields.mitoses.sum()
    assert metrics["detections"] == objects.predicted.sum() == fields.detections.sum()
    assert metrics["threshold"] == detector.threshold and froc.recall.max() <= metrics["reachable"] <= 1
    assert set(intervals) >= {"precision", "recall", "f1", "ap"} and metrics["domains"] == intervals["domains"] == {}


def test_without_mitoses_recall_and_f1_are_undefined(detector, patches, split):
    stored = StoredFields.read(patches, split, "train")
    found = score_whole_fields(detector, replace(stored, truths=stored.truths[:0]), SETTINGS)
    assert not {"recall", "f1", "ap", "reachable"} & set(found.metrics) and found.intervals == {"domains": {}}
    assert found.metrics["fp"] == found.metrics["detections"] == found.objects.predicted.sum()


def test_the_digest_of_a_test_set_names_what_a_score_depends_on(extracted: Path) -> None:
    stored, fields = StoredFields.read(PATCHES, Outputs(NETWORK).split, "test"), list_fields(DATA)[:2]

    def digest(stored: StoredFields) -> str:
        described: str = describe_test_set(fields, stored, "")["digest"]
        return described

    before = digest(stored)
    moved, coarser = stored.truths.assign(row=stored.truths.row + 1), dict.fromkeys(stored.microns_per_pixel, 0.5)
    changes = {"truths": moved, "images": {"01": ["0"]}, "microns_per_pixel": coarser}
    assert len({digest(replace(stored, **{name: value})) for name, value in changes.items()} | {before}) == 4
    # The candidates are the detector's, and the dataset may have got more patients.
    assert digest(replace(stored, candidates=stored.candidates[:3])) == before
    assert describe_test_set(fields, stored, "another")["digest"] == before
    cv2.imwrite(str(fields[0].mask("cmask")), np.full((400, 400), 255, np.uint8))
    assert digest(stored) != before
