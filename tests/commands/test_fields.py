"""`fields` writes a first table of whose field each image is, and never guesses a patient."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile

from mitoscope.commands.fields import fields
from mitoscope.datasets.field_table import Entry, read_field_table
from mitoscope.datasets.fields import scan_fields
from mitoscope.errors import InputError

TISSUE = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "[red]images"  # rich would take this for a colour


def save(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(cv2.imencode(".png", TISSUE)[1].tobytes())


def test_names_say_patient_and_field_or_nothing_is_guessed(folder, capsys):
    save(folder, "TCGA-A1_01.png", "case1roi1.png", "Präparat 3.png", "TCGA-A1_01_cmask.png")
    fields(folder)
    rows = read_field_table(folder / "fields.csv")
    assert rows == [Entry("Präparat 3.png"), Entry("TCGA-A1_01.png", "TCGA-A1", "01"), Entry("case1roi1.png")]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"3 images in {folder / 'fields.csv'}"
    assert lines[-1].startswith("next: fill in the patient of 2 images")
    _, problems, _ = scan_fields(folder)
    assert len(problems) == 2  # until somebody says whose they are


def test_where_a_patient_is_from_is_said(folder, capsys):
    save(folder, "TCGA-A1_01.png", "Fall/1.png", "Müller 2/1.png")
    fields(folder)
    said = capsys.readouterr().out
    assert "1 have the patient of the name PATIENT_FIELD, such as TCGA-A1 of TCGA-A1_01.png: check them" in said
    assert "2 have the patient of their folder, such as Muller-2 of Müller 2/1.png: check them" in said


def test_folders_are_patients_where_there_are_several(folder, capsys):
    save(folder, "01/05.png", "Fall 2/05.png", "Fall 2/07_01.png", "top.png")
    fields(folder)
    assert read_field_table(folder / "fields.csv") == [
        Entry("01/05.png", "01", "05"),
        Entry("Fall 2/05.png", "Fall-2", "05"),
        Entry("Fall 2/07_01.png", "07", "01"),
        Entry("top.png"),
    ]
    assert "2 have the patient of their folder, such as Fall-2 of Fall 2/05.png: check them" in capsys.readouterr().out


@pytest.mark.parametrize(
    "names", [["all/1.png", "all/2.png"], ["x/40x/1.png", "y/40x/2.png"], ["a b/1.png", "a-b/1.png"]]
)
def test_folders_that_cannot_be_patients_are_not_taken(folder, names):
    save(folder, *names)
    fields(folder)
    assert [entry.patient for entry in read_field_table(folder / "fields.csv")] == ["", ""]


def test_the_pixel_size_is_that_of_the_file_and_a_bad_image_keeps_its_row(folder, capsys):
    save(folder, "01_01.png")
    tifffile.imwrite(folder / "01_02.tif", TISSUE, resolution=(20_000, 20_000), resolutionunit="CENTIMETER")
    (folder / "01_03.png").write_bytes(b"hello")
    fields(folder)
    assert [entry.microns_per_pixel for entry in read_field_table(folder / "fields.csv")] == [None, 0.5, None]
    out = capsys.readouterr().out
    assert f"warning: {folder / '01_03.png'}: " in out and "error" not in out and "1 say their pixel size" in out
    assert "next: check it" in out


def test_only_the_headers_are_read(folder):
    folder.mkdir()
    image = TISSUE.astype(np.uint16)  # which is rejected only when its pixels are asked for
    tifffile.imwrite(folder / "01_01.tif", image, resolution=(20_000, 20_000), resolutionunit="CENTIMETER")
    fields(folder)
    assert [entry.microns_per_pixel for entry in read_field_table(folder / "fields.csv")] == [0.5]


def test_a_name_that_is_not_utf_8_is_one_line(folder):
    save(folder, "01_01.png", os.fsdecode(b"caf\xe9.png"), os.fsdecode(b"caf\xe9/1.png"))
    with pytest.raises(InputError) as caught:
        fields(folder)
    message = str(caught.value)
    assert message.isprintable() and "caf\\udce9" in message
    assert "is not UTF-8" in message and message.endswith(" (and 1 more images); rename it")
    assert not (folder / "fields.csv").exists()


@pytest.mark.parametrize("name", [" a.png", "a\nb.png", "a\\b.png"])
def test_a_name_that_a_table_would_change_is_one_line(folder, name):
    save(folder, name)
    with pytest.raises(InputError, match=r"cannot be in a table, because its name begins with a blank") as caught:
        fields(folder)
    assert str(caught.value).isprintable() and str(caught.value).endswith("; rename it")
    assert not (folder / "fields.csv").exists()


def test_a_table_is_written_elsewhere_and_over_another_one_only_on_demand(folder, tmp_path):
    save(folder, "01_01.png")
    table = tmp_path / "mine.csv"
    table.write_text("edited by hand")
    with pytest.raises(InputError, match=r"mine.csv: is there already; .*--replace"):
        fields(folder, table)
    assert table.read_text() == "edited by hand"
    fields(folder, table, replace=True)
    assert read_field_table(table) == [Entry("01_01.png", "01", "01")] and not (folder / "fields.csv").exists()


def test_a_folder_without_images_is_rejected(tmp_path):
    with pytest.raises(InputError, match="has no image"):
        fields(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        fields(tmp_path / "missing")
    assert list(tmp_path.iterdir()) == []
