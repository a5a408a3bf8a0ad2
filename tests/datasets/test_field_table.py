"""fields.csv says whose field each image is, and a bad row is named."""

import pytest

from mitoscope.datasets.field_table import Entry, as_id, is_id, read_field_table, scan_field_table, write_field_table
from tests.datasets.conftest import refusal

ENTRIES = [
    Entry("TCGA-A1-A0SB_01.tif", "TCGA-A1-A0SB", "01", 0.2456, "Aperio, Ulm"),
    Entry("05/Präparat 3.png", "05"),
]


def test_a_table_reads_back(tmp_path):
    path = tmp_path / "fields.csv"
    write_field_table(path, ENTRIES)
    assert read_field_table(path) == ENTRIES
    assert path.read_text().startswith("file,patient,field,microns_per_pixel,domain\n")


def test_columns_may_be_missing_and_in_any_order(tmp_path):
    path = tmp_path / "fields.csv"
    path.write_text("Patient;Microns_per_pixel;File\n05;0,25;a b.png\n06;;c\\d.png\n")
    assert read_field_table(path) == [Entry("a b.png", "05", "", 0.25), Entry("c/d.png", "06")]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "has no column `file`"),
        ("patient,field\n01,02\n", "has no column `file`"),
        ("file,pixelsize\na.png,1\n", "unknown column 'pixelsize'"),
        ("file\na.png\na.png\n", "row 3: a.png is listed twice"),
        ("file,patient\n../a.png,01\n", "row 2: '../a.png' is not a path inside the folder"),
        ("file,patient\n/a.png,01\n", "row 2: '/a.png' is not a path inside the folder"),
        ("file,patient\na.png,0_1\n", "row 2: patient '0_1' may have the letters A to Z, digits"),
        ("file,patient\na.png,Müller\n", "row 2: patient 'Müller' may have the letters A to Z, digits"),
        ("file,field\na.png,0 1\n", "row 2: field '0 1' may have the letters A to Z, digits"),
        ("file,microns_per_pixel\na.png,250\n", "row 2: microns_per_pixel '250' is not a pixel size in um"),
        ("file,microns_per_pixel\na.png,0.25um\n", "row 2: microns_per_pixel '0.25um' is not a pixel size in um"),
    ],
)
def test_a_bad_table_is_rejected_and_the_row_named(tmp_path, content, complaint):
    path = tmp_path / "fields.csv"
    path.write_text(content)
    message = refusal(read_field_table, path)
    assert message.startswith(str(path)) and complaint in message


def test_all_bad_rows_are_one_line(tmp_path):
    path = tmp_path / "fields.csv"
    path.write_text("file,patient\na.png,01\nb.png,0_1\n../c.png,01\na.png,02\nd.png,x y\ne.png,x z\n")
    entries, problems = scan_field_table(path)
    assert entries["a.png"] == Entry("a.png", "01") and entries["b.png"] is None
    message = refusal(read_field_table, path)
    assert problems == [message] and message.startswith(f"{path}: row 3: patient '0_1' may have ")
    assert "; row 4: '../c.png' is not a path inside the folder; row 5: a.png is listed twice; keep one row" in message
    assert message.endswith(" (and 2 more bad rows)")


@pytest.mark.parametrize("text", ["01", "TCGA-A1-A0SB", "case.7"])
def test_ids(text):
    assert is_id(text) and as_id(text) == text


@pytest.mark.parametrize(
    ("text", "made"), [("0 1", "0-1"), ("_x_", "x"), ("Präp. 3", "Prap.-3"), ("Pra\u0308p", "Prap"), ("--", "")]
)
def test_other_texts_become_ids(text, made):
    assert not is_id(text) and as_id(text) == made
