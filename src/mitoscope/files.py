"""Read files, and write them atomically: write to a temporary path next to the target, then rename it."""

import errno
import fcntl
import glob
import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from mitoscope.errors import InputError, printable

_CLOCK_SECONDS = 5  # tolerance: start times of processes and times of files come from different clocks


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a temporary path in `target`'s folder; it replaces `target` when the block ends without an error.

    The data is synced to disk (fsync) before the rename, so a crash leaves either the old file or the new one. If the
    block raises, the temporary file is removed and `target` stays as it was. The temporary name keeps the suffix,
    because image writers choose the format by it. A killed process's temporary file is removed by the next process that
    writes the same target.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    for leftover in target.parent.glob(f".{glob.escape(target.stem)}.*.partial{glob.escape(target.suffix)}"):
        pid = leftover.name.removeprefix(f".{target.stem}.").split(".")[0]
        if pid.isdecimal() and _is_abandoned(leftover, int(pid)):
            leftover.unlink(missing_ok=True)
    temporary = target.with_name(f".{target.stem}.{os.getpid()}.partial{target.suffix}")
    try:
        with _naming(target):
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
    """Write `content` to `target` atomically, as indented JSON; NaN and infinity raise a ValueError."""
    write_text(target, json.dumps(content, indent=2, allow_nan=False) + "\n")


def require_regular(path: Path) -> None:
    """Check that a path is no pipe, socket or device: opening one would wait for ever.

    Raises:
        InputError: it is one.
        OSError: there is no such file.
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise InputError(f"{printable(str(path))}: is a pipe, a socket or a device; copy it to a file")


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """Read a JSON object from a file.

    Raises:
        InputError: the file is missing or damaged; the message ends with `remedy`.
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
        raise InputError(f"{path}: is not a JSON object; {remedy}")
    return content


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _naming(target: Path) -> Iterator[None]:
    """Add the name of `target` to the error of a full disk, which Python raises from a write without one."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) and not error.filename:
            error.filename = str(target)
        raise


@contextmanager
def atomic_folder(target: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield an empty folder next to `target`; it becomes `target` when the block ends without an error.

    If the block raises, the new folder is removed and `target` stays as it was. Leftovers of killed processes are
    removed first; old content that such a process had moved aside is moved back. If `target` is a link, the folder
    behind it is replaced and the link stays.

    Raises:
        InputError: `target` is a file, a mount point or a link to nothing, or it is not empty and `replace` is false.
    """
    real = _behind_links(target)
    if real.parent.is_dir():
        _clear_leftovers(real)
    if real.exists() and not real.is_dir():
        raise InputError(f"{target}: is a file, not a folder; choose another output folder")
    if real.is_dir() and any(real.iterdir()) and not replace:
        raise InputError(f"{target}: is not empty; choose another output folder, or replace it with --replace")
    if os.path.ismount(real):  # it cannot be renamed
        raise InputError(f"{target}: is a mount point and cannot be replaced as a whole; choose a folder in it")
    real.parent.mkdir(parents=True, exist_ok=True)
    temporary = _make_folder(real)
    temporary.chmod(0o755)
    lock = os.open(temporary, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks; the process's id in the name remains
            fcntl.flock(lock, fcntl.LOCK_SH)
        with _naming(target):
            yield temporary
        _replace_folder(real, temporary)
    finally:
        os.close(lock)
        shutil.rmtree(temporary, ignore_errors=True)


def _behind_links(target: Path) -> Path:
    """Return `target`, or the path behind it if it is a link."""
    if not target.is_symlink():
        return target
    if not target.exists():
        raise InputError(f"{target}: is a link to {target.readlink()}, which is not there; is its disk mounted?")
    return target.resolve()


def _make_folder(target: Path, kind: str = "") -> Path:
    """Create a folder next to `target`; its name contains this process's id."""
    return Path(tempfile.mkdtemp(prefix=f".{target.name}.partial-{kind}{os.getpid()}-", dir=target.parent))


def _replace_folder(target: Path, new: Path) -> None:
    """Rename `new` to `target`. After an error or a signal, `target` is either the old folder or the new one."""
    aside = _make_folder(target, "old-") / target.name
    try:
        if target.exists():
            target.rename(aside)
        new.rename(target)
    finally:
        if aside.exists() and not target.exists():
            aside.rename(target)  # if this fails, `_clear_leftovers` restores it later
        shutil.rmtree(aside.parent, ignore_errors=True)


def _clear_leftovers(target: Path) -> None:
    """Remove leftovers of killed processes next to `target`; restore the old content if `target` is missing."""
    name = re.compile(re.escape(f".{target.name}.partial-") + r"(old-)?(\d+)-\w+")
    for folder in target.parent.iterdir():
        match = name.fullmatch(folder.name)
        if not match or not _is_abandoned(folder, int(match[2])) or _is_locked(folder):
            continue
        if match[1] and not target.exists():  # killed between the two renames
            with suppress(FileNotFoundError):
                (folder / target.name).rename(target)
        shutil.rmtree(folder, ignore_errors=True)


def _is_locked(folder: Path) -> bool:
    """Whether a living process locks a temporary folder; in a container or on another host it has an id of its own."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # another process has removed it
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:  # else the file system has no locks
        return error.errno in (errno.EWOULDBLOCK, errno.EACCES)
    finally:
        os.close(handle)
    return False


def _is_abandoned(leftover: Path, pid: int) -> bool:
    """Whether the process that wrote `leftover` has ended; a newer process may have the same id."""
    import psutil  # rarely needed

    if not psutil.pid_exists(pid):
        return True
    try:
        process = psutil.Process(pid)
        zombie = process.status() == psutil.STATUS_ZOMBIE
        return bool(zombie or process.create_time() > leftover.stat().st_mtime + _CLOCK_SECONDS)
    except (psutil.Error, FileNotFoundError):  # no access to the process, or another process has removed `leftover`
        return False


@contextmanager
def exclusive(lock: Path, busy: str) -> Iterator[None]:
    """Hold a lock during the block; raise at once if another process holds it.

    A file next to the lock contains the holder's process id, so that the user can end that process.

    Args:
        lock: lock file; its folder is created.
        busy: message if another process holds the lock, with {pid} for that process's id.

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
