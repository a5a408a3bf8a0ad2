"""A copy has the project's code, settings and data as they are now, and is gone afterwards. DVC is the real one."""

import sys
from pathlib import Path

import pytest

from mitoscope.commands.crossvalidate import OUT, crossvalidate
from mitoscope.commands.project_copy import copy_of_project, require_commit, run_dvc
from mitoscope.errors import InputError
from mitoscope.params import read_params
from tests.commands.conftest import git
from tests.conftest import NETWORK


@pytest.fixture
def versioned(repository: Path) -> Path:
    """The repository with its dataset in DVC, and in DVC's cache."""
    Path("data.dvc").unlink()
    assert run_dvc(Path(), "add", "--quiet", "data") == 0
    git("add", "data.dvc")
    return repository


def test_a_copy_has_what_was_not_committed(versioned):
    Path("dvc.yaml").write_text("stages: {}\n")  # new
    Path("src").mkdir()
    Path("src/new.py").touch()
    Path("notes.txt").touch()  # no part of the pipeline
    Path(".work").mkdir()
    before = git("status", "--porcelain")
    with copy_of_project("random", "copy") as copy:
        assert read_params(copy / "params.yaml").evaluate.bootstrap == 123  # as in the folder, not as committed
        assert (copy / "data.dvc").read_text() == Path("data.dvc").read_text()
        assert (copy / "dvc.yaml").exists() and (copy / "src/new.py").exists() and not (copy / "notes.txt").exists()
        assert git("-C", str(copy), "rev-parse", "HEAD") == git("rev-parse", "HEAD")
        assert run_dvc(copy, "checkout", "--quiet", "data.dvc") == 0  # from the project's cache
        assert (copy / "data/01_01.jpg").read_bytes() == Path("data/01_01.jpg").read_bytes()
        (copy / ".work/last.pt").touch()
        (copy / "params.yaml").write_text("nothing")
    assert not copy.exists()
    assert Path(".work/last.pt").exists()  # where the next copy finds it
    assert git("status", "--porcelain") == before
    assert read_params().evaluate.bootstrap == 123


def test_a_file_that_was_deleted_is_not_in_the_copy(versioned):
    Path("src").mkdir()
    Path("src/old.py").touch()
    git("add", "src")
    git("commit", "--quiet", "--message", "old")
    Path("src/old.py").unlink()
    with copy_of_project("random", "copy") as copy:
        assert not (copy / "src/old.py").exists()


def test_a_copy_goes_whatever_happens_in_it_and_a_killed_predecessors_too(versioned):
    left = Path(".dvc/tmp/copy/left")
    left.mkdir(parents=True)
    with pytest.raises(KeyboardInterrupt), copy_of_project("random", "copy") as copy:
        assert not left.exists()
        raise KeyboardInterrupt
    assert not copy.exists()


def test_start_weights_that_git_does_not_know_are_in_the_copy(versioned):
    Path("models").mkdir()
    Path("models/start.pth").touch()
    with copy_of_project("models/start.pth", "copy") as copy:
        assert (copy / "models/start.pth").samefile("models/start.pth")
    assert Path("models/start.pth").exists()


def test_start_weights_outside_the_project_need_an_absolute_path(repository):
    with (
        pytest.raises(InputError, match=r"weights: \.\./start\.pth: lies outside the project; give its absolute path"),
        copy_of_project("../start.pth", "copy"),
    ):
        pass


def test_data_that_are_not_what_dvc_knows_are_refused(versioned):
    annotations = Path("data/01_01.csv")
    annotations.write_text(annotations.read_text() + "7,7\n")
    with pytest.raises(InputError, match=r"data: is not what data\.dvc says; run `dvc add data`"):
        crossvalidate(NETWORK)
    assert not OUT.exists()


def test_dvc_runs_the_code_of_its_folder(versioned):
    """A stage in the copy imports the copy's modules, whatever is installed."""
    Path("src").mkdir()
    Path("src/told.py").write_text("print('the copy')")
    Path("dvc.yaml").write_text(f"stages: {{one: {{cmd: {sys.executable} -m told > said.txt, outs: [said.txt]}}}}\n")
    with copy_of_project("random", "copy") as copy:
        (copy / "src/told.py").write_text("print('changed in the copy')")
        assert run_dvc(copy, "repro", "--quiet") == 0
        assert (copy / "said.txt").read_text() == "changed in the copy\n"
        assert run_dvc(copy, "repro", "--quiet", "no-such-stage") != 0


def test_a_folder_of_another_repository_is_no_project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    git("init", "--quiet")
    git("commit", "--quiet", "--allow-empty", "--message", "another")
    require_commit()
    Path("folder").mkdir()
    monkeypatch.chdir("folder")
    with pytest.raises(InputError, match="a git repository with a commit: `git init`"):
        require_commit()
