"""Folders per patient, as AMIDA13 and TUPAC16 are published, with their own or the alternative labels."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mitoscope.datasets.annotations import read_centres, read_lookalikes
from mitoscope.datasets.fields import list_fields, read_description
from mitoscope.datasets.importers import Summary, Target
from mitoscope.datasets.importers.tupac import import_tupac
from mitoscope.errors import InputError
from tests.datasets.conftest import encode
from tests.datasets.importers.conftest import COLUMNS, ROWS, contents, notes, rejected, tissue


def write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


@pytest.fixture
def images(tmp_path) -> Path:
    """Three fields of two patients."""
    folder = tmp_path / "images"
    for seed, name in enumerate(["01/05.tif", "01/06.tif", "02/05.tif"]):
        write(folder / name, encode(".tif", tissue(seed)))
    return folder


def imported(data: Path, read=read_centres) -> dict[str, list[list[float]]]:
    return {field.name: read(field, (ROWS, COLUMNS)).tolist() for field in list_fields(data)}


def test_the_folder_is_the_patient_and_the_file_the_field(images, tmp_path):
    write(images / "01/05.csv", "3,4\n10,20\n")
    write(images / "02/05.csv", "5,45\n")
    summary = import_tupac(images, None, Target(tmp_path / "data"))
    assert summary == Summary(3, 2, 3, 0, notes=summary.notes) and notes(summary) == ()
    assert imported(tmp_path / "data") == {"01_05": [[3, 4], [10, 20]], "01_06": [], "02_05": [[5, 45]]}
    assert contents(tmp_path / "data")["01_06.tif"] == (images / "01/06.tif").read_bytes()
    assert "microns_per_pixel" not in read_description(tmp_path / "data").model_fields_set


def test_the_parts_of_the_published_set_are_read_together(images, tmp_path):
    for number, patient in ((1, "01"), (2, "02")):
        (tmp_path / f"set/mitoses_image_data_part_{number}").mkdir(parents=True)
        (images / patient).rename(tmp_path / f"set/mitoses_image_data_part_{number}/{patient}")
    write(tmp_path / "mitoses_ground_truth/01/05.csv", "3,4\n")
    write(tmp_path / "mitoses_ground_truth/02/05.csv", "")
    summary = import_tupac(tmp_path / "set", tmp_path / "mitoses_ground_truth", Target(tmp_path / "data"))
    assert (summary.fields, summary.patients, summary.mitoses, notes(summary)) == (3, 2, 1, ())


@pytest.mark.parametrize("given", ["TUPAC_AL", "."])
def test_the_alternative_labels_have_look_alikes(images, tmp_path, given):
    write(images / "01/05.csv", "30,30\n")  # the original labels, which are not asked for
    write(tmp_path / "repository/TUPAC_AL/mitoses_ground_truth/01/05.csv", "3,4\n")
    write(tmp_path / "repository/TUPAC_AL/nonmitoses_ground_truth/01/05.csv", "9,9\n8,8\n")
    write(tmp_path / "repository/TUPAC_AL/nonmitoses_ground_truth/02/05.csv", "7,7\n")
    summary = import_tupac(images, tmp_path / "repository" / given, Target(tmp_path / "data"))
    assert (summary.mitoses, summary.lookalikes, notes(summary)) == (1, 3, ())
    assert imported(tmp_path / "data") == {"01_05": [[3, 4]], "01_06": [], "02_05": []}
    assert imported(tmp_path / "data", read_lookalikes) == {"01_05": [[9, 9], [8, 8]], "01_06": [], "02_05": [[7, 7]]}


def test_a_patient_without_labels_is_named_because_nobody_may_have_looked(images, tmp_path):
    write(images / "01/05.csv", "3,4\n")
    (note,) = notes(import_tupac(images, None, Target(tmp_path / "data")))
    assert note.startswith("patients without a CSV for any image: 1, such as 02; they are taken to have no mitosis")


def test_labels_of_other_images_are_counted(images, tmp_path):
    write(tmp_path / "labels/01/05.csv", "3,4\n")
    write(tmp_path / "labels/02/09.csv", "3,4\n")
    (note,) = notes(import_tupac(images, tmp_path / "labels", Target(tmp_path / "data")))
    assert note == f"CSV files of other images: 1 left out, such as {tmp_path / 'labels/02/09.csv'}"


def test_folders_with_names_of_any_kind_and_a_table(images, tmp_path):
    (images / "02").rename(images / "Fall 2")
    write(images / "01/05.csv", "3,4\n")
    (images / "fields.csv").write_text("file,patient,field,domain\n01/05.tif,77,,Aperio\n")
    import_tupac(images, None, Target(tmp_path / "data"))
    names = [(field.name, field.domain) for field in list_fields(tmp_path / "data")]
    assert names == [("01_06", ""), ("77_05", "Aperio"), ("Fall-2_05", "")]


def test_centres_a_few_px_outside_are_moved(images, tmp_path):
    write(images / "01/05.csv", f"{ROWS},-3\n")
    summary = import_tupac(images, None, Target(tmp_path / "data"))
    assert imported(tmp_path / "data")["01_05"] == [[ROWS - 1, 0]]
    assert "centres outside their image: 1 moved to its edge, 0 more than 6.25 um away left out" in notes(summary)


@pytest.mark.parametrize(
    ("file", "content", "complaint"),
    [
        ("01/05.csv", "3,4\na,b\n", "01/05.csv: row 2: 'a,b' is not two numbers"),
        ("01/05.csv", "3,4,0.9\n", "01/05.csv: row 1: '3,4,0.9' is not two numbers"),
        ("01/05.csv", b"\x00\x01", "01/05.csv: is not a text file"),
        ("05.tif", encode(".tif", tissue(0)), "05.tif: is in no patient's folder"),
        ("a/01/05.tif", encode(".tif", tissue(0)), "a/01: would be patient '01', as "),
        ("a/01/05.csv", "1,2\n", "a/01/05.csv: is for the same image as "),
        ("02/05.tif", b"hello", "02/05.tif: "),
    ],
)
def test_what_is_not_in_this_layout_is_rejected(images, out, file, content, complaint):
    write(images / "01/05.csv", "3,4\n")
    write(images / file, content)
    message = rejected(lambda source, target: import_tupac(source, None, target), images, out=out)
    assert complaint in message and str(images) in message


def test_a_folder_without_labels_or_images_is_rejected(images, tmp_path, out):
    (tmp_path / "archive.tgz").touch()
    (tmp_path / "empty").mkdir()

    def message(source: Path, labels: Path | None = None) -> str:
        return rejected(lambda target: import_tupac(source, labels, target), out=out)

    assert "has no CSV for any image" in message(images)
    assert "has no CSV for any image" in message(images, tmp_path / "empty")
    assert "no such folder" in message(tmp_path / "missing") and "no such folder" in message(images, tmp_path / "x")
    assert "is a file; unpack it first" in message(tmp_path / "archive.tgz")
    assert "has no images in folders" in message(tmp_path / "empty")


@pytest.mark.slow  # many examples
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(table=st.text('0123456789.,;-\t\r\n xe"', max_size=30) | st.binary(max_size=30))
def test_any_table_gives_a_line_or_a_dataset(images, out, table):
    write(images / "02/05.csv", table)
    before, target = contents(out), out.with_name("imported")
    try:
        summary = import_tupac(images, None, Target(target, replace=True))
    except InputError as error:
        assert str(error).isprintable()
    else:
        assert sum(map(len, imported(target).values())) == summary.mitoses
    assert contents(out) == before
