"""`mitoscope import ...`: every option arrives, and what was taken and left out is printed."""

import json
import sqlite3
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mitoscope.cli import app
from mitoscope.datasets.annotations import read_centres, read_lookalikes
from mitoscope.datasets.fields import list_fields, read_description
from mitoscope.errors import InputError
from tests.datasets.conftest import encode
from tests.datasets.importers.conftest import COLUMNS, ROWS, contents, tissue


@pytest.fixture
def images(tmp_path) -> Path:
    folder = tmp_path / "[red]images"  # rich would take this for a colour
    folder.mkdir()
    for seed, name in enumerate(["01_01", "02_01"]):
        (folder / f"{name}.png").write_bytes(encode(".png", tissue(seed)))
    return folder


def run(*arguments: object) -> list[str]:
    """Run the command line; the lines that it prints."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception:
        raise result.exception
    return result.stdout.splitlines()


def geojson(*features: tuple[str, float, float]) -> str:
    return json.dumps(
        {
            "type": "FeatureCollection",
            "features": [
                {
                    "type": "Feature",
                    "geometry": {"type": "Point", "coordinates": [x, y]},
                    "properties": {"objectType": "annotation", "classification": {"name": name}},
                }
                for name, x, y in features
            ],
        }
    )


def only_field(data: Path) -> tuple[list[list[float]], list[list[float]]]:
    (field,) = list_fields(data)
    return read_centres(field, (ROWS, COLUMNS)).tolist(), read_lookalikes(field, (ROWS, COLUMNS)).tolist()


def test_qupath(images, tmp_path):
    annotations = tmp_path / "01_01.geojson"
    annotations.write_text(geojson(("Mitosis", 20.5, 10.5), ("Look-alike", 30.5, 12.5), ("Tumor", 5, 5)))
    lines = run("import", "qupath", images, annotations, "--out", tmp_path / "data", "--microns-per-pixel", "0.5")
    counts = f"1 fields of 1 patients with 1 mitoses and 1 look-alikes in {tmp_path / 'data'}"
    assert lines[0] == f"{counts}; 1 other files left out: 02_01.png"
    assert lines[1].startswith("note: ") and "Tumor" in lines[1]
    assert lines[-1] == f"next: mitoscope validate {tmp_path / 'data'}; for training it must be data/"
    assert only_field(tmp_path / "data") == ([[10, 20]], [[12, 30]])
    description = read_description(tmp_path / "data")
    assert (description.name, description.microns_per_pixel) == ("[red]images", 0.5)


def test_data_of_the_project_goes_under_dvc(images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "01_01.csv").write_text("row,col\n10,20\n")
    lines = run("import", "csv", images, "01_01.csv")
    assert lines[-1] == "next: mitoscope validate; rm -f data.dvc; dvc add data; dvc repro"


def test_classes_by_name(images, tmp_path):
    annotations = tmp_path / "01_01.geojson"
    annotations.write_text(geojson(("A", 20.5, 10.5), ("B", 30.5, 12.5), ("C", 5.5, 4.5), ("Mitosis", 1, 1)))
    names = ("--mitosis", "A", "--mitosis", "B", "--lookalike", "C")
    run("import", "qupath", images, annotations, "--out", tmp_path / "data", *names)
    assert only_field(tmp_path / "data") == ([[10, 20], [12, 30]], [[4, 5]])


def test_imagescope(images, tmp_path):
    annotations = tmp_path / "01_01.xml"
    vertices = "".join(f'<Vertex X="{x}" Y="{y}" Z="0"/>' for x, y in ((18, 8), (22, 8), (22, 12), (18, 12)))
    region = f'<Region Id="1"><Vertices>{vertices}</Vertices></Region>'
    layer = f'<Annotation Id="1" Name="Mitosis"><Regions>{region}</Regions></Annotation>'
    annotations.write_text(f"<Annotations>{layer}</Annotations>")
    run("import", "imagescope", images, annotations, "--out", tmp_path / "data")
    ((row, col),), lookalikes = only_field(tmp_path / "data")
    assert (row, col) == pytest.approx((10, 20), abs=0.6) and lookalikes == []


def test_csv(images, tmp_path):
    (tmp_path / "01_01.csv").write_text("20;10\n")
    run("import", "csv", images, tmp_path / "01_01.csv", "--order", "x,y", "--out", tmp_path / "data")
    assert only_field(tmp_path / "data") == ([[10, 20]], [])


@pytest.mark.parametrize("command", ["csv", "midog", "tupac"])
def test_annotations_inside_the_output_folder_are_not_deleted(images, tmp_path, command):
    annotations = tmp_path / "data" / "labels" / "01_01.csv"
    annotations.parent.mkdir(parents=True)
    annotations.write_text("row,col\n1,2\n")
    given = ("--labels", annotations.parent) if command == "tupac" else (annotations,)
    with pytest.raises(InputError, match="lies in the output folder"):
        run("import", command, images, *given, "--out", tmp_path / "data", "--replace")
    assert annotations.exists()


def test_a_database_that_is_none_is_rejected(images, tmp_path):
    sqlite3.connect(tmp_path / "empty.sqlite").close()
    with pytest.raises(InputError, match=r"empty\.sqlite: "):
        run("import", "sliderunner", images, tmp_path / "empty.sqlite", "--out", tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_corrections_are_added_to_the_dataset(images, tmp_path):
    for name in ("01_01", "02_01"):
        (tmp_path / f"{name}.csv").write_text("row,col\n10,20\n")
    data = tmp_path / "data"
    run("import", "csv", images, tmp_path / "01_01.csv", tmp_path / "02_01.csv", "--out", data)
    (tmp_path / "01_01.geojson").write_text(geojson(("Mitosis", 5.5, 3.5)))
    run("import", "qupath", data, tmp_path / "01_01.geojson", "--out", data, "--add")
    centres = [read_centres(field, (ROWS, COLUMNS)).tolist() for field in list_fields(data)]
    assert centres == [[[3, 5]], [[10, 20]]]


def test_midog_with_a_table_and_with_a_patient_per_image(images, tmp_path):
    (images / "01_01.png").rename(images / "case1roi1.png")
    table = tmp_path / "mine.csv"
    table.write_text("file,patient,field\ncase1roi1.png,case1,roi1\n")
    content = {
        "images": [{"id": 1, "file_name": "case1roi1.png", "width": COLUMNS, "height": ROWS}],
        "categories": [{"id": 1, "name": "mitotic figure"}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": [-5, -15, 45, 35]}],
    }
    (tmp_path / "midog.json").write_text(json.dumps(content))
    for name, options in (("case1_roi1", ("--fields", table)), ("case1roi1_01", ("--patient-per-image",))):
        lines = run("import", "midog", images, tmp_path / "midog.json", "--out", tmp_path / name, *options)
        assert [field.name for field in list_fields(tmp_path / name)] == [name]
        assert "note: categories taken as mitoses: mitotic figure (1)" in lines
        assert only_field(tmp_path / name) == ([[10, 20]], [])


def test_tupac_with_labels(images, tmp_path):
    (images / "01").mkdir()
    (images / "01_01.png").rename(images / "01" / "05.png")
    (images / "02_01.png").unlink()
    (tmp_path / "labels" / "01").mkdir(parents=True)
    (tmp_path / "labels" / "01" / "05.csv").write_text("10,20\n")
    run("import", "tupac", images, "--labels", tmp_path / "labels", "--out", tmp_path / "data")
    assert only_field(tmp_path / "data") == ([[10, 20]], [])


def test_files_left_out_are_named_up_to_five(images, tmp_path):
    for number in range(7):
        (images / f"note{number}.txt").touch()
    (first, *_) = run("import", "janowczyk", images, "--out", tmp_path / "data")
    assert first.endswith("; 7 other files left out: note0.txt, note1.txt, note2.txt, note3.txt, note4.txt and 2 more")


@pytest.mark.parametrize("size", ["250", "0.025", "0,25"])
def test_a_pixel_size_that_no_microscope_has_is_rejected(images, tmp_path, size):
    arguments = ["import", "janowczyk", str(images), "--out", str(tmp_path / "data"), "--microns-per-pixel", size]
    assert CliRunner().invoke(app, arguments).exit_code == 2 and not (tmp_path / "data").exists()


def test_fields_writes_a_table(images):
    lines = run("fields", images)
    assert lines[0] == f"2 images in {images / 'fields.csv'}"
    assert sorted(contents(images)) == ["01_01.png", "02_01.png", "fields.csv"]
