"""Command `serve`: answer fields over HTTP with a detector, and follow the champion."""

import os
import re
from datetime import datetime
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from mitoscope import __version__
from mitoscope.commands.listening import listen
from mitoscope.commands.page import read_page
from mitoscope.errors import InputError, require_packages
from mitoscope.files import hash_file
from mitoscope.progress import console
from mitoscope.tracking.models import detector_file
from mitoscope.tracking.registry import MODEL, find_alias, no_version
from mitoscope.tracking.store import require_database, store, telling

if TYPE_CHECKING:
    from mitoscope.service.answers import Served

TOKEN = "MITOSCOPE_TOKEN"
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_SHORTEST_TOKEN = 16
_LAST_SECONDS = 60  # for the requests that are there when the service is stopped


def serve(
    model: str, *, host: str, port: int, most_mb: int, most_requests: int, look_every: float, page: Path | None
) -> None:
    """Serve a detector until the process gets SIGTERM or Ctrl-C; requests that are there then are answered first.

    Args:
        model: a file detector.pt, `runs:/<run>/detector` or `models:/<name>@<alias>`, which is followed when it moves.
        host: address to listen on.
        port: port to listen on.
        most_mb: size of a request, MB.
        most_requests: how many are taken at once.
        look_every: seconds after which to look whether the alias has moved.
        page: folder that `mitoscope page` wrote, to show at `/`; None = no page.

    Raises:
        InputError: the detector does not exist, a package is missing, the port is taken, `page` is no page, or others
            than this machine are served without a token.
    """
    require_packages("serve", "serve", "fastapi_offline", "multipart", "prometheus_client", "uvicorn")
    token = _token(host)
    shown_detector = page and read_page(page)["detector_sha256"]
    listener = listen(host, port)
    console.print(f"loading {model}", markup=False)
    import uvicorn

    from mitoscope.service.app import Limits, create_app
    from mitoscope.service.desk import Desk

    alias = model.removeprefix(f"models:/{MODEL}@")
    follows = alias != model
    if follows:
        require_database(model)
    source = FromAlias(alias) if follows else FromName(model)
    desk = Desk(source, most_requests, lambda line: console.print(f"{datetime.now():%F %T} {line}", markup=False))
    served = desk.served().model
    note = ", trained on synthetic data" if served.synthetic else ""
    which = f"{model} (version {served.version})" if served.version else model
    console.print(f"{which}: threshold {served.threshold:.3f}{note}; for research only", markup=False)
    if shown_detector and shown_detector != served.detector_sha256:
        line = f"warning: {page}: has another detector than {model}; `mitoscope page` makes a new one"
        console.print(line, style="yellow", markup=False)
    limits = Limits(most_mb * 1_000_000, token, (*_LOOPBACK, host.lower()))
    app = create_app(desk, limits, version=__version__, look_every=look_every if follows else None, page=page)
    shown = f"[{host}]" if ":" in host else host
    console.print(f"serving on http://{shown}:{listener.getsockname()[1]} (Ctrl-C stops it)", markup=False)
    settings = uvicorn.Config(app, log_level="warning", server_header=False, timeout_graceful_shutdown=_LAST_SECONDS)
    try:
        uvicorn.Server(settings).run(sockets=[listener])
    except KeyboardInterrupt:  # uvicorn raises it again when it has stopped
        console.print("stopped")


class FromName:
    """A detector that never changes.

    Args:
        model: a file or the name of a run.
    """

    def __init__(self, model: str) -> None:
        self._model = model

    def version(self) -> None:
        """Return None."""

    def load(self, version: int | None) -> "Served":
        """Load the detector."""
        return _load(self._model, self._model, version)


class FromAlias:
    """The version of the registry that has an alias.

    Args:
        alias: the alias.
    """

    def __init__(self, alias: str) -> None:
        self._alias = alias
        self._database = _identity(store(Path()).database)

    def version(self) -> int:
        """Return the number of the version."""
        place = store(Path())
        if _identity(place.database) != self._database:  # what is open is still the former file
            raise InputError(f"{place}: was replaced or removed; start the service again")
        import mlflow
        from sqlalchemy.exc import SQLAlchemyError

        from mitoscope.service.desk import NoVersionError

        with telling("MLflow failed ({})", place, mlflow.MlflowException, SQLAlchemyError):
            version = find_alias(self._alias)
        if version is None:
            raise NoVersionError(no_version(self._alias))
        return version.number

    def load(self, version: int | None) -> "Served":
        """Load a version."""
        return _load(f"models:/{MODEL}/{version}", f"models:/{MODEL}@{self._alias}", version)


def _identity(path: Path | None) -> tuple[int, int] | None:
    """Return what tells a file from another one in its place; None if there is none."""
    if path is None or not path.exists():
        return None
    status = path.stat()
    return status.st_dev, status.st_ino


def _load(model: str, name: str, version: int | None) -> "Served":
    """Load the detector `model`, which the answers call `name`, onto this process's device."""
    from mitoscope.detection.detector import Detector
    from mitoscope.learning.devices import join
    from mitoscope.service.answers import Served

    with detector_file(model) as file, join(keep_memory=False) as device:
        return Served.of(Detector.load(file).to(device.torch), name=name, version=version, sha256=hash_file(file))


def _token(host: str) -> str | None:
    """Return the token that requests must carry; None on this machine, unless the variable gives one.

    Raises:
        InputError: others are served without a token, or it is easy to guess.
    """
    token = os.environ.get(TOKEN, "")
    if not token and not _is_loopback(host):
        raise InputError(
            f"{host}: other machines can reach this address, so requests need a token; set {TOKEN}, for example to "
            "what `openssl rand -hex 16` prints"
        )
    if token and not re.fullmatch(rf"[!-~]{{{_SHORTEST_TOKEN},}}", token):
        raise InputError(f"{TOKEN}: must have {_SHORTEST_TOKEN} or more letters, digits and signs, without spaces")
    return token or None


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() in _LOOPBACK
