"""The logged model takes what it should, refuses the rest in one line, and its server outlives all of it."""

import base64
import contextlib
import json
import os
import struct
import subprocess
import sys
import time
import tracemalloc
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import mlflow
import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch

from mitoscope.datasets.patches import is_sample, read_index, store_path
from mitoscope.learning.augment import crop
from mitoscope.learning.checkpoints import save_network
from mitoscope.learning.networks import build, start_state
from mitoscope.paths import PATCHES
from mitoscope.serving import pyfunc as serving
from mitoscope.tracking.runs import log_training, training_run
from mitoscope.tracking.store import connect
from tests.servers import await_health, free_port

SIZE = 32
Image = npt.NDArray[Any]


def png(image: Image) -> str:
    """An (H, W), (H, W, 3) RGB or (H, W, 4) image of any type as base64 of a PNG."""
    return base64.b64encode(cv2.imencode(".png", image)[1].tobytes()).decode()


def claiming(width: int, height: int) -> str:
    """A PNG of a few bytes that claims so many pixels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + header + pixels + chunk(b"IEND", b"")).decode()


NOISE = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3)).astype(np.uint8)
BAD = {
    "another size": (png(NOISE[:20]), "32 x 20 px, 8-bit RGB; expected 32 x 32 px, 8-bit RGB"),
    "16 bits": (png(NOISE.astype(np.uint16) * 256), "16-bit RGB; expected"),
    "grey": (png(NOISE[..., 0]), "8-bit grey; expected"),
    "alpha": (png(np.dstack([NOISE, NOISE[..., :1]])), "8-bit RGBA; expected"),
    "a bomb": (claiming(30000, 30000), "30000 x 30000 px, 8-bit RGB; expected"),
    "a JPEG": (base64.b64encode(cv2.imencode(".jpg", NOISE)[1].tobytes()).decode(), "not base64 of a PNG"),
    "cut off": (base64.b64encode(base64.b64decode(png(NOISE))[:40]).decode(), "a broken PNG"),
    "the header only": (base64.b64encode(base64.b64decode(png(NOISE))[:20]).decode(), "not base64 of a PNG"),
    "no base64": ("%%%", "not base64 of a PNG"),
    "no ASCII": ("ä", "not base64 of a PNG"),
    "no text at all": ("", "not base64 of a PNG"),
}


def test_a_patch_comes_back_as_it_was() -> None:
    np.testing.assert_array_equal(serving.decode(serving.encode(NOISE), SIZE), NOISE)


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_patch_is_refused(name: str) -> None:
    text, reason = BAD[name]
    with pytest.raises(ValueError, match=reason) as caught:
        serving.decode(text, SIZE)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [5, None, 0.5, ["a"], b"\xff"])
def test_what_is_no_text_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="not base64 of a PNG"):
        serving.decode(value, SIZE)


def test_a_bomb_is_never_unpacked() -> None:
    tracemalloc.start()
    started = time.perf_counter()
    with pytest.raises(ValueError):
        serving.decode(claiming(30000, 30000), SIZE)
    assert time.perf_counter() - started < 1
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()


def test_broken_files_are_refused_whatever_is_broken() -> None:
    whole = np.frombuffer(base64.b64decode(png(NOISE)), np.uint8)
    random = np.random.default_rng(0)
    for _ in range(300):
        broken = whole.copy()
        places = random.integers(0, len(whole), random.integers(1, 20))
        broken[places] = random.integers(0, 256, len(places))
        with contextlib.suppress(ValueError):  # where only pixels changed and no checksum is looked at, it is a patch
            assert serving.decode(base64.b64encode(broken.tobytes()).decode(), SIZE).shape == (SIZE, SIZE, 3)


@dataclass
class Served:
    """A server of the champion, a patch of the small project and what the network itself says of it."""

    url: str
    process: subprocess.Popen[bytes]
    patch: str
    probability: float

    def ask(self, body: bytes, content_type: str = "application/json") -> tuple[int, str]:
        """POST `body`; returns the status and the answer."""
        request = urllib.request.Request(f"{self.url}/invocations", body, {"Content-Type": content_type})
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def score(self, *patches: Any) -> tuple[int, Any]:
        """Send patches as the README does; returns the status and what the answer's JSON holds."""
        records = [{"patch": patch} for patch in patches]
        status, answer = self.ask(json.dumps({"dataframe_records": records}).encode())
        return status, json.loads(answer)


@pytest.fixture(scope="module")
def served(_extracted: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """`mlflow models serve` on a network that was logged as training does, registered as `mitoscope@champion`."""
    folder = tmp_path_factory.mktemp("served")
    state, _ = start_state("squeezenet1_1", None, seed=0)
    state["classifier.1.weight"] *= 30  # else all the answers of a network of chance are alike
    network = build({"arch": "squeezenet1_1", "patch_size": SIZE, "input_size": SIZE}, state).eval()
    index = read_index(_extracted / PATCHES)
    row = next(index[is_sample(index) & ~index.edge].itertuples())
    windows = np.load(store_path(_extracted / PATCHES, str(row.patient), str(row.field)), mmap_mode="r")
    patch = crop(torch.from_numpy(windows[row.record].copy()).permute(2, 0, 1)[None], 0, SIZE)
    with torch.inference_mode():
        probability = float(network(patch).softmax(dim=1)[0, 1])
    text = serving.encode(patch[0].permute(1, 2, 0).numpy())

    uri = f"sqlite:///{folder / 'mlflow.db'}"
    with pytest.MonkeyPatch.context() as patching, contextlib.chdir(folder):
        for name in ("MLFLOW_REGISTRY_URI", "MLFLOW_EXPERIMENT_ID", "MLFLOW_RUN_ID"):
            patching.setenv(name, "")
            patching.delenv(name)
        patching.setenv("MLFLOW_TRACKING_URI", uri)
        patching.setattr(sys, "path", list(sys.path))  # MLflow adds the model's own code to it
        client = connect()
        save_network(Path("best.pt"), network, threshold=0.5)
        with training_run("squeezenet1_1", Path("run_id"), {}, {}):
            model_id = log_training(
                model_code=Path(serving.__file__),
                network=Path("best.pt"),
                example=pd.DataFrame({serving.INPUT: [text]}),
                answer=pd.DataFrame({serving.PROBABILITY: [0.5], serving.MITOSIS: [True]}),
                requirements=["torch"],
                metrics={},
                last_checkpoint=Path("best.pt"),
                pictures=[],
            )
        client.create_registered_model("mitoscope")
        version = client.create_model_version("mitoscope", f"models:/{model_id}", model_id=model_id)
        client.set_registered_model_alias("mitoscope", "champion", version.version)
        mlflow.set_tracking_uri("")
        mlflow.set_registry_uri("")

        port = free_port()
        command = ["models", "serve", "-m", "models:/mitoscope@champion", "--env-manager", "local"]
        command += ["-h", "127.0.0.1", "-p", str(port), "--workers", "1"]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # it has its own code
        environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
        with Path("log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", *command], env=environment, stdout=log, stderr=log
            )
    served = Served(f"http://127.0.0.1:{port}", process, text, probability)
    try:
        await_health(served.url, process, folder / "log")
        yield served
    finally:
        process.terminate()
        process.wait(60)


@pytest.mark.slow
class TestServer:
    """Against a real server."""

    def test_a_patch_is_answered_as_the_network_does(self, served: Served) -> None:
        status, answer = served.score(served.patch)
        assert status == 200
        (row,) = answer["predictions"]
        assert row == {"probability": pytest.approx(served.probability, abs=1e-5), "mitosis": row["probability"] >= 0.5}

    def test_a_table_of_more_than_one_slice_keeps_its_order(self, served: Served) -> None:
        noise = serving.encode(NOISE)
        status, answer = served.score(*[served.patch] * 70, noise, *[served.patch] * 70)
        assert status == 200
        found = [row["probability"] for row in answer["predictions"]]
        expected = served.score(noise)[1]["predictions"][0]["probability"]
        assert abs(expected - served.probability) > 1e-3
        assert found == pytest.approx([served.probability] * 70 + [expected] + [served.probability] * 70, abs=1e-5)

    @pytest.mark.parametrize("name", BAD)
    def test_a_bad_patch_is_named_in_one_line(self, served: Served, name: str) -> None:
        text, reason = BAD[name]
        status, answer = served.score(served.patch, text)
        assert status == 400
        assert answer["message"].startswith("row 1 (the first is 0): patch is ")
        assert reason in answer["message"] and "mitoscope export-patches" in answer["message"]
        assert "\n" not in answer["message"] and "Traceback" not in str(answer)

    @pytest.mark.parametrize("value", [5, None, True, [1, 2], {"a": "b"}])
    def test_what_is_no_text_is_the_senders_fault(self, served: Served, value: Any) -> None:
        for row in ([value], [served.patch, value]):
            status, answer = served.score(*row)
            assert (status, "Traceback" in str(answer)) == (400, False), answer

    def test_an_empty_batch_gets_an_empty_answer(self, served: Served) -> None:
        for batch in ({"dataframe_split": {"columns": ["patch"], "data": []}}, {"inputs": {"patch": []}}):
            assert served.ask(json.dumps(batch).encode()) == (200, '{"predictions": []}')
        status, answer = served.score()  # without a row there is no column either
        assert status == 400 and "missing" in answer["message"] and "patch" in answer["message"]

    def test_other_columns_and_no_table_are_refused(self, served: Served) -> None:
        for body in ({"dataframe_records": [{"image": served.patch}]}, {}, [], 5, {"patch": served.patch}):
            status, answer = served.ask(json.dumps(body).encode())
            assert (status, "Traceback" in answer) == (400, False), answer

    @pytest.mark.parametrize("form", ["bytes", "text", "a patch", "CSV"])
    def test_ten_megabytes_of_garbage_are_refused(self, served: Served, form: str) -> None:
        garbage = np.random.default_rng(0).bytes(10_000_000)
        text = base64.b64encode(garbage)[:10_000_000]
        body = {"bytes": garbage, "text": text, "CSV": garbage}.get(form)
        if body is None:
            body = b'{"dataframe_records": [{"patch": "' + text + b'"}]}'
        status, answer = served.ask(body, "text/csv" if form == "CSV" else "application/json")
        assert status == 400
        if form == "a patch":
            assert len(answer) < 500

    def test_afterwards_it_still_serves(self, served: Served) -> None:
        self.test_a_patch_is_answered_as_the_network_does(served)
        assert served.process.poll() is None
