"""Results appear whole or not at all: write beside the target, then rename over it."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mitoscope.errors import InputError


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a temporary path in `target`'s folder; when the block ends well, it replaces `target`.

    The data is on the disk before the rename (fsync), so a crash leaves the old file or the new one, never a
    half. When the block raises, the temporary file is removed and `target` stays as it was. The temporary name
    keeps the suffix, because image writers choose the format by it.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
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
    """Write `content` to `target` atomically, as indented JSON. Not-a-number is refused (ValueError)."""
    write_text(target, json.dumps(content, indent=2, allow_nan=False) + "\n")


@contextmanager
def atomic_folder(target: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield an empty folder beside `target`; when the block ends well, it becomes `target`.

    When the block raises, the new folder is removed and `target` stays as it was.

    Raises:
        InputError: `target` holds something already and `replace` is false.
    """
    if target.exists() and not target.is_dir():
        raise InputError(f"{target}: is a file, not a folder; choose another output folder")
    if target.is_dir() and any(target.iterdir()) and not replace:
        raise InputError(
            f"{target}: is not empty; choose another folder or pass --replace to put the new one in its place"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.partial-", dir=target.parent))
    temporary.chmod(0o755)
    try:
        yield temporary
        if target.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{target.name}.partial-old-", dir=target.parent))
            target.rename(old / target.name)
            try:
                temporary.rename(target)
            except OSError:
                (old / target.name).rename(target)  # where even this fails, the old content stays in `old`
                old.rmdir()
                raise
            shutil.rmtree(old)
        else:
            temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
