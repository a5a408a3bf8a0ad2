"""A project that was copied or moved: the paths in its own store follow it, because MLflow stores them absolute.

Otherwise the copy would write its runs' files into the original, and lose its models where someone deletes "the old
copy".
"""

import os
import shlex
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from mitoscope.errors import InputError
from mitoscope.progress import console

# Table -> columns in which MLflow stores where a file is.
_LOCATIONS = {
    "experiments": ("artifact_location",),
    "runs": ("artifact_uri",),
    "logged_models": ("artifact_location",),
    "model_versions": ("source", "storage_location"),
    "trace_tags": ("value",),
}


def follow_project(database: Path, artifacts: Path) -> None:
    """Make the paths in a project's own store those of its own `artifacts`, in one transaction.

    Nothing is written where they are so already, or where the runs' files were put elsewhere on purpose, under
    another name than that of `artifacts`.

    Args:
        database: the SQLite file; there may be none yet.
        artifacts: where the runs' files belong.

    Raises:
        InputError: the files did not come along; the line names where they are and how to bring them.
    """
    if not database.exists():
        return
    try:
        with closing(sqlite3.connect(database, timeout=60)) as connection, connection:
            columns = list(_columns(connection))
            for former in _former_folders(connection, columns, artifacts):
                # Beside it lies `mlruns`, where MLflow's own experiment `Default` has its files.
                for name in (artifacts.name, "mlruns"):
                    _move(connection, columns, former.with_name(name), artifacts.with_name(name))
                console.print(f"{database}: the files of its runs are now those in {artifacts}, no longer in {former}")
    except sqlite3.Error as error:
        raise InputError(f"{database}: is no MLflow store that can be read and written ({error})") from error


def _columns(connection: sqlite3.Connection) -> Iterator[tuple[str, str]]:
    """The tables and columns of `_LOCATIONS` that this store has; an older MLflow's has fewer."""
    for table, names in _LOCATIONS.items():
        there = {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
        yield from ((table, name) for name in names if name in there)


def _former_folders(connection: sqlite3.Connection, columns: list[tuple[str, str]], artifacts: Path) -> list[Path]:
    """Where the experiments' files lay while the project was elsewhere."""
    if ("experiments", "artifact_location") not in columns:
        return []
    locations = connection.execute("SELECT DISTINCT artifact_location FROM experiments")
    folders = {_local_path(location) for (location,) in locations}
    return sorted(folder for folder in folders if folder and folder.name == artifacts.name and folder != artifacts)


def _move(connection: sqlite3.Connection, columns: list[tuple[str, str]], old: Path, new: Path) -> None:
    """Replace the folder `old` by `new` in all columns.

    Raises:
        InputError: the files of the runs and models did not come along.
    """
    owners = [column for column in columns if column[0] in ("runs", "logged_models")]
    locations = [row[0] for table, name in owners for row in connection.execute(f"SELECT {name} FROM {table}")]
    paths = [path for path in map(_local_path, locations) if path and path.is_relative_to(old)]
    there, here = shlex.quote(str(old)), shlex.quote(str(new))
    if any(os.path.exists(path) and not (new / path.relative_to(old)).exists() for path in paths):  # noqa: PTH110 (False where it may not be looked at)
        remedy = f"copy them with `cp -a {there}/. {here}`"
        raise InputError(f"{new}: the files of the runs are in {old}, which is another project's; {remedy}")
    if paths and not new.is_dir():
        remedy = f"bring that folder here, or, where it is lost, go on without it after `mkdir {here}`"
        raise InputError(f"{new}: the files of the runs were in {old}; {remedy}")
    for table, name in columns:
        # MLflow writes file:///... for what it was told, and a plain path for what it chose itself.
        for before, after in ((old.as_uri(), new.as_uri()), (str(old), str(new))):
            connection.execute(
                f"UPDATE {table} SET {name} = ? || substr({name}, ?) WHERE {name} = ? OR substr({name}, 1, ?) = ?",
                (after, len(before) + 1, before, len(before) + 1, f"{before}/"),
            )


def _local_path(location: str | None) -> Path | None:
    """The path that a location names, None where it is on a server."""
    if location is None:
        return None
    parts = urlsplit(location)
    if parts.scheme == "file":
        return Path(url2pathname(parts.path))
    return Path(location) if location.startswith("/") else None
