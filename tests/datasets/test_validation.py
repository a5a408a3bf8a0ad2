"""The check finds everything that is wrong in one go, and says what is there."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mitoscope.datasets.validation import PatientTotal, check_dataset
from mitoscope.errors import InputError
from tests.datasets.conftest import encode

ROWS, COLUMNS = 150, 140


def tissue(rows: int = ROWS, columns: int = COLUMNS) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (rows, columns, 3), dtype=np.uint8)


def cmyk() -> bytes:
    """The tissue as a JPEG for printing."""
    content = io.BytesIO()
    Image.fromarray(tissue()).convert("CMYK").save(content, "JPEG")
    return content.getvalue()


@pytest.fixture
def data(tmp_path) -> Path:
    """A valid dataset: patient 01 with two fields and three mitoses, patient 02 with one and one."""
    folder = tmp_path / "[red]data"  # rich would take this for a colour
    folder.mkdir()
    for name in ("01_01.tif", "01_02.png", "02_01.jpg"):
        (folder / name).write_bytes(encode(Path(name).suffix, tissue()))
    (folder / "dataset.yaml").write_text("microns_per_pixel: 0.25\n")
    (folder / "01_01.csv").write_text("10,20\n149,139\n")
    (folder / "01_02.csv").write_text("0,0\n")
    discs = np.zeros((ROWS, COLUMNS), np.uint8)
    discs[40:44, 50:54] = 255
    (folder / "02_01_pc.png").write_bytes(encode(".png", discs))
    (folder / "01_02_cmask.png").write_bytes(encode(".png", discs))
    return folder


def test_a_valid_dataset_has_no_problems(data):
    report = check_dataset(data)
    assert report.problems == report.warnings == ()
    assert [(field.name, field.mitoses, field.masks) for field in report.fields] == [
        ("01_01", 2, ()),
        ("01_02", 1, ("cmask",)),
        ("02_01", 1, ("pc",)),
    ]
    assert {(field.width, field.height) for field in report.fields} == {(COLUMNS, ROWS)}
    assert report.patients == (PatientTotal("01", 2, 3), PatientTotal("02", 1, 1))
    assert report.mitoses == 4


BAD_FILES = {
    "03_01.tif": (b"hello", "is not an image"),
    "03_02.tif": (b"", "is not an image"),
    "03_03.tif": (encode(".tif", tissue())[:-300], "truncated"),
    "03_04.png": (encode(".png", tissue())[:-300], "truncated"),
    "03_05.jpg": (encode(".jpg", tissue())[:-300], "truncated"),
    "03_06.bmp": (encode(".bmp", tissue())[:-300], "truncated"),
    "03_07.png": (encode(".png", tissue().astype(np.uint16)), "16 bits"),
    "03_08.png": (encode(".png", tissue()[..., 0]), "grey"),
    "03_09.jpg": (cmyk(), "CMYK"),
    "01_01.png": (encode(".png", tissue()), "same field name as 01_01"),
    "photo.tif": (encode(".tif", tissue()), "no patient id"),
    "01_01_cmask.png": (encode(".png", tissue(9, 9)), "9 x 9 px"),
    "01_02_cmask.png": (b"hello", "is not an image"),
    "02_01_pc.png": (encode(".png", tissue(9, 9)), "9 x 9 px"),
    "01_01.csv": (bytes(range(128, 256)), "not a text file"),
    "01_02.csv": (b"150,1\n", "row 1: row 150, col 1 lies outside"),
    "dataset.yaml": (b"microns_per_pixel: none", "microns_per_pixel"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_the_one_problem(data, name):
    content, complaint = BAD_FILES[name]
    (data / name).write_bytes(content)
    (problem,) = check_dataset(data).problems
    assert complaint in problem and problem.isprintable()
    named = problem.split(": ")[0]
    assert Path(named).parent == data and Path(named).stem == Path(name).stem


def test_all_problems_are_found_at_once(data):
    for name, (content, _) in BAD_FILES.items():
        (data / name).write_bytes(content)
    report = check_dataset(data)
    assert len(report.problems) == len(BAD_FILES) == len(set(report.problems))
    assert sum(field.width == 0 for field in report.fields) == 9


def test_each_kind_of_bad_row_is_one_problem(data):
    (data / "01_01.csv").write_text("1,2\nrow,col\n3,4,5\n1,2\nnan,1\n1,inf\n,\n999,1\n7,8\n")
    report = check_dataset(data)
    assert [int(problem.split("row ")[1].split(":")[0]) for problem in report.problems] == [2, 4, 8]
    assert "(and 3 more rows)" in report.problems[0]
    assert all(problem.startswith(f"{data / '01_01.csv'}: row ") for problem in report.problems)
    assert report.fields[0].mitoses == 2  # the good rows


def test_the_order_of_the_description_is_used(data):
    (data / "01_01.csv").write_text("139,149\n")
    assert "outside" in check_dataset(data).problems[0]
    (data / "dataset.yaml").write_text("annotation_order: x,y\n")
    assert check_dataset(data).problems == ()


@pytest.mark.parametrize("name", ["01_03.csv", "01_01.CSV", "01_1_cmask.png", "01_01_cmask.tif"])
def test_a_file_that_no_field_uses_is_warned_of(data, name):
    (data / name).write_bytes(b"")
    report = check_dataset(data)
    assert report.problems == ()
    (warning,) = report.warnings
    assert warning.startswith(f"{data / name}: belongs to no field")


def test_lookalikes_and_domains_are_shown(data):
    (data / "01_01_nonmitotic.csv").write_text("10,20\n30,40\n")
    (data / "fields.csv").write_text("file,domain\n01_01.tif,Aperio\n")
    report = check_dataset(data)
    assert report.problems == report.warnings == () and report.lookalikes == 2
    assert [(field.lookalikes, field.domain) for field in report.fields] == [(2, "Aperio"), (0, ""), (0, "")]
    (data / "01_01_nonmitotic.csv").write_text("10,2000\n")
    assert "01_01_nonmitotic.csv: row 1: row 10, col 2000 lies outside" in check_dataset(data).problems[0]


def test_a_pixel_size_that_nothing_gives_is_warned_of(data):
    (data / "dataset.yaml").unlink()
    (warning,) = check_dataset(data).warnings
    assert warning.startswith("nothing gives the pixel size of 3 fields, so 0.25 um is assumed")
    (data / "fields.csv").write_text("file,microns_per_pixel\n01_01.tif,0.5\n01_02.png,0.5\n02_01.jpg,0.5\n")
    report = check_dataset(data)
    assert report.warnings == () and {field.pixel for field in report.fields} == {(0.5, "fields.csv")}


@pytest.mark.parametrize(
    ("setting", "source", "used"),
    [("dataset.yaml", "file", 0.5), ("fields.csv", "fields.csv", 0.25)],
    ids=["dataset.yaml gives way to the files", "the table wins over the files"],
)
def test_files_that_disagree_with_a_pixel_size_are_one_warning(data, setting, source, used):
    names = ("01_01.tif", "01_02.png", "02_01.jpg")
    if setting == "fields.csv":
        rows = "".join(f"{name},0.25\n" for name in names)
        (data / "fields.csv").write_text(f"file,microns_per_pixel\n{rows}")
    for name in names[:2]:
        per_inch = 25_400 / 0.5
        Image.open(data / name).save(data / name, dpi=(per_inch, per_inch))
    report = check_dataset(data)
    assert [field.pixel for field in report.fields[:2]] == [(pytest.approx(used, rel=1e-3), source)] * 2
    (warning,) = report.warnings
    assert warning.startswith(f"2 of 3 images say another pixel size than {setting}; ")
    assert "01_01: 0.5 um in the file, 0.25 um in" in warning


def test_an_image_of_two_patients_is_warned_of(data):
    for name in ("02_02", "03_01"):
        shutil.copy(data / "01_01.tif", data / f"{name}.tif")
    report = check_dataset(data)
    assert not report.problems
    (warning,) = report.copies
    assert "02_02.tif: has the pixels of 01_01.tif, which is of another patient (2 images are such copies)" in warning


def test_conflicts_between_pixel_sizes_are_problems(data):
    shutil.copy(data / "01_01.tif", data / "01_03.tif")
    (data / "dataset.yaml").unlink()
    (data / "fields.csv").write_text("file,microns_per_pixel\n01_01.tif,0.25\n")
    (missing,) = check_dataset(data).problems
    assert "01_02.png: has no known pixel size, like 3 of 4 fields" in missing


def test_a_table_in_a_folder_that_no_field_uses_is_warned_of(data):
    (data / "05").mkdir()
    (data / "05/01.csv").write_text("1,2\n")
    (warning,) = check_dataset(data).warnings
    assert warning.startswith(f"{data / '05/01.csv'}: belongs to no field")


def test_what_is_said_about_an_image_is_not_said_about_its_files(data):
    (data / "05").mkdir()
    for name in ("scan", "photo", "05/07"):
        (data / f"{name}.png").write_bytes(encode(".png", tissue()))
        (data / f"{name}.csv").write_text("1,2\n")
    (data / "fields.csv").write_text("file,patient\nscan.png,P_1\n")
    report = check_dataset(data)
    row, name = report.problems
    assert "fields.csv: row 2: patient 'P_1'" in row and "photo.png: no patient id" in name
    (warning,) = report.warnings
    assert warning == f"{data / '05/07.png'}: is in a folder and not in fields.csv, so it is not used (1 such images)"


@pytest.mark.parametrize(("pixels", "share"), [(1, "<1%"), (ROWS * COLUMNS // 4, "25%")])
def test_transparent_parts_are_warned_of(data, pixels, share):
    alpha = np.full(ROWS * COLUMNS, 255, np.uint8)
    alpha[:pixels] = 0
    (data / "01_02.png").write_bytes(encode(".png", np.dstack([tissue(), alpha.reshape(ROWS, COLUMNS)])))
    (warning,) = check_dataset(data).warnings
    assert warning.startswith(f"1 fields are partly transparent, such as 01_02 ({share}); ")


def test_a_patient_without_mitosis_is_warned_of(data):
    (data / "02_01.csv").write_text("")
    (warning,) = check_dataset(data).warnings
    assert warning.startswith("patient 02: no mitosis")


def test_a_mask_that_nothing_reads_is_not_checked(data):
    (data / "01_01_brmask.png").write_bytes(b"hello")
    (data / "09_09_brmask.png").write_bytes(b"of no field")
    report = check_dataset(data)
    assert report.problems == report.warnings == () and len(report.fields) == 3


def test_a_folder_without_fields_is_a_problem_and_a_missing_one_an_error(tmp_path):
    (problem,) = check_dataset(tmp_path).problems
    assert problem.startswith(f"{tmp_path}: contains no fields")
    with pytest.raises(InputError, match="no such folder"):
        check_dataset(tmp_path / "missing")


def test_progress_counts_the_fields(data):
    said: list[tuple[str, int, int]] = []
    check_dataset(data, on_progress=lambda *step: said.append(step))
    assert said == [("checking", done, 3) for done in (1, 2, 3)]
