"""A copy of the project in which DVC can run while the project itself stays as it is."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mitoscope.errors import InputError
from mitoscope.paths import WORK

_DVC = (sys.executable, "-m", "dvc")
_COPIES = Path(".dvc/tmp")  # git and DVC ignore it, and tracking.runs finds the project's store from there


def require_commit() -> None:
    """Make sure that there is a commit, to which DVC's experiments belong.

    Raises:
        InputError: the working directory is no git repository, or has no commit.
    """
    found = subprocess.run(["git", "rev-parse", "--verify", "HEAD"], capture_output=True, check=False)
    if found.returncode or not Path(".git").exists():
        raise InputError(
            "crossvalidate needs the project's folder to be a git repository with a commit: "
            "`git init`, `git add --all`, `git commit`"
        )


@contextmanager
def copy_of_project(weights: str, name: str) -> Iterator[Path]:
    """Yield a copy of the project as it is now, changes that are not committed included; removed at the end.

    `dvc exp run --temp` makes such a copy too. But to make it, it puts the committed files into the project for some
    seconds, in which a kill takes the user's changes away, and without .work a killed training begins anew.

    Args:
        weights: the entry of params.yaml, which may be a file that git does not know.
        name: of the copy.

    Raises:
        InputError: data/ is not what data.dvc says, so that the copy would get other data from DVC's cache; or
            `weights` is a relative path that leads out of the project.
    """
    if ".." in Path(weights).parts and not Path(weights).is_absolute():
        raise InputError(f"params.yaml: weights: {weights}: lies outside the project; give its absolute path")
    if run_dvc(Path(), "status", "--quiet", "data.dvc"):
        raise InputError("data: is not what data.dvc says; run `dvc add data` (or `dvc pull data.dvc`) first")
    folder = _COPIES / name
    shutil.rmtree(folder, ignore_errors=True)  # a killed predecessor's
    try:
        _git("clone", "--quiet", "--shared", "--no-checkout", ".", str(folder))
        new = _git("ls-files", "-z", "--others", "--exclude-standard", "--", "src", "*.yaml", "*.dvc", "dvc.lock")
        for file in filter(None, (_git("ls-files", "-z") + new).split("\0")):
            if Path(file).is_file():  # else it was deleted
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(file, folder / file)
        _git("-C", str(folder), "reset", "--quiet")  # the files are there already: only git's index is to be made
        cache = subprocess.run([*_DVC, "cache", "dir"], capture_output=True, text=True, check=True).stdout.strip()
        (folder / ".dvc/config.local").write_text(f"[cache]\n    dir = {Path(cache).resolve()}\n", encoding="utf-8")
        (folder / WORK).symlink_to(WORK.resolve())
        if Path(weights).is_file() and not Path(weights).is_absolute() and not (folder / weights).exists():
            (folder / weights).parent.mkdir(parents=True, exist_ok=True)
            (folder / weights).symlink_to(Path(weights).resolve())
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run_dvc(folder: Path, *arguments: str) -> int:
    """Run DVC in `folder`, with the code in `folder`; returns its exit code.

    An interrupt goes to DVC's whole process group and is waited for: DVC alone would leave the training running.
    """
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(filter(None, (str(folder.resolve() / "src"), os.environ.get("PYTHONPATH")))),
    }
    # A script's background job ignores interrupts, and what it starts would too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        [*_DVC, *arguments], cwd=folder, env=environment, stdin=subprocess.DEVNULL, start_new_session=True
    )
    try:
        return process.wait()
    except KeyboardInterrupt:
        os.killpg(process.pid, signal.SIGINT)
        process.wait()
        raise


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"git {arguments[0]} failed: {' '.join(done.stderr.split())}")
    return done.stdout
