"""A result appears whole or not at all."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mitoscope.errors import InputError
from mitoscope.files import atomic_folder, atomic_path, exclusive, read_json, write_json, write_text
from tests.programs import PROGRAMS


@pytest.fixture(scope="session")
def ended() -> int:
    """The id of a process that has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


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


@pytest.mark.parametrize("pid", ["ended", "alive"])
def test_a_half_file_of_a_killed_process_is_removed(tmp_path, ended, pid):
    half = tmp_path / f".result.{ended if pid == 'ended' else os.getppid()}.partial.json"
    half.write_text("half")
    (tmp_path / ".result.txt.partial.json").write_text("of the user")
    write_text(tmp_path / "result.json", "whole")
    assert half.exists() == (pid == "alive")
    assert (tmp_path / ".result.txt.partial.json").exists()


def test_text_and_json_read_back_equal(tmp_path):
    write_text(tmp_path / "text", "µm\n")
    assert (tmp_path / "text").read_text(encoding="utf-8") == "µm\n"
    content = {"f1": 0.5, "patients": ["01", "02"], "none": None}
    write_json(tmp_path / "results" / "metrics.json", content)
    assert json.loads((tmp_path / "results" / "metrics.json").read_text()) == content


def test_not_a_number_is_rejected_and_the_old_json_stays(tmp_path):
    target = tmp_path / "metrics.json"
    write_json(target, {"f1": 0.5})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(target, {"f1": float("nan")})
    assert json.loads(target.read_text()) == {"f1": 0.5} and names(tmp_path) == ["metrics.json"]


@pytest.mark.parametrize(
    ("content", "problem"), [(None, "no such file"), ("{", "is not a JSON file"), ("[1]", "is not a JSON object")]
)
def test_json_that_is_missing_or_damaged_gives_one_line_with_the_remedy(tmp_path, content, problem):
    path = tmp_path / "report.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=rf"report\.json: {problem}; run `dvc repro` first$"):
        read_json(path, "run `dvc repro` first")


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


def test_a_full_folder_is_rejected_before_any_work(tmp_path):
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


def test_a_file_in_the_place_of_the_folder_is_rejected(tmp_path):
    target = tmp_path / "data"
    target.write_text("a file")
    with pytest.raises(InputError, match="is a file, not a folder"), atomic_folder(target, replace=True):
        pytest.fail("the block must not run")
    assert target.read_text() == "a file" and names(tmp_path) == ["data"]


@pytest.mark.parametrize("interrupted", ["before", "after"])
@pytest.mark.parametrize("which", [1, 2])
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interrupt_at_a_rename_leaves_the_old_folder_or_the_new_one(
    tmp_path, monkeypatch, error, which, interrupted
):
    target = tmp_path / "data"
    target.mkdir()
    (target / "old").write_text("old")
    rename, calls = Path.rename, []

    def interrupt(path: Path, to: Path) -> Path:
        calls.append(path)
        if len(calls) != which:
            return rename(path, to)
        if interrupted == "after":
            rename(path, to)
        raise error

    with pytest.raises(error), atomic_folder(target, replace=True) as folder:
        (folder / "new").touch()
        monkeypatch.setattr(Path, "rename", interrupt)
    assert names(target) == (["new"] if (which, interrupted) == (2, "after") else ["old"])
    assert names(tmp_path) == ["data"]


@pytest.mark.parametrize("moment", ["in the block", "between the renames", "after them"])
def test_the_next_call_clears_up_after_a_killed_process(tmp_path, moment):
    target = tmp_path / "data"
    with atomic_folder(target) as folder:
        (folder / "old").touch()
    fatal = ["in the block", "between the renames", "after them"].index(moment)  # so many renames, then SIGKILL
    command = [sys.executable, PROGRAMS / "killed_replace.py", str(fatal)]
    assert subprocess.run(command, cwd=tmp_path, check=False).returncode == -9
    assert len(names(tmp_path)) == 2  # something was left
    with pytest.raises(InputError, match="not empty"), atomic_folder(target):
        pytest.fail("the block must not run")
    assert names(target) == (["new"] if moment == "after them" else ["old"])
    assert names(tmp_path) == ["data"]


@pytest.mark.parametrize("kind", ["", "old-"])
def test_what_a_running_process_writes_stays(tmp_path, kind):
    other = tmp_path / f".data.partial-{kind}{os.getpid()}-abcdefgh"
    (other / "data").mkdir(parents=True)
    with atomic_folder(tmp_path / "data") as folder:
        (folder / "new").touch()
    assert names(tmp_path) == [other.name, "data"]


def test_a_leftover_whose_process_id_was_given_to_a_younger_process_is_removed(tmp_path):
    left = tmp_path / f".data.partial-{os.getpid()}-abcdefgh"  # in a container the ids are the same at each start
    left.mkdir()
    os.utime(left, (time.time() - 1e6,) * 2)
    with atomic_folder(tmp_path / "data"):
        pass
    assert names(tmp_path) == ["data"]


def test_folders_of_other_targets_and_of_the_user_stay(tmp_path, ended):
    others = [f".data2.partial-{ended}-abcdefgh", ".data.partial-mine", f"data.partial-{ended}-abcdefgh"]
    for name in others:
        (tmp_path / name).mkdir()
    with atomic_folder(tmp_path / "data"):
        pass
    assert names(tmp_path) == sorted([*others, "data"])


def test_what_a_process_in_another_container_writes_stays_until_it_ends(tmp_path):
    """Its process id means nothing here, but its lock does."""
    program = (
        "import os, time, pathlib, mitoscope.files as files; os.getpid = lambda: 999999999\n"
        "with files.atomic_folder(pathlib.Path('data')): print('writing', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        (other,) = names(tmp_path)
        with atomic_folder(tmp_path / "data"):
            pass
        there = names(tmp_path)
        process.kill()
    assert other.startswith(".data.partial-999999999-") and there == [other, "data"]
    with atomic_folder(tmp_path / "data"):
        pass
    assert names(tmp_path) == ["data"]


@pytest.mark.parametrize("relative", [True, False])
def test_the_folder_behind_a_link_is_replaced_and_the_link_stays(tmp_path, relative):
    real = tmp_path / "disk" / "d"
    real.mkdir(parents=True)
    (real / "old").touch()
    link = tmp_path / "data"
    link.symlink_to(Path("disk/d") if relative else real)
    with pytest.raises(InputError, match=r"data: is not empty"), atomic_folder(link):
        pytest.fail("the block must not run")
    with atomic_folder(link, replace=True) as folder:
        assert folder.is_relative_to(tmp_path / "disk")  # there the rename is atomic
        (folder / "new").touch()
    assert link.is_symlink() and names(link) == names(real) == ["new"]
    assert names(tmp_path) == ["data", "disk"] and names(tmp_path / "disk") == ["d"]


@pytest.mark.parametrize("to", ["disk/d", "data"])
def test_a_link_to_nothing_is_one_line_that_names_it(tmp_path, to):
    link = tmp_path / "data"
    link.symlink_to(to)  # the second one leads to itself
    with pytest.raises(InputError, match=rf"data: is a link to {to}, which is not there"), atomic_folder(link):
        pytest.fail("the block must not run")
    assert names(tmp_path) == ["data"] and link.is_symlink()


def test_a_mount_point_is_rejected_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path).name == "data")
    (tmp_path / "data").mkdir()
    with pytest.raises(InputError, match="data: is a mount point"), atomic_folder(tmp_path / "data"):
        pytest.fail("the block must not run")
    assert names(tmp_path) == ["data"]


class TestExclusive:
    BUSY = "another training runs as process {pid}; stop it with `kill {pid}`"

    @pytest.fixture
    def holder(self, tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
        """A process that holds the lock until it is killed."""
        command = [sys.executable, PROGRAMS / "hold_lock.py"]
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()
        process.communicate()

    def test_a_second_process_is_told_which_one_holds_the_lock(self, tmp_path, holder):
        lock = tmp_path / "work/train.lock"
        for _ in range(2):  # the first asker has not spoilt it for the second
            with pytest.raises(InputError) as caught, exclusive(lock, self.BUSY):
                pytest.fail("the block must not run")
            said = f"{lock}: another training runs as process {holder.pid}; stop it with `kill {holder.pid}`"
            assert str(caught.value) == said

    def test_a_killed_holder_is_in_nobodys_way(self, tmp_path, holder):
        holder.kill()
        holder.wait()
        with exclusive(tmp_path / "work/train.lock", self.BUSY):
            assert (tmp_path / "work/train.lock.pid").read_text() == str(os.getpid())

    def test_it_can_be_held_again_also_after_an_error(self, tmp_path):
        lock = tmp_path / "work/train.lock"
        with pytest.raises(RuntimeError), exclusive(lock, self.BUSY):
            raise RuntimeError
        with exclusive(lock, self.BUSY):
            pass
        assert names(lock.parent) == ["train.lock"]
