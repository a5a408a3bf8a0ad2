"""Fields are the images whose names say so, and whatever is wrong with a folder is refused in one line."""

from pathlib import Path

import pytest

from mitoscope.datasets.fields import (
    Description,
    list_fields,
    read_description,
    scan_fields,
    write_description,
)
from tests.datasets.conftest import refusal


def test_fields_are_the_images_that_are_no_masks(tmp_path):
    for name in ["10_02.TIF", "01_02.png", "01_01.jpg", "A7_x1.bmp", "02_01.tiff", "02_02.jpeg"]:
        (tmp_path / name).touch()
    for name in ["01_01.csv", "01_01_cmask.png", "01_01_pc.png", "01_01_brmask.png", "dataset.yaml", "readme.txt"]:
        (tmp_path / name).touch()
    (tmp_path / "._01_03.tif").touch()  # macOS leaves these in archives
    fields = list_fields(tmp_path)
    assert [field.name for field in fields] == ["01_01", "01_02", "02_01", "02_02", "10_02", "A7_x1"]
    assert fields[4].image.name == "10_02.TIF" and fields[4].patient == "10" and fields[4].field == "02"
    assert fields[0].annotation == tmp_path / "01_01.csv"
    assert fields[0].mask("cmask") == tmp_path / "01_01_cmask.png"


@pytest.mark.parametrize("name", ["photo.tif", "01.tif", "_01.tif", "01_.tif", "01_02_03.tif", "01 02.tif", "1-2.png"])
def test_a_field_without_a_patient_id_is_refused(tmp_path, name):
    (tmp_path / name).touch()
    message = refusal(list_fields, tmp_path)
    assert message.startswith(f"{tmp_path / name}: no patient id") and "PATIENT_FIELD" in message


def test_a_field_in_two_formats_is_refused(tmp_path):
    (tmp_path / "01_01.png").touch()
    (tmp_path / "01_01.tif").touch()
    message = refusal(list_fields, tmp_path)
    assert message.startswith(f"{tmp_path / '01_01.tif'}: ") and "01_01.png" in message


def test_a_folder_that_is_missing_or_empty_is_refused(tmp_path):
    assert "no such folder" in refusal(list_fields, tmp_path / "data")
    (tmp_path / "01_01.csv").touch()
    assert "contains no fields" in refusal(list_fields, tmp_path)


def test_scanning_goes_on_after_a_bad_name(tmp_path):
    for name in ["photo.tif", "01_01.tif", "scan.png"]:
        (tmp_path / name).touch()
    fields, problems = scan_fields(tmp_path)
    assert [field.name for field in fields] == ["01_01"]
    assert [Path(problem.split(": ")[0]).name for problem in problems] == ["photo.tif", "scan.png"]


def test_a_description_reads_back_and_has_defaults(tmp_path):
    assert read_description(tmp_path) == Description(microns_per_pixel=0.25, annotation_order="row,col")
    written = Description(name="mine: a # test", microns_per_pixel=0.5, annotation_order="x,y", synthetic=True)
    write_description(tmp_path, written)
    assert read_description(tmp_path) == written
    (tmp_path / "dataset.yaml").write_text("")
    assert read_description(tmp_path) == Description()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"microns_per_pixel: 0", "microns_per_pixel"),
        (b"microns_per_pixel: tiny", "microns_per_pixel"),
        (b"annotation_order: y,x", "annotation_order"),
        (b"micron_per_pixel: 0.25", "micron_per_pixel"),
        (b"- a list", "must be a block of entries"),
        (b"name: [", "not valid YAML"),
        (b"\xff\xfe\x00", "not valid YAML"),
    ],
)
def test_a_wrong_description_is_refused(tmp_path, content, complaint):
    path = tmp_path / "dataset.yaml"
    path.write_bytes(content)
    message = refusal(read_description, tmp_path)
    assert message.startswith(f"{path}: ") and complaint in message
