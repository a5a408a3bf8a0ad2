"""Every row gets the detector's own answer."""

import numpy as np
import pandas as pd
import pytest

from mitoscope.detection.detector import Detector
from mitoscope.learning.batches import Windows
from mitoscope.serving.answers import answer
from mitoscope.serving.rows import RowRejected, encode_patch
from tests.serving.conftest import NOISE, claiming, expected_answer, text


def test_a_field_gets_what_detect_says(detector, image):
    table = pd.DataFrame({"field": [text(image, "PNG")] * 2, "microns_per_pixel": [None, 0.3]})
    by_default, by_hand = expected_answer(detector, image), expected_answer(detector, image, 0.3)
    assert len(by_default["mitoses"]) > 1 and by_default != by_hand
    assert answer(detector, table) == [by_default, by_hand]


def test_a_field_without_mitoses_is_answered_too(detector):
    table = pd.DataFrame({"field": [text(np.full((120, 120, 3), 255, np.uint8), "PNG")]})
    assert answer(detector, table) == [{"mitoses": [], "threshold": 0.5}]


def test_patches_get_the_networks_own_score(detector, image):
    patches = np.stack([NOISE, image[:32, :32], image[100:132, 40:72], NOISE])
    expected = detector.classify(Windows.of(patches)).tolist()
    assert len(set(expected)) == 3
    answers = answer(detector, pd.DataFrame({"patch": [encode_patch(patch) for patch in patches]}))
    assert answers == [{"probability": value, "mitosis": value >= 0.502} for value in expected]
    assert len({row["mitosis"] for row in answers}) == 2, "choose a threshold between them"


def test_the_answers_keep_the_order_of_a_mixed_table(detector, image):
    few = image[:200, :200]
    records = [
        {"patch": encode_patch(NOISE)},
        {"field": text(few, "PNG")},
        {"patch": encode_patch(image[:32, :32])},
        {"field": text(image, "TIFF")},
    ]
    alone = [answer(detector, pd.DataFrame([record]))[0] for record in records]
    together = answer(detector, pd.DataFrame(records))
    assert together[1::2] == alone[1::2] == [expected_answer(detector, few), expected_answer(detector, image)]
    for one, other in zip(together[::2], alone[::2], strict=True):
        assert one == {"probability": pytest.approx(other["probability"], abs=1e-5), "mitosis": other["mitosis"]}


@pytest.mark.parametrize("microns", [0, -1, 0.05, 2.0, np.inf])
def test_pixels_that_the_detector_does_not_know_are_rejected(detector, image, microns):
    table = pd.DataFrame({"field": [text(image, "PNG")] * 2, "microns_per_pixel": [0.25, microns]})
    with pytest.raises(
        RowRejected, match=r"^row 1 \(the first is 0\): .* um per pixel: the detector was trained at 0.25"
    ):
        answer(detector, table)


def test_a_field_that_the_detector_would_enlarge_beyond_the_limit_is_rejected(detector):
    table = pd.DataFrame({"field": [claiming(9000, 9000)], "microns_per_pixel": [1.0]})
    with pytest.raises(RowRejected, match="9000 x 9000 px, which the detector enlarges 2 times, more than"):
        answer(detector, table)


def test_all_rows_are_checked_before_the_first_is_answered(detector, image, monkeypatch):
    def fail(*_: object) -> None:
        raise AssertionError("was asked already")

    monkeypatch.setattr(Detector, "detect", fail)
    monkeypatch.setattr(Detector, "classify", fail)
    table = pd.DataFrame({"field": [text(image, "PNG"), claiming(30000, 30000)]})
    with pytest.raises(RowRejected, match=r"row 1 "):
        answer(detector, table)
