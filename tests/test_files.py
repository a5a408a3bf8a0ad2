"""A result appears whole or not at all."""

import json
from pathlib import Path

import pytest

from mitoscope.errors import InputError
from mitoscope.files import atomic_folder, atomic_path, write_json, write_text


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_when_it_is_whole(tmp_path):
    target = tmp_path / "new" / "figure.png"
    with atomic_path(target) as temporary:
        temporary.write_bytes(b"half")
        assert not target.exists() and temporary.parent == target.parent
        assert temporary.suffix == ".png"  # image writers choose the format by it
        temporary.write_bytes(b"whole")
    assert target.read_bytes() == b"whole"
    assert names(target.parent) == ["figure.png"]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    target = tmp_path / "result.json"
    target.write_text("old")
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old" and names(tmp_path) == ["result.json"]


def test_a_block_that_writes_nothing_fails_and_leaves_the_old_file(tmp_path):
    target = tmp_path / "result.json"
    target.write_text("old")
    with pytest.raises(FileNotFoundError), atomic_path(target):
        pass
    assert target.read_text() == "old" and names(tmp_path) == ["result.json"]


def test_text_and_json_read_back_equal(tmp_path):
    write_text(tmp_path / "text", "µm\n")
    assert (tmp_path / "text").read_text(encoding="utf-8") == "µm\n"
    content = {"f1": 0.5, "patients": ["01", "02"], "none": None}
    write_json(tmp_path / "results" / "metrics.json", content)
    assert json.loads((tmp_path / "results" / "metrics.json").read_text()) == content


def test_not_a_number_is_refused_and_the_old_json_stays(tmp_path):
    target = tmp_path / "metrics.json"
    write_json(target, {"f1": 0.5})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(target, {"f1": float("nan")})
    assert json.loads(target.read_text()) == {"f1": 0.5} and names(tmp_path) == ["metrics.json"]


@pytest.mark.parametrize("before", ["missing", "empty"])
def test_a_folder_appears_when_it_is_whole(tmp_path, before):
    target = tmp_path / "new" / "data"
    if before == "empty":
        target.mkdir(parents=True)
    with atomic_folder(target) as folder:
        (folder / "a").write_text("a")
        (folder / "b").write_text("b")
        assert not (target / "a").exists() and folder.parent == target.parent
    assert names(target) == ["a", "b"] and names(target.parent) == ["data"]
    assert target.stat().st_mode & 0o777 == 0o755  # others may read it, unlike a temporary folder


def test_a_full_folder_is_refused_before_any_work(tmp_path):
    target = tmp_path / "data"
    target.mkdir()
    (target / "old").touch()
    with pytest.raises(InputError, match=r"data: is not empty.*--replace"), atomic_folder(target):
        pytest.fail("the block must not run")
    assert names(target) == ["old"] and names(tmp_path) == ["data"]


def test_replacing_leaves_nothing_of_the_old_folder(tmp_path):
    target = tmp_path / "data"
    target.mkdir()
    (target / "old").touch()
    with atomic_folder(target, replace=True) as folder:
        (folder / "new").touch()
        assert names(target) == ["old"]
    assert names(target) == ["new"] and names(tmp_path) == ["data"]


@pytest.mark.parametrize("error", [InputError, KeyboardInterrupt])
def test_a_failed_replacement_leaves_the_old_folder(tmp_path, error):
    target = tmp_path / "data"
    target.mkdir()
    (target / "old").write_text("keep me")
    with pytest.raises(error), atomic_folder(target, replace=True) as folder:
        (folder / "half").touch()
        raise error
    assert (target / "old").read_text() == "keep me" and names(target) == ["old"] and names(tmp_path) == ["data"]


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    target = tmp_path / "data"
    target.write_text("a file")
    with pytest.raises(InputError, match="is a file, not a folder"), atomic_folder(target, replace=True):
        pytest.fail("the block must not run")
    assert target.read_text() == "a file" and names(tmp_path) == ["data"]
