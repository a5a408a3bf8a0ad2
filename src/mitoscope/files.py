"""Results appear whole or not at all: write beside the target, then rename over it."""

import glob
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from mitoscope.errors import InputError

_CLOCK_SECONDS = 5  # a process's start and a file's time come from two clocks


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a temporary path in `target`'s folder; when the block ends well, it replaces `target`.

    The data is on the disk before the rename (fsync), so a crash leaves the old file or the new one, never a
    half. When the block raises, the temporary file is removed and `target` stays as it was. The temporary name
    keeps the suffix, because image writers choose the format by it. What a killed process left is removed by the next
    one that writes the same target.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    for leftover in target.parent.glob(f".{glob.escape(target.stem)}.*.partial{glob.escape(target.suffix)}"):
        pid = leftover.name.removeprefix(f".{target.stem}.").split(".")[0]
        if pid.isdecimal() and _is_abandoned(leftover, int(pid)):
            leftover.unlink(missing_ok=True)
    temporary = target.with_name(f".{target.stem}.{os.getpid()}.partial{target.suffix}")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(target: Path, text: str) -> None:
    """Write `text` to `target` atomically, as UTF-8."""
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(target: Path, content: Any) -> None:
    """Write `content` to `target` atomically, as indented JSON. Not-a-number is rejected (ValueError)."""
    write_text(target, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """Read a JSON object, as the stages leave them for each other.

    Raises:
        InputError: there is no such file, or it is damaged; its line ends with `remedy`.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; {remedy}") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); {remedy}") from error
    except ValueError as error:
        raise InputError(f"{path}: is not a JSON file; {remedy}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds no JSON object; {remedy}")
    return content


def hash_file(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def atomic_folder(target: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield an empty folder beside `target`; when the block ends well, it becomes `target`.

    When the block raises, the new folder is removed and `target` stays as it was. What a killed process left beside
    `target` is removed first, and old content that it had moved aside is put back.

    Raises:
        InputError: `target` holds something already and `replace` is false.
    """
    if target.parent.is_dir():
        _clear_leftovers(target)
    if target.exists() and not target.is_dir():
        raise InputError(f"{target}: is a file, not a folder; choose another output folder")
    if target.is_dir() and any(target.iterdir()) and not replace:
        raise InputError(
            f"{target}: is not empty; choose another folder or pass --replace to put the new one in its place"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = _make_folder(target)
    temporary.chmod(0o755)
    try:
        yield temporary
        _replace_folder(target, temporary)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _make_folder(target: Path, kind: str = "") -> Path:
    """A new folder beside `target` whose name says which process made it."""
    return Path(tempfile.mkdtemp(prefix=f".{target.name}.partial-{kind}{os.getpid()}-", dir=target.parent))


def _replace_folder(target: Path, new: Path) -> None:
    """Rename `new` to `target`. Whatever is raised on the way, by a signal too, `target` is the old one or the new."""
    aside = _make_folder(target, "old-") / target.name
    try:
        if target.exists():
            target.rename(aside)
        new.rename(target)
    finally:
        if aside.exists() and not target.exists():
            aside.rename(target)  # where even this fails, the old content stays in `aside`, for `_clear_leftovers`
        shutil.rmtree(aside.parent, ignore_errors=True)


def _clear_leftovers(target: Path) -> None:
    """Remove what killed processes left beside `target`; old content comes back where `target` is missing."""
    name = re.compile(re.escape(f".{target.name}.partial-") + r"(old-)?(\d+)-\w+")
    for folder in target.parent.iterdir():
        if not (match := name.fullmatch(folder.name)) or not _is_abandoned(folder, int(match[2])):
            continue
        if match[1] and not target.exists():  # killed between the two renames
            with suppress(FileNotFoundError):
                (folder / target.name).rename(target)
        shutil.rmtree(folder, ignore_errors=True)


def _is_abandoned(leftover: Path, pid: int) -> bool:
    """Whether the process that wrote `leftover` has ended; a younger one may have got its number since."""
    import psutil  # hardly ever needed

    if not psutil.pid_exists(pid):
        return True
    try:
        process = psutil.Process(pid)
        zombie = process.status() == psutil.STATUS_ZOMBIE
        return bool(zombie or process.create_time() > leftover.stat().st_mtime + _CLOCK_SECONDS)
    except (psutil.Error, FileNotFoundError):  # it cannot be asked, or another process has removed `leftover`
        return False


@contextmanager
def exclusive(lock: Path, busy: str) -> Iterator[None]:
    """Hold a lock for the time of the block; a second process does not wait.

    The holder's process id stands in a file beside the lock, so that people can end that process and no other.

    Args:
        lock: its file; the folder is made.
        busy: what to say where another process holds it, with {pid} for that process's id.

    Raises:
        InputError: another process holds it.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    holder = lock.with_name(f"{lock.name}.pid")
    held = FileLock(lock, timeout=0)
    try:
        held.acquire()
    except Timeout as error:
        pid = holder.read_text(encoding="utf-8") if holder.exists() else "unknown"
        raise InputError(f"{lock}: {busy.format(pid=pid)}") from error
    try:
        write_text(holder, str(os.getpid()))
        yield
    finally:
        holder.unlink(missing_ok=True)
        held.release()
