"""Command `ui`: start the MLflow UI on this project's runs."""

import os
import sys
from pathlib import Path

from mitoscope.commands.listening import listen
from mitoscope.progress import console
from mitoscope.tracking.store import EXPERIMENT, connect, how_to_restore, open_store, require_database, store
from mitoscope.tracking.views import share_view


def ui(host: str, port: int) -> None:
    """Replace this process with an MLflow server; if the project's store is already on a server, print its address.

    Raises:
        InputError: this is not a project's folder, the store cannot be opened, or the port is not available.
    """
    if not Path("params.yaml").exists():  # in a new project the store is created, elsewhere not
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
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")  # avoids a dozen unused processes
    listen(host, port).close()  # the server would say it in many lines
    os.environ["MLFLOW_BACKEND_STORE_URI"] = place.uri  # not an argument: all users can see those, including a password
    arguments = ["ui", "--host", host, "--port", str(port), "--workers", "1"]
    arguments += ["--artifacts-destination", str(place.artifacts)]
    console.print(f"MLflow UI on http://{host}:{port}/{page} (takes some seconds to start; Ctrl-C stops it)")
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "mlflow", *arguments])
