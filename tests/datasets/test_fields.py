"""Fields are the images whose names say so, and whatever is wrong with a folder is refused in one line."""

from pathlib import Path

import pytest

from mitoscope.datasets.fields import (
    Description,
    list_fields,
    pixel_size,
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
def test_a_field_without_a_patient_id_is_rejected(tmp_path, name):
    (tmp_path / name).touch()
    message = refusal(list_fields, tmp_path)
    assert message.startswith(f"{tmp_path / name}: no patient id") and "PATIENT_FIELD" in message


def test_fields_csv_maps_images_with_names_of_any_kind(tmp_path):
    (tmp_path / "05").mkdir()
    for name in ["TCGA-A1-A0SB_01.tif", "Präparat 3.png", "05/07.png", "05/unlisted.png", "01_02.png"]:
        (tmp_path / name).touch()
    (tmp_path / "fields.csv").write_text(
        "file,patient,field,microns_per_pixel,domain\n"
        "Präparat 3.png,Ulm-3,,0.5,\n"
        "05/07.png,05,07,,Aperio\n"
        "01_02.png,,,0.2,Leica\n"
    )
    fields = {field.name: field for field in list_fields(tmp_path)}
    assert list(fields) == ["01_02", "05_07", "TCGA-A1-A0SB_01", "Ulm-3_Praparat-3"]
    assert [fields[name].microns_per_pixel for name in fields] == [0.2, None, None, 0.5]
    assert [fields[name].domain for name in fields] == ["Leica", "Aperio", "", ""]
    assert fields["05_07"].annotation == tmp_path / "05/07.csv"
    assert fields["05_07"].lookalikes == tmp_path / "05/07_nonmitotic.csv"
    assert fields["Ulm-3_Praparat-3"].mask("cmask") == tmp_path / "Präparat 3_cmask.png"


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ("file,patient\nother.png,01\n", "other.png: no such image, but fields.csv names it"),
        ("file,patient\nscan 1.png,01\nscan 2.png,01\n", "scan 2.png: has the same field name as scan 1.png"),
        ("file,field\nscan 1.png,01\n", "scan 1.png: no patient id in the name"),
        ("file,patient\nscan 1.png,\n", "scan 1.png: no patient id in the name"),
        ("file\n", "scan 1.png: no patient id in the name"),
        ("name\n", "fields.csv: has no column `file`"),
    ],
)
def test_a_table_that_does_not_fit_the_folder_is_rejected(tmp_path, table, complaint):
    (tmp_path / "scan 1.png").touch()
    if "scan 2" in table:
        (tmp_path / "scan 2.png").touch()
        table = table.replace("png,01", "png,01,1").replace("file,patient", "file,patient,field")
    (tmp_path / "fields.csv").write_text(table)
    _, problems, _ = scan_fields(tmp_path)
    assert any(complaint in problem for problem in problems)


def test_bad_rows_are_the_only_problem_of_their_images(tmp_path):
    (tmp_path / "05").mkdir()
    for name in ["01_01.png", "scan 1.png", "scan 2.png", "05/07.png", "05/08.png"]:
        (tmp_path / name).touch()
    (tmp_path / "fields.csv").write_text("file,patient\nscan 1.png,P1\nscan 2.png,P 2\n05/07.png,P_3\nlost.png,P_4\n")
    fields, problems, unlisted = scan_fields(tmp_path)
    assert [field.name for field in fields] == ["01_01", "P1_scan-1"] and unlisted == [tmp_path / "05/08.png"]
    (problem,) = problems
    assert "row 3: patient 'P 2' may have " in problem and "; row 4: " in problem and "; row 5: " in problem


def test_without_its_header_a_table_is_the_only_problem(tmp_path):
    (tmp_path / "scan 1.png").touch()
    (tmp_path / "fields.csv").write_text("image,patient\nscan 1.png,P1\n")
    assert scan_fields(tmp_path) == ([], [refusal(list_fields, tmp_path)], [])


@pytest.mark.parametrize("names", [("01_01.png", "1_02.png"), ("p1_01.png", "P1_02.png")])
def test_patients_that_a_spreadsheet_may_have_renamed_are_rejected(tmp_path, names):
    for name in names:
        (tmp_path / name).touch()
    assert "look like one patient" in refusal(list_fields, tmp_path)


@pytest.mark.parametrize("names", [("a.bmp", "a.png"), ("01.png", "01_nonmitotic.png")])
def test_two_images_share_no_annotation_file(tmp_path, names):
    for name in names:
        (tmp_path / name).touch()
    (tmp_path / "fields.csv").write_text(f"file,patient,field\n{names[0]},P1,1\n{names[1]},P2,1\n")
    message = refusal(list_fields, tmp_path)
    assert message.startswith(f"{tmp_path / names[1]}: would share an annotation file with {names[0]}")


def test_a_name_of_macos_is_the_one_that_is_typed(tmp_path):
    (tmp_path / "Mu\u0308ller 1.png").touch()  # u and two dots
    (tmp_path / "fields.csv").write_text("file,patient\nM\u00fcller 1.png,P1\n")
    assert [field.patient for field in list_fields(tmp_path)] == ["P1"]


def test_images_in_folders_need_a_table(tmp_path):
    (tmp_path / "05").mkdir()
    (tmp_path / "05/07.png").touch()
    message = refusal(list_fields, tmp_path)
    assert "has its images in folders, such as 05/07.png" in message and "`mitoscope fields` writes one" in message


@pytest.mark.parametrize(
    ("entry", "tag", "given", "expected"),
    [
        (0.5, 0.3, 0.2, (0.5, "fields.csv")),
        (None, 0.3, 0.2, (0.3, "file")),
        (None, None, 0.2, (0.2, "dataset.yaml")),
        (None, None, None, (0.25, "default")),
    ],
)
def test_the_pixel_size_comes_from_the_nearest_place_that_gives_it(entry, tag, given, expected):
    description = Description() if given is None else Description(microns_per_pixel=given)
    assert pixel_size(entry, tag, description) == expected


def test_a_pixel_size_that_nobody_gave_is_not_written(tmp_path):
    write_description(tmp_path, Description(name="mine"))
    assert "microns_per_pixel" not in (tmp_path / "dataset.yaml").read_text()
    write_description(tmp_path, Description(name="mine", microns_per_pixel=0.25))
    assert "microns_per_pixel: 0.25" in (tmp_path / "dataset.yaml").read_text()


def test_a_field_in_two_formats_is_rejected(tmp_path):
    (tmp_path / "01_01.png").touch()
    (tmp_path / "01_01.tif").touch()
    message = refusal(list_fields, tmp_path)
    assert message.startswith(f"{tmp_path / '01_01.tif'}: ") and "01_01.png" in message


def test_a_folder_that_is_missing_or_empty_is_rejected(tmp_path):
    assert "no such folder" in refusal(list_fields, tmp_path / "data")
    (tmp_path / "01_01.csv").touch()
    assert "contains no fields" in refusal(list_fields, tmp_path)


def test_scanning_goes_on_after_a_bad_name(tmp_path):
    for name in ["photo.tif", "01_01.tif", "scan.png"]:
        (tmp_path / name).touch()
    fields, problems, _ = scan_fields(tmp_path)
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
        (b"microns_per_pixel: 250", "microns_per_pixel must be 2 or less, not 250"),
        (b"microns_per_pixel: true", "microns_per_pixel must be a number"),
        (b"microns_per_pixel: 0.025", "microns_per_pixel must be 0.05 or more, not 0.025"),
        (b"microns_per_pixel: tiny", "microns_per_pixel"),
        (b"annotation_order: y,x", "annotation_order"),
        (b"micron_per_pixel: 0.25", "micron_per_pixel"),
        (b"- a list", "must be a block of entries"),
        (b"name: [", "not valid YAML"),
        (b"\xff\xfe\x00", "not valid YAML"),
    ],
)
def test_a_wrong_description_is_rejected(tmp_path, content, complaint):
    path = tmp_path / "dataset.yaml"
    path.write_bytes(content)
    message = refusal(read_description, tmp_path)
    assert message.startswith(f"{path}: ") and complaint in message
