"""The output folder of detection: whatever happens, summary.csv and model.json describe what is in it."""

import hashlib
import json
from pathlib import Path

import pandas as pd
import pytest

from mitoscope.commands.results_folder import ResultsFolder, check_out, only_writer
from mitoscope.errors import InputError
from mitoscope.reporting.exports import FieldCount
from tests.disks import full_disk

EVIDENCE = {"model": "a.pt", "detector_sha256": "1", "threshold": 0.5}
OTHER = EVIDENCE | {"detector_sha256": "2"}


def write(out: Path, *names: str, evidence=EVIDENCE, replace=False) -> ResultsFolder:
    """Do a call of detect with these fields."""
    folder = ResultsFolder(out, names, evidence, replace=replace)
    for name in names:
        with folder.field(name):
            for ending in ("mitoses.csv", "mitoses.geojson", "overlay.jpg"):
                (out / f"{name}_{ending}").write_text(evidence["detector_sha256"])
            folder.add(FieldCount(name, 10, 20, 3, 0.5, 0.25, "file"))
    return folder


def fields(out: Path) -> list[str]:
    return pd.read_csv(out / "summary.csv", dtype={"field": str}).field.tolist()


def model_of(out: Path) -> dict:
    """What model.json says of the model."""
    content = json.loads((out / "model.json").read_text())
    del content["geojson_sha256"]
    return content


def contents(out: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in out.iterdir()}


def files(out: Path) -> set[str]:
    return {path.name.partition("_")[0] for path in out.glob("*_*")}


def test_a_folder_appears_with_its_first_field(tmp_path):
    folder = ResultsFolder(tmp_path / "new", ["a"], EVIDENCE, replace=False)
    assert not (tmp_path / "new").exists() and not folder.has("a")
    write(tmp_path / "new", "a")
    assert fields(tmp_path / "new") == ["a", "all"]
    assert model_of(tmp_path / "new") == EVIDENCE


def test_equal_evidence_adds_whatever_the_model_is_called(tmp_path):
    write(tmp_path, "a", "b")
    folder = write(tmp_path, "c", "a", evidence=EVIDENCE | {"model": "b.pt"})
    assert fields(tmp_path) == ["b", "c", "a", "all"] and folder.has("b") and folder.unknown == []
    assert json.loads((tmp_path / "model.json").read_text())["model"] == "b.pt"


@pytest.mark.parametrize("change", [{"detector_sha256": "2"}, {"threshold": 0.6}, {"new": 1}])
def test_other_evidence_is_rejected_where_results_would_stay(tmp_path, change):
    write(tmp_path, "a", "b")
    with pytest.raises(
        InputError, match=r"has results of another model, a\.pt; use another --out, or remove them with"
    ):
        ResultsFolder(tmp_path, ["a"], EVIDENCE | change, replace=False)
    assert fields(tmp_path) == ["a", "b", "all"]


@pytest.mark.parametrize(("names", "replace"), [(["a", "b"], False), (["a"], True), (["c"], True)])
def test_with_other_evidence_nothing_earlier_stays(tmp_path, names, replace):
    write(tmp_path, "a", "b")
    (tmp_path / "notes.txt").write_text("mine")
    write(tmp_path, *names, evidence=OTHER, replace=replace)
    assert fields(tmp_path) == [*names, "all"] and files(tmp_path) == set(names)
    assert {path.read_text() for path in tmp_path.glob("*_*")} == {"2"}
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_call_without_any_result_changes_nothing(tmp_path):
    write(tmp_path, "a")
    ResultsFolder(tmp_path, ["b"], OTHER, replace=True)
    assert fields(tmp_path) == ["a", "all"] and model_of(tmp_path) == EVIDENCE


@pytest.mark.parametrize("error", [OSError(28, "No space left on device", "/x/.hidden"), KeyboardInterrupt()])
def test_a_field_is_there_as_a_whole_or_not_at_all(tmp_path, error):
    folder = write(tmp_path, "a", "b")
    with pytest.raises(type(error)) as caught, folder.field("b"):
        (tmp_path / "b_mitoses.csv").write_text("new")
        raise error
    assert fields(tmp_path) == ["a", "all"] and files(tmp_path) == {"a"}
    if isinstance(error, OSError):
        assert (caught.value.errno, caught.value.filename) == (28, str(tmp_path))


def test_on_a_full_disk_no_summary_names_what_is_not_there(tmp_path):
    folder = write(tmp_path, "a", "b")
    with pytest.raises(OSError, match="File too large") as caught, full_disk(), folder.field("a"):
        pass
    assert caught.value.filename == str(tmp_path) and files(tmp_path) == {"b"}
    assert not (tmp_path / "summary.csv").exists()


def test_without_a_field_there_is_no_summary(tmp_path):
    folder = write(tmp_path, "a")
    with pytest.raises(KeyboardInterrupt), folder.field("a"):
        raise KeyboardInterrupt
    assert not (tmp_path / "summary.csv").exists() and not files(tmp_path)


def test_files_that_a_killed_process_left_are_named(tmp_path):
    write(tmp_path, "a")
    (tmp_path / "b_mitoses.csv").write_text("half of the files")
    folder = write(tmp_path, "c")
    assert folder.unknown == ["b"] and fields(tmp_path) == ["a", "c", "all"]
    assert write(tmp_path, "b").unknown == []


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("gone", [["model.json"], ["model.json", "summary.csv"]])
def test_results_without_a_model_are_rejected(tmp_path, gone, replace):
    write(tmp_path, "a")
    for name in gone:
        (tmp_path / name).unlink()
    before = contents(tmp_path)
    with pytest.raises(InputError, match=r"has results of an unknown model, and no model\.json; use another --out"):
        write(tmp_path, "b", replace=replace)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", ["survey_mitoses.csv", "a_mitoses.geojson", "a_overlay.png"])
def test_nothing_is_removed_from_a_folder_without_a_model(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match="has results of an unknown model"):
        write(tmp_path, "a", replace=True)
    assert contents(tmp_path) == {name: "mine"}


@pytest.mark.parametrize("evidence", [EVIDENCE, OTHER])
def test_replace_removes_only_what_the_summary_names(tmp_path, evidence):
    write(tmp_path, "a", "b")
    for name in ("survey_mitoses.csv", "survey_mitoses.geojson"):
        (tmp_path / name).write_text("mine")
    folder = write(tmp_path, "a", evidence=evidence, replace=True)
    assert files(tmp_path) == {"a", "survey"} and folder.unknown == ["survey"]
    assert (tmp_path / "survey_mitoses.csv").read_text() == (tmp_path / "survey_mitoses.geojson").read_text() == "mine"


@pytest.mark.parametrize(("name", "content"), [("summary.csv", "a,b\n"), ("model.json", '{"threshold": 1}')])
def test_replace_checks_both_files_beside_results_too(tmp_path, name, content):
    write(tmp_path, "a")
    (tmp_path / name).write_text(content)
    before = contents(tmp_path)
    with pytest.raises(InputError, match=rf"{name}: is no .*; use another --out"):
        write(tmp_path, "a", replace=True)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("evidence", [EVIDENCE, OTHER])
def test_a_corrected_geojson_stays(tmp_path, evidence):
    """Also if all results of another model would be made again, where only this one would stay."""
    write(tmp_path, "a", "b")
    (tmp_path / "a_mitoses.geojson").write_text("corrected")
    before = contents(tmp_path)
    said = r"a_mitoses\.geojson: is not as `mitoscope detect` wrote it, perhaps corrected; move it, or .*--replace"
    with pytest.raises(InputError, match=said):
        write(tmp_path, "a", "b", evidence=evidence)
    assert contents(tmp_path) == before
    write(tmp_path, "a", evidence=evidence, replace=True)
    assert (tmp_path / "a_mitoses.geojson").read_text() == evidence["detector_sha256"]


def test_a_geojson_that_came_during_detection_stays(tmp_path):
    folder = write(tmp_path, "a")
    folder.check("b")
    (tmp_path / "b_mitoses.geojson").write_text("of somebody else")
    with pytest.raises(InputError, match=r"b_mitoses\.geojson: is not as"), folder.field("b"):
        pytest.fail("the block must not run")
    assert (tmp_path / "b_mitoses.geojson").read_text() == "of somebody else"


def test_the_model_file_has_the_hash_of_each_geojson(tmp_path):
    write(tmp_path, "a")
    write(tmp_path, "b")
    expected = hashlib.sha256(b"1").hexdigest()
    assert json.loads((tmp_path / "model.json").read_text())["geojson_sha256"] == {"a": expected, "b": expected}


def test_one_call_at_a_time_writes(tmp_path):
    out = tmp_path / "new/one"
    with only_writer(out):
        with pytest.raises(InputError, match="another `mitoscope detect` writes here, process"), only_writer(out):
            pytest.fail("the block must not run")
        write(out, "a")
    with only_writer(out):
        write(out, "b")
    assert fields(out) == ["a", "b", "all"]
    assert not [path for path in out.iterdir() if path.name.startswith(".")]


def test_a_call_without_results_leaves_no_folder(tmp_path):
    with pytest.raises(InputError, match="no model"), only_writer(tmp_path / "new/one"):
        raise InputError("no model")
    assert not list(tmp_path.iterdir())


def test_a_row_whose_files_were_deleted_goes(tmp_path):
    write(tmp_path, "a", "b")
    for path in tmp_path.glob("a_*"):
        path.unlink()
    write(tmp_path, "c")
    assert fields(tmp_path) == ["b", "c", "all"]


@pytest.mark.parametrize(("name", "content"), [("summary.csv", "a,b\n"), ("model.json", "{}"), ("model.json", "x")])
def test_files_of_somebody_else_are_not_replaced(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=name):
        ResultsFolder(tmp_path, ["a"], EVIDENCE, replace=True)
    assert (tmp_path / name).read_text() == content


def test_the_folder_of_an_image_is_no_output_folder(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    for out in (tmp_path, tmp_path / "link", tmp_path / "x/.."):
        with pytest.raises(InputError, match=r"is the folder of 'b\.tif'; choose another"):
            check_out(out, [Path("elsewhere/a.tif"), tmp_path / "b.tif"])
    check_out(tmp_path / "new/one", [tmp_path / "b.tif"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link"]
