"""The detector's one file: read back as it was, and refused in one line where it is something else."""

import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mitoscope.detection.detector import FORMAT, Detector
from mitoscope.errors import InputError
from mitoscope.learning.checkpoints import load, save, save_network
from mitoscope.params import Extract


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "models/net/detector.pt"


@pytest.fixture(scope="module")
def content(detectors: dict[str, Detector], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What is in the file of a detector with a field head."""
    path = tmp_path_factory.mktemp("content") / "detector.pt"
    detectors["field head"].save(path)
    return load(path)


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        Detector.load(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message and "`dvc repro`" in message
    return message.removeprefix(f"{path}: ")


def test_a_detector_reads_back_as_it_was(detector, images, path):
    origin = replace(
        detector.origin,
        run_id="0123",
        dataset="real",
        dataset_digest="abc",
        synthetic=False,
        patients={"train": ["01", "NA"], "validation": ["03"]},
        images=["0a", "0b"],
    )
    saved = replace(
        detector,
        extract=Extract(patch_um=16, stain="reinhard", sigma_um=1.25),
        threshold=0.123456789,
        patch_threshold=0.75,
        origin=origin,
    )
    saved.save(path)
    loaded = Detector.load(path)
    for name in ("extract", "detection", "calibration", "threshold", "patch_threshold", "origin"):
        assert getattr(loaded, name) == getattr(saved, name), name
    assert not loaded.model.training and loaded.model.describe() == saved.model.describe()
    assert (loaded.head is None) == (saved.head is None)
    if saved.head is not None:
        for name, value in asdict(saved.head).items():
            np.testing.assert_array_equal(asdict(loaded.head)[name], value)
    found, expected = loaded.detect(images[0]), saved.detect(images[0])
    np.testing.assert_array_equal(found.points, expected.points)
    np.testing.assert_array_equal(found.probabilities, expected.probabilities)
    assert found.normalised and expected.normalised
    assert len(found.points) > 5


def test_a_missing_file_is_named(path):
    assert refusal(path).startswith("no such file; give models/<network>/detector.pt")


def test_the_weights_of_a_training_are_no_detector(detectors, path):
    save_network(path, detectors["classifier"].model, run_id="0123", threshold=0.5)
    assert refusal(path).startswith("contains weights, not a detector; give models/<network>/detector.pt")


def test_a_file_that_holds_no_network_is_rejected(path):
    save(path, {"format": FORMAT, "threshold": 0.5})
    assert refusal(path).startswith("is not a mitoscope network (it lacks 'state')")


def test_a_truncated_file_is_rejected(detectors, path):
    detectors["classifier"].save(path)
    path.write_bytes(path.read_bytes()[:-20_000])
    assert "is truncated" in refusal(path)


class Code:
    """What runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch ran",)


def test_no_code_of_a_file_is_run(content, path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path.parent.mkdir(parents=True)
    torch.save(content | {"origin": Code()}, path)
    assert "is not a checkpoint that can be read safely" in refusal(path)
    assert not Path("ran").exists()


@pytest.mark.parametrize("version", [1, FORMAT - 1, FORMAT + 1, str(FORMAT)])
def test_the_file_of_another_version_is_rejected(content, path, version):
    save(path, content | {"format": version})
    assert refusal(path).startswith(f"has format {version}, and this mitoscope reads format {FORMAT}; run")


@pytest.mark.parametrize(
    "entry", ["extract", "detection", "field_head", "spread", "threshold", "patch_threshold", "origin"]
)
def test_a_file_that_lacks_an_entry_is_rejected(content, path, entry):
    save(path, {name: value for name, value in content.items() if name != entry})
    assert refusal(path) == f"is damaged ('{entry}'); run `dvc repro` again"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"extract": {"patch_um": -3}}, "patch_um"),
        ({"detection": {"refit_fields": True, "views": 3}}, "views"),
        ({"detection": {"refit_fields": True, "wiews": 2}}, "wiews"),
        ({"threshold": None}, ""),
        ({"spread": [1.0]}, ""),
        ({"spread": [-1.0, 1.0]}, "a field head or a calibration, not both"),
        ({"origin": {"network": "net"}}, "missing 8 required"),
    ],
)
def test_a_file_with_wrong_entries_is_rejected(content, path, changes, reason):
    save(path, content | changes)
    message = refusal(path)
    assert message.startswith("is damaged (") and reason in message


@pytest.mark.parametrize(
    "wrong",
    [
        lambda head: None,
        lambda head: {},
        lambda head: {"bias": 0.0},
        lambda head: head | {"mean": torch.zeros(3)},
        lambda head: head | {"weights": torch.zeros(3)},
        lambda head: head | {"mean": [0.0, 0.0]},
        lambda head: head | {"bias": None},
        lambda head: head | {"weights": head["weights"] * torch.nan},
        lambda head: head | {"variance": -head["variance"]},
    ],
    ids=["none", "empty", "incomplete", "mean", "weights", "a list", "no bias", "not a number", "negative"],
)
def test_a_field_head_that_does_not_fit_the_network_is_rejected(content, path, wrong):
    save(path, content | {"field_head": wrong(content["field_head"])})
    message = refusal(path)
    assert message.startswith("is damaged (not a field head") and message.endswith("; run `dvc repro` again")


def test_a_field_head_needs_a_network_with_a_pooled_head(detectors, content, path):
    detectors["classifier"].save(path)
    entries = ("field_head", "detection")
    save(path, load(path) | {entry: content[entry] for entry in entries})
    assert "has no pooled head" in refusal(path)
