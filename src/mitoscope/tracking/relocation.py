"""Update the absolute paths in a project's own MLflow store after the project was copied or moved.

Otherwise a copy would write its runs' files into the original, and lose its models when the original is deleted.
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

# Table -> columns in which MLflow stores the location of a file.
_LOCATIONS = {
    "experiments": ("artifact_location",),
    "runs": ("artifact_uri",),
    "logged_models": ("artifact_location",),
    "model_versions": ("source", "storage_location"),
    "trace_tags": ("value",),
}


def follow_project(database: Path, artifacts: Path) -> None:
    """Make the paths in a project's own store point to its own `artifacts`, in one transaction.

    Nothing is written if they already do, or if the runs' files are in a folder with another name than `artifacts`,
    which someone has chosen on purpose.

    Args:
        database: SQLite file, which may not exist yet.
        artifacts: folder of the runs' files.

    Raises:
        InputError: the files were not copied; the message says where they are and how to copy them.
    """
    if not database.exists():
        return
    try:
        with closing(sqlite3.connect(database, timeout=60)) as connection, connection:
            columns = list(_columns(connection))
            for former in _former_folders(connection, columns, artifacts):
                # MLflow stores the files of its own experiment `Default` next to it, in `mlruns`.
                for name in (artifacts.name, "mlruns"):
                    _move(connection, columns, former.with_name(name), artifacts.with_name(name))
                console.print(f"{database}: the files of its runs are now read from {artifacts} instead of {former}")
    except sqlite3.Error as error:
        raise InputError(f"{database}: cannot be used as an MLflow store ({error})") from error


def _columns(connection: sqlite3.Connection) -> Iterator[tuple[str, str]]:
    """Yield the tables and columns of `_LOCATIONS` that this store has; older MLflow stores have fewer."""
    for table, names in _LOCATIONS.items():
        there = {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
        yield from ((table, name) for name in names if name in there)


def _former_folders(connection: sqlite3.Connection, columns: list[tuple[str, str]], artifacts: Path) -> list[Path]:
    """Return the folders of the experiments' files from before the project was copied or moved."""
    if ("experiments", "artifact_location") not in columns:
        return []
    locations = connection.execute("SELECT DISTINCT artifact_location FROM experiments")
    folders = {_local_path(location) for (location,) in locations}
    return sorted(folder for folder in folders if folder and folder.name == artifacts.name and folder != artifacts)


def _move(connection: sqlite3.Connection, columns: list[tuple[str, str]], old: Path, new: Path) -> None:
    """Replace the folder `old` with `new` in all columns.

    Raises:
        InputError: the files of the runs and models were not copied.
    """
    owners = [column for column in columns if column[0] in ("runs", "logged_models")]
    locations = [row[0] for table, name in owners for row in connection.execute(f"SELECT {name} FROM {table}")]
    paths = [path for path in map(_local_path, locations) if path and path.is_relative_to(old)]
    there, here = shlex.quote(str(old)), shlex.quote(str(new))
    if any(os.path.exists(path) and not (new / path.relative_to(old)).exists() for path in paths):  # noqa: PTH110 (False without permission)
        remedy = f"copy them with `cp -a {there}/. {here}`"
        raise InputError(f"{new}: the files of the runs are still in the other project, in {old}; {remedy}")
    if paths and not new.is_dir():
        remedy = f"move that folder here or, if it is lost, continue without it after `mkdir {here}`"
        raise InputError(f"{new}: the files of the runs were in {old}; {remedy}")
    for table, name in columns:
        # MLflow stores file:///... for a location that it was given, and a plain path for one that it chose.
        for before, after in ((old.as_uri(), new.as_uri()), (str(old), str(new))):
            connection.execute(
                f"UPDATE {table} SET {name} = ? || substr({name}, ?) WHERE {name} = ? OR substr({name}, 1, ?) = ?",
                (after, len(before) + 1, before, len(before) + 1, f"{before}/"),
            )


def _local_path(location: str | None) -> Path | None:
    """Return the local path of a location; None if it is on a server."""
    if location is None:
        return None
    parts = urlsplit(location)
    if parts.scheme == "file":
        return Path(url2pathname(parts.path))
    return Path(location) if location.startswith("/") else None
