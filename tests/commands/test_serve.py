"""`mitoscope serve` as a process: it follows the champion without losing a request, and ends politely."""

import json
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
from typer.testing import CliRunner

from mitoscope.cli import app
from mitoscope.commands import serve as command
from mitoscope.paths import Outputs
from mitoscope.tracking import registry
from tests.conftest import NETWORK, small_detector
from tests.results import leave_detector, read, run_of_training
from tests.servers import await_health, free_port

MODEL = "models:/mitoscope@champion"


def detect(url: str, image: Path) -> dict[str, Any]:
    with urllib.request.urlopen(f"{url}/detect", image.read_bytes(), timeout=60) as answer:
        content: dict[str, Any] = json.loads(answer.read())
        return content


@pytest.fixture
def champion(extracted: Path, mlflow_store: str, empty_registry: None) -> mlflow.MlflowClient:
    """The small project with two versions of a detector in the registry; the first is the champion."""
    leave_detector(run_of_training(), threshold=0.5)
    model_id = read(Outputs(NETWORK).detected)["model_id"]
    client = mlflow.MlflowClient()
    client.create_registered_model(registry.MODEL)
    for _ in range(2):
        client.create_model_version(registry.MODEL, f"models:/{model_id}", model_id=model_id)
    client.set_registered_model_alias(registry.MODEL, registry.CHAMPION, "1")
    return client


@pytest.fixture
def server(champion: mlflow.MlflowClient, tmp_path: Path) -> Iterator[tuple[str, "subprocess.Popen[bytes]", Path]]:
    """A service of the champion: its address, its process, and its log."""
    port, log = free_port(), tmp_path / "serve.log"
    words = ["-m", "mitoscope", "serve", "--port", str(port), "--look-every", "0.1"]
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
    image = Path("data/01_01.jpg")
    expected = small_detector(threshold=0.5).detect(read_pixels(image))
    versions: list[int] = []

    def ask() -> None:
        while not versions or versions[-1] == 1:
            answer = detect(url, image)  # any other status is an error
            assert answer["count"] == len(expected.points) > 0
            versions.append(answer["model"]["version"])

    askers = [threading.Thread(target=ask) for _ in range(4)]
    for asker in askers:
        asker.start()
    while len(versions) < 8:
        time.sleep(0.01)
    champion.set_registered_model_alias(registry.MODEL, registry.CHAMPION, "2")
    for asker in askers:
        asker.join(60)
    assert versions == sorted(versions) and set(versions) == {1, 2}

    # Stopped while a request is on its way: it is answered.
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as line:
        body = image.read_bytes()
        line.sendall(f"POST /detect HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode())
        line.sendall(body[:1000])
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        line.sendall(body[1000:])
        line.settimeout(60)
        assert line.recv(100).startswith(b"HTTP/1.1 200 OK")
    assert process.wait(60) == 0
    said = log.read_text()
    assert f"{MODEL} (version 1): threshold 0.500, trained on synthetic data; for research only" in said
    assert f"{MODEL}: version 2 is served now" in said
    assert said.endswith("stopped\n") and "Traceback" not in said


def read_pixels(image: Path) -> Any:
    from mitoscope.datasets.readers import read_image

    return read_image(image)


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
        monkeypatch.setenv(command.TOKEN, "short")
        assert "must have 16 or more" in self.line("--model", model, "--host", "0.0.0.0")

    def test_a_port_in_use_is_said(self, model):
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            port = str(other.getsockname()[1])
            assert f"port {port} of 127.0.0.1 is not available" in self.line("--model", model, "--port", port)

    def test_a_missing_model_is_said(self, tmp_path):
        assert "no such model file" in self.line("--model", str(tmp_path / "none.pt"), "--port", "0")

    @pytest.mark.slow
    def test_a_missing_champion_is_said(self, project, mlflow_store, empty_registry):
        assert "there is no champion; `mitoscope promote` chooses one" in self.line("--port", "0")

    def test_missing_packages_are_said_with_the_extra(self, model, monkeypatch):
        found = command.find_spec
        monkeypatch.setattr(command, "find_spec", lambda name: None if name == "multipart" else found(name))
        assert self.line("--model", model) == (
            "serve needs python-multipart; install the extra serve: pip install 'mitoscope[serve]'"
        )
