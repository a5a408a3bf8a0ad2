"""An import brings a whole, valid dataset or leaves everything as it was."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mitoscope.datasets.fields import list_fields, read_description
from mitoscope.datasets.importers import Target
from mitoscope.datasets.importers.janowczyk import import_janowczyk
from mitoscope.errors import InputError
from tests.datasets.conftest import encode
from tests.datasets.importers.conftest import contents, notes, pack, rejected, tissue


@pytest.mark.parametrize("form", ["folder", ".tgz", ".tar", ".tar.xz", ".zip"])
def test_a_dataset_comes_in_byte_for_byte(tmp_path, source, form):
    expected = contents(source)
    (source / "readme.txt").write_text("not part of a dataset")
    (source / "._01_01.tif").write_bytes(b"left by macOS")
    given = source if form == "folder" else pack(source, tmp_path / f"archive{form}")
    out = tmp_path / "new" / "data"
    summary = import_janowczyk(given, Target(out))
    assert (summary.fields, summary.patients, summary.mitoses) == (3, 2, 3)
    assert sorted(Path(name).name for name in summary.skipped) == ["._01_01.tif", "readme.txt"]
    brought = contents(out)
    description = yaml.safe_load(brought.pop("dataset.yaml"))
    assert brought == expected
    assert description["name"] == "Janowczyk" and "microns_per_pixel" not in description  # nothing gives it
    assert any(note.startswith("nothing gives the pixel size of 3 fields") for note in summary.notes)
    assert description["annotation_order"] == "row,col" and description["synthetic"] is False
    assert [path.name for path in out.parent.iterdir()] == ["data"]


def test_a_description_that_is_there_is_kept(source, tmp_path):
    (source / "dataset.yaml").write_text("name: mine\nannotation_order: x,y\n")
    (source / "01_01.csv").write_text("47,39\n")  # only as x,y inside the image
    import_janowczyk(source, Target(tmp_path / "data"))
    assert read_description(tmp_path / "data").name == "mine"


def test_a_full_folder_is_replaced_only_on_demand(source, out):
    before = contents(out)
    with pytest.raises(InputError, match=r"is not empty.*--replace"):
        import_janowczyk(source, Target(out))
    assert contents(out) == before
    import_janowczyk(source, Target(out, replace=True))
    assert "precious.txt" not in contents(out) and len(list_fields(out)) == 3


@pytest.mark.parametrize("form", ["folder", ".tgz", ".zip"])
def test_progress_ends_when_all_is_done(tmp_path, source, form):
    given = source if form == "folder" else pack(source, tmp_path / f"archive{form}")
    said: list[tuple[str, int, int]] = []
    import_janowczyk(given, Target(tmp_path / "data"), lambda *step: said.append(step))
    assert said[-1] == ("checking", 3, 3)
    assert all(0 <= done <= total for _, done, total in said)
    assert len(said) == 3 + len(contents(source)) + (form == ".tgz")  # in a tar the folder is a member too


BAD_FILES = {
    "a file that is no image": ("02_01.tif", b"hello", "not an image"),
    "an empty image": ("02_01.tif", b"", "not an image"),
    "a truncated image": ("02_01.tif", encode(".tif", tissue(2))[:-500], "truncated"),
    "a 16-bit image": ("02_01.tif", encode(".tif", tissue(2).astype(np.uint16)), "16 bits"),
    "a grey image": ("02_01.tif", encode(".tif", tissue(2)[..., 0]), "grey"),
    "a field without a patient": ("photo.tif", encode(".tif", tissue(2)), "no patient id"),
    "a field in two formats": ("02_01.tiff", encode(".tif", tissue(2)), "same field name"),
    "a mask of another size": ("02_01_cmask.png", encode(".png", tissue(2)[:9]), "make both equal"),
    "a mask that is no image": ("02_01_pc.png", b"hello", "not an image"),
    "a row outside": ("02_01.csv", b"1,2\n40,2\n", "row 2: row 40, col 2 lies outside"),
    "a row of letters": ("02_01.csv", b"1,2\na,b\n", "row 2: 'a,b' is not two numbers"),
    "a row of nothing": ("02_01.csv", b"1,2\nnan,inf\n", "row 2: 'nan,inf' is not two numbers"),
    "the same centre twice": ("02_01.csv", b"1,2\n3,4\n1,2\n", "row 3: the same centre as row 1"),
    "a csv of bytes": ("02_01.csv", bytes(range(128, 256)), "not a text file"),
    "a wrong description": ("dataset.yaml", b"annotation_order: y,x", "annotation_order"),
}


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "archive"])
@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_is_named_where_it_came_from(tmp_path, source, out, case, packed):
    name, content, complaint = BAD_FILES[case]
    (source / name).write_bytes(content)
    given = pack(source, tmp_path / "archive.tgz") if packed else source
    message = rejected(import_janowczyk, given, out=out)
    assert message.startswith(f"{given / name}: ") and complaint in message


def test_the_number_of_further_problems_is_told(source, out):
    (source / "01_01.tif").write_bytes(b"")
    (source / "02_01.csv").write_text("a,b\n99,99\n")
    message = rejected(import_janowczyk, source, out=out)
    assert message.startswith(f"{source / '01_01.tif'}: ") and "(and 2 more problems; nothing was imported)" in message


def test_a_source_that_is_missing_or_holds_no_field_is_rejected(tmp_path, out):
    assert "no such file or folder" in rejected(import_janowczyk, tmp_path / "mitosis.tgz", out=out)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert rejected(import_janowczyk, empty, out=out).startswith(f"{empty}: contains no fields")
    assert "contains no fields" in rejected(import_janowczyk, pack(empty, tmp_path / "empty.tgz"), out=out)


def test_what_belongs_to_a_field_is_kept(source, tmp_path):
    (source / "01_01_nonmitotic.csv").write_text("20,20\n")
    (source / "fields.csv").write_text("file,domain\n01_01.tif,Aperio\n")
    summary = import_janowczyk(source, Target(tmp_path / "data"))
    assert (summary.mitoses, summary.lookalikes, summary.skipped) == (3, 1, ())
    assert [field.domain for field in list_fields(tmp_path / "data")] == ["Aperio", "", ""]


def test_images_in_folders_come_in_where_a_table_names_their_patients(source, tmp_path):
    (source / "05").mkdir()
    (source / "01_02.tif").rename(source / "05" / "Schnitt 3.tif")
    (source / "01_02.csv").rename(source / "05" / "Schnitt 3.csv")
    (source / "fields.csv").write_text("file,patient\n05/Schnitt 3.tif,05\n")
    import_janowczyk(source, Target(tmp_path / "data"))
    assert [field.name for field in list_fields(tmp_path / "data")] == ["01_01", "02_01", "05_Schnitt-3"]


def test_images_in_folders_that_are_left_out_are_named(source, tmp_path):
    (source / "more").mkdir()
    (source / "01_02.tif").rename(source / "more" / "01_02.tif")
    summary = import_janowczyk(source, Target(tmp_path / "data"))
    assert summary.fields == 2
    assert notes(summary) == (
        "images in folders that were left out: 1, such as more/01_02.tif; "
        f"`mitoscope fields {source}` writes a fields.csv, with which they are taken",
    )


def test_an_output_folder_that_is_a_loop_of_links_is_one_line(source, tmp_path):
    (tmp_path / "data").symlink_to(tmp_path / "data")
    with pytest.raises(InputError, match=r"data: is a link to .*data, which is not there"):
        import_janowczyk(source, Target(tmp_path / "data", replace=True))


def test_a_table_elsewhere_names_the_patients(source, tmp_path):
    (source / "01_02.tif").rename(source / "photo.tif")
    (tmp_path / "mine.csv").write_text("file,patient\nphoto.tif,07\n")
    import_janowczyk(source, Target(tmp_path / "data", fields=tmp_path / "mine.csv"))
    assert [field.name for field in list_fields(tmp_path / "data")] == ["01_01", "02_01", "07_photo"]


@pytest.mark.parametrize("described", [False, True])
def test_a_pixel_size_that_the_user_gives_is_written(source, tmp_path, described):
    if described:
        (source / "dataset.yaml").write_text("name: mine\nmicrons_per_pixel: 0.3\n")
    import_janowczyk(source, Target(tmp_path / "data", microns_per_pixel=0.5))
    description = read_description(tmp_path / "data")
    assert description.microns_per_pixel == 0.5 and description.name == ("mine" if described else "Janowczyk")


@pytest.mark.parametrize("form", ["folder", ".tgz", ".zip"])
@pytest.mark.parametrize("files", [["01/05.tif", "02/05.tif"], ["01/05.tif", "02/06.tif"]], ids=["same", "different"])
def test_folders_per_patient_are_sent_to_the_command_that_reads_them(tmp_path, out, form, files):
    folder = tmp_path / "s15"
    for file in files:
        (folder / file).parent.mkdir(parents=True)
        (folder / file).write_bytes(encode(".tif", tissue(1)))
        (folder / file).with_suffix(".csv").write_text("1,2\n")
    given = folder
    if form == ".tgz":
        given = pack(folder, tmp_path / "s15.tgz")
    elif form == ".zip":
        given = Path(shutil.make_archive(str(tmp_path / "s15"), "zip", folder))
    message = rejected(import_janowczyk, given, out=out)
    assert message.startswith(f"{given}: ") and "`mitoscope import tupac` takes a folder per patient" in message


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("01_01.geojson", "qupath"),
        ("01_01.geojson.gz", "qupath"),
        ("01_01.xml", "imagescope"),
        ("labels.sqlite", "sliderunner"),
        ("MIDOG.json", "midog"),
    ],
)
def test_annotation_files_that_are_left_out_are_named_with_their_command(source, tmp_path, name, command):
    (source / name).write_text("{}")
    summary = import_janowczyk(source, Target(tmp_path / "data"))
    assert summary.skipped == (name,)
    assert notes(summary) == (
        f"annotation files that were not read: 1, such as {name}; `mitoscope import {command}` reads them",
    )


def test_a_source_inside_the_output_folder_is_not_deleted(source, tmp_path):
    archive = pack(source, source / "archive.tgz")
    with pytest.raises(InputError, match="lies in the output folder"):
        import_janowczyk(archive, Target(source, replace=True))
    assert archive.exists()


@pytest.mark.slow  # many examples
@pytest.mark.parametrize("form", [".tar", ".zip"])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), noise=st.binary(min_size=1, max_size=8))
def test_any_damage_to_an_archive_gives_a_line_or_a_dataset(source, tmp_path, out, form, place, noise):
    content = bytearray(pack(source, tmp_path / f"whole{form}").read_bytes())
    start = int(place * len(content))
    content[start : start + len(noise)] = noise
    (tmp_path / f"damaged{form}").write_bytes(content)
    before, target = contents(out), out.with_name("imported")
    try:
        summary = import_janowczyk(tmp_path / f"damaged{form}", Target(target, replace=True))
    except InputError as error:
        assert str(error).isprintable()
    else:
        assert summary.fields == len(list_fields(target))
    assert contents(out) == before
