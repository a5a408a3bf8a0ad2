"""An exported detector finds what the detector finds, and its JSON holds all that another program needs."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mitoscope.commands.export import export
from mitoscope.detection.detector import Detector
from mitoscope.detection.stored import StoredFields
from mitoscope.errors import InputError
from mitoscope.exporting.detector import ExportedDetector
from mitoscope.exporting.onnx import open_network
from mitoscope.files import hash_file
from mitoscope.params import Extract
from mitoscope.paths import PATCHES, split_path
from tests.conftest import small_detector, tiny_params
from tests.exporting.conftest import with_head

pytestmark = pytest.mark.slow
MODEL, OUT = Path("detector.pt"), Path("exported")


@pytest.fixture
def detector(extracted) -> Detector:
    """The small project, and a detector with a field head in detector.pt, which finds a few mitoses."""
    detector = with_head("pooled", views=2)
    stored = StoredFields.read(PATCHES, split_path(None), "test")
    detector = replace(detector, threshold=float(np.quantile(detector.score(stored.windows, stored.field), 0.3)))
    detector.save(MODEL)
    return detector


def test_an_exported_detector_finds_the_same_and_says_what_int8_costs(detector, capsys):
    export(str(MODEL), out=OUT, replace=False)
    content = json.loads((OUT / "detector.json").read_text())
    assert {path.name for path in OUT.iterdir()} == {"network.onnx", "network-int8.onnx", "detector.json"}
    assert content["files"] == {name: hash_file(OUT / name) for name in ("network.onnx", "network-int8.onnx")}

    test, by = content["test"], content["test"]["by"]
    stored = StoredFields.read(PATCHES, split_path(None), "test")
    assert (test["mitoses"], test["candidates"]) == (len(stored.truths), len(stored.candidates))
    assert by["network.onnx"]["detections_changed"] == by["torch"]["detections_changed"] == 0
    assert by["network.onnx"]["largest_difference"] <= 1e-4
    assert by["network-int8.onnx"]["largest_difference"] > 0
    assert by["torch"]["fields"]["recall"] > 0
    lost = by["torch"]["fields"]["f1"] - by["network-int8.onnx"]["fields"]["f1"]
    assert by["network-int8.onnx"]["f1_lost"] == pytest.approx(lost)
    assert content["network"] == ("network-int8.onnx" if lost <= 0.01 else "network.onnx")
    said = capsys.readouterr().out
    assert "synthetic data" in said and content["network"] in said.splitlines()[-1]

    run = open_network(OUT / "network.onnx")
    found = ExportedDetector.of(detector, run).score(stored.windows, stored.field)
    np.testing.assert_allclose(found, detector.score(stored.windows, stored.field), rtol=0, atol=1e-4)

    # The JSON holds the rest of the detector.
    assert content["extract"] == detector.extract.model_dump(mode="json")
    assert content["detection"] == detector.detection.model_dump(mode="json")
    assert (content["threshold"], content["patch_size"]) == (detector.threshold, 32)
    np.testing.assert_array_equal(np.float32(content["field_head"]["weights"]), detector.head.weights)
    assert content["field_head"]["bias"] == detector.head.bias
    assert content["calibration"] == {"middle": -1.0, "upper": 1.0} and content["detector_sha256"] == hash_file(MODEL)
    assert content["card"] == ""  # it is not registered


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"extract": Extract(**tiny_params()["extract"] | {"sigma_um": 1.5})}, "patches: was extracted with other set"),
        ({"origin": "known"}, r"has learnt from the test patients .*\d\d, who are to tell what int8 costs"),
    ],
)
def test_a_detector_of_another_project_or_split_is_rejected(extracted, changes, message):
    if "origin" in changes:
        stored = StoredFields.read(PATCHES, split_path(None), "test")
        images = [image for fields in stored.images.values() for image in fields]
        changes = {"origin": replace(small_detector().origin, images=images)}
    small_detector(**changes).save(MODEL)
    with pytest.raises(InputError, match=message):
        export(str(MODEL), out=OUT, replace=False)
    assert not OUT.exists()


def test_a_filled_folder_is_replaced_only_when_asked(detector):
    OUT.mkdir()
    (OUT / "mine.txt").write_text("precious")
    with pytest.raises(InputError, match="exported: is not empty"):
        export(str(MODEL), out=OUT, replace=False)
    assert [path.name for path in OUT.iterdir()] == ["mine.txt"]
