"""A service in this process, with a detector of chance, and images as a client sends them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from mitoscope import __version__
from mitoscope.datasets.readers import read_image
from mitoscope.detection.detector import Detector
from mitoscope.service.answers import Served
from mitoscope.service.app import Limits, create_app
from mitoscope.service.desk import Desk
from tests.conftest import small_detector
from tests.serving.conftest import Pixels, encoded

MOST_BYTES = 2_000_000
NAME = "models:/mitoscope@champion"


@pytest.fixture(scope="session")
def detector() -> Detector:
    """A network of chance that finds some of the candidates."""
    return small_detector(threshold=0.5)


@pytest.fixture(scope="session")
def image(raw: Path) -> Pixels:
    """A field of 400 x 400 px."""
    return read_image(raw / "01_01.jpg")


@dataclass
class Registry:
    """Where the service of a test gets its detectors.

    Attributes:
        detector: every version is this one.
        number: the version that has the alias.
        error: raised instead of an answer, if any.
        loaded: the versions that were loaded.
    """

    detector: Detector
    number: int = 1
    error: Exception | None = None
    loaded: list[int | None] = field(default_factory=list)

    def version(self) -> int:
        if self.error:
            raise self.error
        return self.number

    def load(self, version: int | None) -> Served:
        self.loaded.append(version)
        return Served.of(self.detector, name=NAME, version=version, sha256="0" * 64)


@pytest.fixture
def registry(detector: Detector) -> Registry:
    return Registry(detector)


@dataclass
class Service:
    """A running service.

    Attributes:
        client: sends it requests.
        desk: takes them.
        said: the lines of its log.
    """

    client: TestClient
    desk: Desk
    said: list[str]

    def ask(self, content: bytes, **options: Any) -> tuple[int, Any]:
        """Send a field; return the status and the answer."""
        response = self.client.post("/detect", content=content, **options)
        return response.status_code, response.json()


@contextmanager
def running(
    registry: Registry,
    *,
    token: str | None = None,
    hosts: tuple[str, ...] = ("testserver",),
    most_requests: int = 4,
    page: Path | None = None,
) -> Iterator[Service]:
    """A service that looks for another version all the time."""
    said: list[str] = []
    desk = Desk(registry, most_requests, said.append)
    limits = Limits(MOST_BYTES, token, hosts)
    with TestClient(create_app(desk, limits, version=__version__, look_every=0.01, page=page)) as client:
        yield Service(client, desk, said)


@pytest.fixture
def service(registry: Registry) -> Iterator[Service]:
    with running(registry) as found:
        yield found


@pytest.fixture(scope="session")
def sent(image: Pixels) -> Callable[..., bytes]:
    """Makes a file of the field, or of a part of it."""

    def make(kind: str = "PNG", *, rows: int = 400, **options: Any) -> bytes:
        return encoded(np.ascontiguousarray(image[:rows]), kind, **options)

    return make
