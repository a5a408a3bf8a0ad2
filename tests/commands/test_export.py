"""An exported detector finds what the detector finds, and its JSON holds all that another program needs."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mitoscope.commands.export import export
from mitoscope.detection.detector import Detector
from mitoscope.detection.stored import StoredFields
from mitoscope.errors import InputError
from mitoscope.exporting.onnx import open_network, torch_network
from mitoscope.exporting.scoring import score
from mitoscope.files import hash_file
from mitoscope.params import Extract
from mitoscope.paths import PATCHES, split_path
from tests.conftest import small_detector, tiny_params
from tests.exporting.conftest import with_head

pytestmark = pytest.mark.slow
MODEL, OUT = Path("detector.pt"), Path("exported")


@pytest.fixture
def detector(extracted) -> Detector:
    """The small project, and a detector with a field head in detector.pt, which finds most candidates."""
    detector = with_head("pooled", views=2)
    fields = read("validation")
    detector = replace(detector, threshold=float(np.quantile(detector.score(fields.windows, fields.field), 0.3)))
    detector.save(MODEL)
    return detector


def read(subset: str) -> StoredFields:
    return StoredFields.read(PATCHES, split_path(None), subset)


def exported() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((OUT / "detector.json").read_text())
    return content


def test_an_exported_detector_finds_the_same_and_says_what_int8_costs(detector, capsys):
    export(str(MODEL), out=OUT, replace=False)
    content, networks = exported(), exported()["networks"]
    assert {path.name for path in OUT.iterdir()} == {"network.onnx", "network-int8.onnx", "detector.json"}
    for name, row in networks.items():
        assert (row["sha256"], row["bytes"]) == (hash_file(OUT / name), (OUT / name).stat().st_size)

    test, fields = content["test"], read("test")
    assert (test["mitoses"], test["candidates"]) == (len(fields.truths), len(fields.candidates))
    assert test["detections_changed"] == 0 and test["largest_difference"] <= 1e-4
    by_torch, by_onnx = torch_network(detector.model, features=True), open_network(OUT / "network.onnx")
    expected, found = (score(detector, run, fields.windows, fields.field) for run in (by_torch, by_onnx))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)

    exact, small = networks["network.onnx"], networks["network-int8.onnx"]
    assert exact["candidates"] == small["candidates"] == len(read("validation").candidates)
    assert exact["fields"]["recall"] > 0 and small["largest_difference"] > 0
    assert small["f1_lost"] == pytest.approx(exact["fields"]["f1"] - small["fields"]["f1"])
    said = capsys.readouterr().out
    assert "synthetic data" in said and content["network"] in said.splitlines()[-1]

    # The JSON holds the rest of the detector.
    assert content["extract"] == detector.extract.model_dump(mode="json")
    assert content["detection"] == detector.detection.model_dump(mode="json")
    assert (content["threshold"], content["patch_size"]) == (detector.threshold, 32)
    np.testing.assert_array_equal(np.float32(content["field_head"]["weights"]), detector.head.weights)
    assert content["field_head"]["bias"] == detector.head.bias
    assert content["calibration"] is None and content["detector_sha256"] == hash_file(MODEL)
    assert content["card"] == ""  # it is not registered


def test_float32_is_the_default_where_int8_is_not_shown_to_be_as_good(extracted, capsys):
    """With a threshold above all scores nothing is found, which shows nothing. An earlier export is replaced."""
    small_detector(threshold=1.0).save(MODEL)
    OUT.mkdir()
    for name in ("detector.json", "old.onnx"):
        (OUT / name).touch()
    export(str(MODEL), out=OUT, replace=True)
    content = exported()
    assert content["networks"]["network.onnx"]["fields"]["f1"] == 0
    assert content["network"] == "network.onnx" and content["field_head"] is None
    assert content["calibration"] == {"middle": -1.0, "upper": 1.0}
    assert "no mitosis is found, so network.onnx is the default" in capsys.readouterr().out
    assert not (OUT / "old.onnx").exists()


def test_a_detector_of_other_patches_is_rejected(extracted):
    small_detector(extract=Extract(**tiny_params()["extract"] | {"sigma_um": 1.5})).save(MODEL)
    with pytest.raises(InputError, match=r"patches: was extracted with other settings than those of detector\.pt"):
        export(str(MODEL), out=OUT, replace=False)
    assert not OUT.exists()


def test_a_filled_folder_is_left_alone(detector):
    OUT.mkdir()
    (OUT / "mine.txt").write_text("precious")
    with pytest.raises(
        InputError, match=r"exported: has files, but no detector\.json of an earlier export; choose anoth"
    ):
        export(str(MODEL), out=OUT, replace=True)
    assert [path.name for path in OUT.iterdir()] == ["mine.txt"]
