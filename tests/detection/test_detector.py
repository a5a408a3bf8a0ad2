"""Detection in one field. That it finds what evaluation found is in tests/commands/test_detect.py."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from mitoscope.detection import detector as field_detection
from mitoscope.detection.detector import detect_field, load_detector
from mitoscope.errors import InputError
from mitoscope.learning.checkpoints import load, save
from mitoscope.learning.networks import start_state
from tests.conftest import NETWORK

MODEL = Path("models", NETWORK, "best.pt")
MICRONS = 0.25
# Of whole fields, as AlexNet's 2304 pooled features need one.
HEAD = {"mean": torch.zeros(2304), "variance": torch.ones(2304), "weights": torch.zeros(2304), "bias": 0.0}


@pytest.fixture
def image(trained) -> np.ndarray:
    return cv2.cvtColor(cv2.imread("data/01_01.jpg"), cv2.COLOR_BGR2RGB)


def test_windows_are_scored_a_part_at_a_time_with_the_same_result(image, here, monkeypatch):
    network, kept = load_detector(str(MODEL))
    kept["field_threshold"] = 0.0
    places, probabilities = detect_field(image, None, network, kept, here, MICRONS)
    assert (np.diff(probabilities) <= 0).all()
    monkeypatch.setattr(field_detection, "_AT_ONCE", 7)  # of 15 candidates
    again, again_probabilities = detect_field(image, None, network, kept, here, MICRONS)
    np.testing.assert_array_equal(again, places)
    np.testing.assert_allclose(again_probabilities, probabilities, atol=1e-6)


def test_nothing_is_found_outside_the_mask(image, here):
    network, kept = load_detector(str(MODEL))
    mask = np.zeros(image.shape[:2], dtype=np.bool_)
    mask[:, 200:] = True
    inside, _ = detect_field(image, mask, network, kept | {"field_threshold": 0.0}, here, MICRONS)
    assert len(inside) and (inside[:, 1] >= 199).all()
    nothing, _ = detect_field(image, np.zeros_like(mask), network, kept, here, MICRONS)
    assert nothing.shape == (0, 2)


def test_detections_keep_their_distance(image, here):
    network, kept = load_detector(str(MODEL))
    places, _ = detect_field(image, None, network, kept | {"field_threshold": 0.0}, here, MICRONS)
    assert 5 < len(places) < 15  # candidates, two of which lie 4.3 um apart
    distances = np.linalg.norm(places[:, None] - places[None], axis=2) * MICRONS
    assert distances[~np.eye(len(places), dtype=bool)].min() >= 7.5


def test_detections_reach_the_threshold_of_the_model(image, here):
    network, kept = load_detector(str(MODEL))
    every = detect_field(image, None, network, kept | {"field_threshold": 0.0}, here, MICRONS)[1]
    threshold = float(np.median(every))
    some = detect_field(image, None, network, kept | {"field_threshold": threshold}, here, MICRONS)[1]
    assert 0 < len(some) < len(every) and (some >= threshold).all()


def test_too_little_tissue_to_normalise_is_said(trained, here, capsys):
    network, kept = load_detector(str(MODEL))
    settings = {**kept, "fields": {**kept["fields"], "stain": "macenko"}}
    white = np.full((120, 120, 3), 255, dtype=np.uint8)
    assert len(detect_field(white, None, network, settings, here, MICRONS)[0]) == 0
    assert "too little tissue to normalise the stain" in " ".join(capsys.readouterr().out.split())


def test_a_file_without_the_settings_for_whole_fields_is_refused(trained):
    content = load(MODEL)
    del content["fields"]["typical_spread"]
    save(MODEL, content)
    with pytest.raises(InputError, match=r"best\.pt: was saved without its settings for whole fields; train it again"):
        load_detector(str(MODEL))


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        {"bias": 0.0},
        HEAD | {"mean": torch.zeros(3)},
        HEAD | {"weights": torch.zeros(3)},
        HEAD | {"mean": [0.0, 0.0]},
        HEAD | {"bias": None},
        HEAD | {"weights": torch.full((2304,), torch.nan)},
        HEAD | {"variance": torch.full((2304,), -1.0)},
    ],
    ids=["none", "incomplete", "mean", "weights", "a list", "no bias", "not a number", "negative"],
)
def test_a_head_of_whole_fields_that_does_not_fit_is_refused(trained, wrong):
    description = {"arch": "alexnet", "head": "pooled", "patch_size": 32, "input_size": 64}
    content = load(MODEL) | description | {"state": start_state("alexnet", None, seed=0, head="pooled")[0]}
    content["fields"]["refit_fields"] = True
    save(MODEL, content | {"field_head": HEAD})
    assert load_detector(str(MODEL))[1]["field_head"].bias == 0
    save(MODEL, content | {"field_head": wrong})
    with pytest.raises(
        InputError, match=r"best\.pt: its head of whole fields does not fit the network; train it again"
    ):
        load_detector(str(MODEL))
