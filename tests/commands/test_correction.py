"""The loop of correction: detect, correct in QuPath, import, and the dataset is ready to train again."""

import json
import uuid
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from mitoscope.cli import app
from mitoscope.datasets.annotations import read_centres, read_lookalikes
from mitoscope.datasets.fields import list_fields
from mitoscope.stages.extract import extract
from mitoscope.stages.split import split
from tests.conftest import small_detector

SHAPE = (400, 400)


def mitoscope(*arguments: str) -> str:
    """Run a command that must succeed; returns what it says, in one line."""
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    return " ".join(done.output.split())


def annotations(name: str) -> tuple[np.ndarray, np.ndarray]:
    """The mitoses and look-alikes of a field of data/."""
    field = next(field for field in list_fields(Path("data")) if field.name == name)
    return read_centres(field, SHAPE), read_lookalikes(field, SHAPE)


def drawn(geometry: dict, classification: dict | None, **properties) -> dict:
    """An object as QuPath 0.6 writes it."""
    of_class = {} if classification is None else {"classification": classification}
    plane = {"plane": {"c": -1, "z": 0, "t": 0}}
    return {
        "type": "Feature",
        "id": str(uuid.uuid4()),
        "geometry": geometry | plane,
        "properties": {"objectType": "annotation", **of_class, **properties},
    }


def square(x: float, y: float) -> dict:
    ring = [[x - 3, y - 3], [x + 3, y - 3], [x + 3, y + 3], [x - 3, y + 3], [x - 3, y - 3]]
    return {"type": "Polygon", "coordinates": [ring]}


@pytest.fixture
def detected(project: Path) -> Path:
    """The working directory: the small project, and detections in 01_01 of a detector of chance."""
    small_detector().save(Path("detector.pt"))
    mitoscope("detect", "data/01_01.jpg", "--model", "detector.pt", "--out", "detected")
    return project


def test_a_corrected_field_replaces_its_annotations(detected):
    rows = pd.read_csv("detected/01_01_mitoses.csv")[["row", "col"]].to_numpy()
    assert len(rows) > 3
    collection = json.loads(Path("detected/01_01_mitoses.geojson").read_text())
    kept, reclassified, *_ = collection["features"]
    # The pathologist keeps one, calls one a look-alike, deletes the others, and adds two and a region.
    reclassified["properties"]["classification"] = {"names": ["Non-mitotic figure"], "color": [0, 0, 255]}
    kept["properties"]["isLocked"] = True
    red = {"name": "Mitosis", "color": [255, 0, 0]}
    cell = drawn(square(200, 100), red, objectType="cell", measurements={"Area": 36.0})
    collection["features"] = [
        kept,
        reclassified,
        drawn(square(30.5, 60.5), red),
        cell | {"nucleusGeometry": square(210.5, 110.5)},
        drawn(square(200, 200), {"name": "Tumor", "color": [0, 0, 0]}),
        drawn({"type": "Point", "coordinates": [5, 5]}, None),
    ]
    Path("corrected").mkdir()
    Path("corrected/01_01_mitoses.geojson").write_text(json.dumps(collection))
    others = {path.name: path.read_bytes() for path in Path("data").iterdir() if not path.name.startswith("01_01")}

    said = mitoscope("import", "qupath", "data", "corrected", "--out", "data", "--add")

    assert "2 annotations of other classes left out: Tumor (1), Unclassified (1)" in said
    mitoses, lookalikes = annotations("01_01")
    np.testing.assert_allclose(mitoses, [rows[0], [60, 30], [110, 210]], atol=0.01)
    np.testing.assert_allclose(lookalikes, [rows[1]], atol=0.01)
    assert {name: Path("data", name).read_bytes() for name in others} == others
    mitoscope("validate")
    split()
    extract()
    counted = json.loads(Path("patches/summary.json").read_text())["patients"]["01"]["mitoses"]
    assert counted == 3 + len(annotations("01_02")[0])


@pytest.mark.parametrize(("command", "file"), [("qupath", "01_01_mitoses.geojson"), ("csv", "01_01_mitoses.csv")])
def test_detections_that_nobody_has_changed_come_back_as_they_are(detected, command, file):
    for line in ("replaced in data: 01_01: ", "unchanged in data: the annotations of 1 fields"):
        said = mitoscope("import", command, "data", f"detected/{file}", "--out", "data", "--add")
        assert "1 files are as `mitoscope detect` wrote them: a detector's mitoses" in said and line in said
        expected = pd.read_csv("detected/01_01_mitoses.csv")[["row", "col"]].to_numpy()
        np.testing.assert_allclose(annotations("01_01")[0], expected, atol=0.01)


def test_the_table_beside_a_corrected_geojson_is_rejected(detected):
    Path("detected/01_01_mitoses.geojson").write_text("[]")
    before = Path("data/01_01.csv").read_bytes()
    done = CliRunner().invoke(app, ["import", "csv", "data", "detected", "--out", "data", "--add"])
    said = "01_01_mitoses.geojson beside it has been corrected since `mitoscope detect` wrote both; import that with "
    assert said + "`mitoscope import qupath`" in str(done.exception)
    assert Path("data/01_01.csv").read_bytes() == before
    assert "0 mitoses" in mitoscope("import", "qupath", "data", "detected", "--out", "data", "--add")


def test_a_corrected_table_is_taken(detected):
    table = Path("detected/01_01_mitoses.csv")
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:3]))
    said = mitoscope("import", "csv", "data", "detected", "--out", "data", "--add")
    assert "-> 2 mitoses" in said and "as `mitoscope detect` wrote" not in said


def test_an_unseen_field_joins_the_dataset(detected, tmp_path):
    Path("new").mkdir()
    cv2.imwrite("new/09_01.png", cv2.imread("data/01_02.jpg")[:, ::-1])  # the same image would be another patient's
    (Path("new") / "09_01.geojson").write_text(json.dumps([drawn(square(30.5, 60.5), {"name": "Mitosis"})]))
    before = len(list_fields(Path("data")))
    mitoscope("import", "qupath", "new", "new/09_01.geojson", "--out", "data", "--add")
    assert len(list_fields(Path("data"))) == before + 1
    assert annotations("09_01")[0].tolist() == [[60, 30]]


def test_a_damaged_file_changes_nothing(detected):
    before = {path: path.read_bytes() for path in Path("data").iterdir()}
    Path("detected/01_01_mitoses.geojson").write_text("{")
    done = CliRunner().invoke(app, ["import", "qupath", "data", "detected", "--out", "data", "--add"])
    assert done.exit_code != 0 and "is not a JSON file" in str(done.exception)
    assert {path: path.read_bytes() for path in Path("data").iterdir()} == before
