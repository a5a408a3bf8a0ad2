"""A PostgreSQL server of a test's own: Debian's programs, an empty database, and nothing left of it afterwards."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest


def programs() -> Path | None:
    """Folder of PostgreSQL's programs, the newest where there are several, or None."""
    if (initdb := shutil.which("initdb")) is not None:
        return Path(initdb).parent
    folders = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    return max(folders, key=lambda folder: float(folder.parent.name), default=None)


@contextlib.contextmanager
def running_postgresql() -> Iterator[str]:
    """Start a server, and yield the URL of its only database; at the end the server and its files are gone.

    The server listens in a folder, not at a port: so no port can be taken, and no other user gets in. As root it
    runs as the user `postgres`, because PostgreSQL refuses root. Skips the test where PostgreSQL is
    not installed.
    """
    folder_of_programs = programs()
    if folder_of_programs is None:
        pytest.skip("PostgreSQL is not installed (on Debian: apt install postgresql)")
    user = "postgres" if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="postgresql-"))
    if user is not None:
        shutil.chown(folder, user)
    data, log = folder / "data", folder / "log"

    def start(program: str, *arguments: str) -> subprocess.Popen[bytes]:
        command = [str(folder_of_programs / program), "-D", str(data), *arguments]
        with log.open("ab") as output:
            return subprocess.Popen(command, user=user, cwd=folder, stdout=output, stderr=output)

    try:
        assert start("initdb", "-U", "tests", "--auth=trust", "--no-sync", "--no-locale", "-E", "UTF8").wait(120) == 0
        settings = ("listen_addresses=", f"unix_socket_directories={folder}", "fsync=off", "max_connections=50")
        server = start("postgres", *(part for setting in settings for part in ("-c", setting)))
        try:
            _await(server, f"dbname=postgres user=tests host={folder}", log)
            yield f"postgresql://tests@/postgres?host={folder}"
        finally:
            server.send_signal(signal.SIGINT)  # ends it although clients are connected
            server.wait(60)
    finally:
        shutil.rmtree(folder)


def _await(server: "subprocess.Popen[bytes]", database: str, log: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            psycopg.connect(database).close()
            return
        except psycopg.OperationalError:
            assert server.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
