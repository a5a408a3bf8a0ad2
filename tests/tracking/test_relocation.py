"""A project that is copied or moved finds its own files and leaves the original's alone."""

import contextlib
import shutil
import sqlite3
import subprocess
from pathlib import Path

import mlflow
import pytest

from mitoscope.errors import InputError
from mitoscope.tracking.models import detector_file
from mitoscope.tracking.runs import log_results
from mitoscope.tracking.store import connect, open_store
from tests.tracking.conftest import log_text_as_detector

pytestmark = pytest.mark.slow


def contents(folder: Path) -> dict[str, tuple[int, float]]:
    """Size and time of every file."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): (path.stat().st_size, path.stat().st_mtime) for path in files}


def stored_text(database: Path) -> list[str]:
    """All texts in a store, whatever table they are in."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = [row for table in tables for row in connection.execute(f"SELECT * FROM {table}")]
    return [value for row in rows for value in row if isinstance(value, str)]


@pytest.fixture
def original(logged_project: tuple[Path, str], tmp_path: Path) -> Path:
    """A copy of the logged project, opened where it is now, with the files of its run at their places."""
    shutil.copytree(logged_project[0], tmp_path / "original")
    with contextlib.chdir(tmp_path / "original"):
        open_store()
    return tmp_path / "original"


def test_a_copy_uses_its_own_files_and_writes_only_there(original, logged_project, tmp_path, monkeypatch, capsys):
    run_id = logged_project[1]
    copy = tmp_path / "a cöpy"
    shutil.copytree(original, copy)
    before = contents(original)
    monkeypatch.chdir(copy)
    capsys.readouterr()
    open_store()
    said = f"{copy}/mlflow.db: the files of its runs are now read from {copy}/mlartifacts instead of {original}"
    assert capsys.readouterr().out == f"{said}/mlartifacts\n"
    assert not [text for text in stored_text(copy / "mlflow.db") if str(original) in text or original.as_uri() in text]
    for file in (copy / "mlartifacts").rglob("detector.pt"):
        file.write_text("of the copy")
    for model in ("models:/mitoscope@champion", "models:/mitoscope/1", f"runs:/{run_id}/detector"):
        with detector_file(model) as path:
            assert path.read_text() == "of the copy"

    model_id = log_text_as_detector(run_id, copy, "second")
    (copy / "table.csv").touch()
    log_results(run_id, model_id, {"test/f1": 0.5}, {"tables": [copy / "table.csv"]})
    client = connect(experiment="another")
    client.log_text(client.create_run(mlflow.set_experiment("another").experiment_id).info.run_id, "text", "a.txt")
    for name in ("table.csv", "a.txt"):
        assert len(list((copy / "mlartifacts").rglob(name))) == 1
    assert contents(original) == before
    assert capsys.readouterr().out == ""  # said once


@pytest.mark.parametrize("left_behind", [False, True])
def test_a_moved_project_finds_its_files(original, logged_project, tmp_path, monkeypatch, left_behind):
    moved = tmp_path / "moved"
    original.rename(moved)
    if left_behind:  # another project, begun in the old place
        (original / "mlartifacts").mkdir(parents=True)
    monkeypatch.chdir(moved)
    with detector_file("models:/mitoscope@champion") as path:
        assert path.read_text() == "first"
    assert log_text_as_detector(logged_project[1], moved, "second")
    assert not contents(original) if left_behind else not original.exists()


def test_files_that_were_not_copied_are_named_with_the_remedy(original, tmp_path, monkeypatch):
    copy = tmp_path / "copy"
    shutil.copytree(original, copy, ignore=shutil.ignore_patterns("mlartifacts"))
    monkeypatch.chdir(copy)
    before = (copy / "mlflow.db").read_bytes()
    with pytest.raises(InputError) as caught:
        connect()
    said = str(caught.value)
    assert (
        f"{copy}/mlartifacts: the files of the runs are still in the other project, in {original}/mlartifacts" in said
    )
    assert "\n" not in said and (copy / "mlflow.db").read_bytes() == before and not (copy / "mlartifacts").exists()
    subprocess.run(said.split("`")[1], shell=True, check=True)  # the remedy
    with detector_file("models:/mitoscope@champion") as path:
        assert path.read_text() == "first"


def test_files_that_lie_in_the_original_only_are_named_too(original, tmp_path, monkeypatch):
    copy = tmp_path / "copy"
    shutil.copytree(original, copy)
    shutil.rmtree(next((copy / "mlartifacts/models").iterdir()))  # version 0.1 logged this one to the original
    monkeypatch.chdir(copy)
    with pytest.raises(InputError, match=f"copy them with `cp -a {original}/mlartifacts/. {copy}/mlartifacts`"):
        open_store()


def test_files_that_are_gone_are_named_with_the_remedy(original, tmp_path, monkeypatch):
    moved = tmp_path / "moved"
    original.rename(moved)
    shutil.rmtree(moved / "mlartifacts")
    monkeypatch.chdir(moved)
    with pytest.raises(InputError, match=f"the files of the runs were in {original}/mlartifacts; move that") as caught:
        open_store()
    subprocess.run(str(caught.value).split("`")[1], shell=True, check=True)
    connect()


def test_a_store_without_runs_follows_silently(own_store, tmp_path, monkeypatch):
    connect()
    (tmp_path / "new").mkdir()
    shutil.copy(own_store, tmp_path / "new")
    monkeypatch.chdir(tmp_path / "new")
    experiment = connect().get_experiment_by_name("mitoscope")
    assert experiment is not None
    assert experiment.artifact_location == (tmp_path / "new/mlartifacts").as_uri()


def test_an_experiment_whose_files_lie_elsewhere_on_purpose_stays(own_store, tmp_path):
    client = open_store()
    locations = ["s3://bucket/mlartifacts", (tmp_path / "disk/artifacts").as_uri()]
    for location in locations:
        client.create_experiment(location[-14:], location)
    found = {experiment.artifact_location for experiment in open_store().search_experiments()}
    assert {*locations} <= found


def test_a_store_that_the_environment_names_elsewhere_stays(original, tmp_path, monkeypatch):
    other = tmp_path / "other"
    (other / "mlartifacts").mkdir(parents=True)
    monkeypatch.chdir(other)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{original / 'mlflow.db'}")
    before = (original / "mlflow.db").read_bytes()
    with detector_file("models:/mitoscope@champion") as path:
        assert path.read_text() == "first"
    assert (original / "mlflow.db").read_bytes() == before


def test_an_experiment_of_dvc_in_a_copy_stays_with_the_project(original, monkeypatch):
    copy = original / ".dvc/tmp/exps/standalone/tmp1"
    copy.mkdir(parents=True)
    before = (original / "mlflow.db").read_bytes()
    monkeypatch.chdir(copy)
    with detector_file("models:/mitoscope@champion") as path:
        assert path.read_text() == "first"
    assert (original / "mlflow.db").read_bytes() == before and not any(copy.iterdir())


def test_a_broken_file_is_said_in_one_line(tmp_path, monkeypatch, no_mlflow_environment):
    monkeypatch.chdir(tmp_path)
    Path("mlflow.db").write_text("no database at all, however long it may be")
    with pytest.raises(InputError, match=r"mlflow.db: cannot be used as an MLflow store .*not a database"):
        open_store()
