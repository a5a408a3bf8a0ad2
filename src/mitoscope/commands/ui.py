"""Command `ui`: the MLflow UI on this project's runs."""

import os
import socket
import sys
from pathlib import Path

from mitoscope.errors import InputError
from mitoscope.progress import console
from mitoscope.tracking.store import EXPERIMENT, connect, how_to_restore, open_store, require_database, store
from mitoscope.tracking.views import share_view


def ui(host: str, port: int) -> None:
    """Become the MLflow server of the project's store; where the store is a server already, only say its address.

    Raises:
        InputError: this is no project's folder, the store cannot be opened, or the port is taken.
    """
    if not Path("params.yaml").exists():  # the first look at a new project makes its store; another folder gets none
        require_database("ui")
    place = store(Path())
    if line := how_to_restore(open_store(), EXPERIMENT):
        console.print(line)
        page = "#/experiments"
    else:
        page = share_view(connect())
    if place.artifacts is None:
        console.print(f"The runs are on a server: open {place.uri.rstrip('/')}/{page}")
        return
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")  # a dozen processes that nothing here uses
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
        try:
            probe.bind((host, port))
        except OSError as error:
            raise InputError(
                f"port {port} of {host} cannot be had ({error.strerror}); choose another with --port"
            ) from error
    os.environ["MLFLOW_BACKEND_STORE_URI"] = place.uri  # not as an argument: all users see those, password and all
    arguments = ["ui", "--host", host, "--port", str(port), "--workers", "1"]
    arguments += ["--artifacts-destination", str(place.artifacts)]
    console.print(f"MLflow UI on http://{host}:{port}/{page} (takes some seconds; Ctrl-C ends it)")
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "mlflow", *arguments])
