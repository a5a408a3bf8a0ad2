"""`mitoscope serve` as a process: it follows the champion without losing a request, and ends politely."""

import json
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
import pytest
from typer.testing import CliRunner

from mitoscope import errors
from mitoscope.cli import app
from mitoscope.commands import serve as command
from mitoscope.datasets.readers import read_image
from mitoscope.errors import InputError
from mitoscope.paths import Outputs
from mitoscope.tracking import registry
from tests.conftest import NETWORK, small_detector
from tests.results import leave_detector, read, run_of_training
from tests.servers import await_health, free_port

MODEL = "models:/mitoscope@champion"
THRESHOLDS = {1: 0.5, 2: 0.0}  # by version


def detect(url: str, image: Path) -> dict[str, Any]:
    with urllib.request.urlopen(f"{url}/detect", image.read_bytes(), timeout=60) as answer:
        content: dict[str, Any] = json.loads(answer.read())
        return content


@contextmanager
def sending(url: str, body: bytes) -> Iterator[socket.socket]:
    """A connection on which this body is announced."""
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=60) as line:
        head = "POST /detect HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        line.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode())
        yield line


@pytest.fixture
def champion(extracted: Path, mlflow_store: str, empty_registry: None) -> mlflow.MlflowClient:
    """The small project with two detectors in the registry, whose thresholds differ; the first is the champion."""
    client = mlflow.MlflowClient()
    client.create_registered_model(registry.MODEL)
    for threshold in THRESHOLDS.values():
        leave_detector(run_of_training(), threshold=threshold)
        model_id = read(Outputs(NETWORK).detected)["model_id"]
        client.create_model_version(registry.MODEL, f"models:/{model_id}", model_id=model_id)
    client.set_registered_model_alias(registry.MODEL, registry.CHAMPION, "1")
    return client


@pytest.fixture
def server(champion: mlflow.MlflowClient, tmp_path: Path) -> Iterator[tuple[str, "subprocess.Popen[bytes]", Path]]:
    """A service of the champion: its address, its process, and its log."""
    port, log = free_port(), tmp_path / "serve.log"
    (tmp_path / "page/detector").mkdir(parents=True)
    (tmp_path / "page/index.html").write_text("The page")
    (tmp_path / "page/detector/detector.json").write_text('{"detector_sha256": "of another"}')
    words = ["-m", "mitoscope", "serve", "--port", str(port), "--look-every", "0.1", "--most-mb", "1", "--page", "page"]
    with log.open("wb") as output:
        process = subprocess.Popen([sys.executable, *words], stdout=output, stderr=output)
    try:
        await_health(f"http://127.0.0.1:{port}", process, log)
        yield f"http://127.0.0.1:{port}", process, log
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_the_champion_is_followed_without_a_lost_request_and_the_end_is_polite(champion, server):
    url, process, log = server
    image, expected = Path("data/01_01.jpg"), {}
    for version, threshold in THRESHOLDS.items():
        expected[version] = len(small_detector(threshold=threshold).detect(read_image(image)).points)
    assert 0 < expected[1] < expected[2]
    with urllib.request.urlopen(url) as page:
        assert page.read() == b"The page"

    def ask(_: int) -> int:
        """Ask until the second version answers; any status but 200 is an error. Returns the answers of the first."""
        before = 0
        while True:
            answer = detect(url, image)
            version: int = answer["model"]["version"]
            assert answer["count"] == expected[version]
            if version == 2:
                assert detect(url, image)["model"]["version"] == 2
                return before
            if (before := before + 1) == 3:
                champion.set_registered_model_alias(registry.MODEL, registry.CHAMPION, "2")

    with ThreadPoolExecutor(4) as askers:
        assert sum(askers.map(ask, range(4))) >= 3

    # Who still sends too much is told so.
    with sending(url, image.read_bytes() * 200) as line:
        line.sendall(image.read_bytes() * 200)
        assert line.recv(100).startswith(b"HTTP/1.1 413 ")

    # Stopped while a request is on its way: it is answered.
    body = image.read_bytes()
    with sending(url, body) as line:
        line.sendall(body[:1000])
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        line.sendall(body[1000:])
        assert line.recv(100).startswith(b"HTTP/1.1 200 OK")
    assert process.wait(60) == 0
    said = log.read_text()
    assert f"{MODEL} (version 1): threshold 0.500, trained on synthetic data; for research only" in said
    assert f"warning: page: has another detector than {MODEL}; `mitoscope page` makes a new one" in said
    assert re.search(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d version 2 is served now$", said, re.MULTILINE)
    assert said.endswith("stopped\n") and "Traceback" not in said


def test_another_database_in_the_place_of_the_first_is_said(no_mlflow_environment, monkeypatch, tmp_path):
    (database := tmp_path / "mlflow.db").touch()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{database}")
    source = command.FromAlias(registry.CHAMPION)
    (tmp_path / "other.db").touch()
    (tmp_path / "other.db").rename(database)
    with pytest.raises(InputError, match=r"mlflow\.db: was replaced or removed; start the service again"):
        source.version()


class TestRejections:
    @staticmethod
    def line(*options: str) -> str:
        """What the command says in the place of a service."""
        result = CliRunner().invoke(app, ["serve", *options])
        assert result.exception is not None and "\n" not in str(result.exception)
        return str(result.exception)

    @pytest.fixture
    def model(self, tmp_path: Path) -> str:
        small_detector().save(tmp_path / "detector.pt")
        return str(tmp_path / "detector.pt")

    def test_other_machines_need_a_token(self, model, monkeypatch):
        monkeypatch.delenv(command.TOKEN, raising=False)
        assert "requests need a token; set MITOSCOPE_TOKEN" in self.line("--model", model, "--host", "0.0.0.0")
        assert "no such model file" in self.line("--model", "none.pt", "--host", "127.0.0.2", "--port", "0")
        for token in ("short", "a" * 16 + " "):
            monkeypatch.setenv(command.TOKEN, token)
            assert "must have 16 or more" in self.line("--model", model, "--host", "0.0.0.0")

    def test_a_port_in_use_is_said(self, model):
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            port = str(other.getsockname()[1])
            line = self.line("--model", model, "--port", port)
            assert f"port {port} of 127.0.0.1 is not available" in line and line.endswith("another with --port")

    def test_an_address_of_another_machine_is_said(self, model, monkeypatch):
        monkeypatch.setenv(command.TOKEN, "a" * 16)
        assert self.line("--model", model, "--host", "192.0.2.1", "--port", "0").endswith("another with --host")

    def test_outside_a_project_no_store_is_made(self, tmp_path, monkeypatch, no_mlflow_environment):
        monkeypatch.chdir(tmp_path)
        assert "there is no MLflow store" in self.line("--port", "0")
        assert not list(tmp_path.iterdir())

    def test_a_folder_without_a_page_is_said(self, model, tmp_path):
        line = self.line("--model", model, "--page", str(tmp_path))
        assert line.endswith("has no index.html of a page; give the folder that `mitoscope page` wrote")

    def test_a_missing_model_is_said(self, tmp_path):
        assert "no such model file" in self.line("--model", str(tmp_path / "none.pt"), "--port", "0")

    @pytest.mark.slow
    def test_a_missing_champion_is_said(self, project, mlflow_store, empty_registry):
        assert "there is no champion; `mitoscope promote` chooses one" in self.line("--port", "0")

    def test_missing_packages_are_said_with_the_extra(self, model, monkeypatch):
        found = errors.find_spec
        monkeypatch.setattr(errors, "find_spec", lambda name: None if name == "multipart" else found(name))
        assert self.line("--model", model) == ("serve needs the package multipart: install the extra mitoscope[serve]")
