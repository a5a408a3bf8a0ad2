"""The logged model answers as the detector does, and its server outlives whatever is sent."""

import base64
import json
import os
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml
from mlflow.models import validate_serving_input

import mitoscope
from mitoscope.learning.batches import Windows
from mitoscope.serving.model import warn_of_other_code
from mitoscope.serving.rows import encode_patch
from tests.servers import await_health, free_port
from tests.serving.conftest import NOISE, Logged, Pixels, claiming, expected_answer, post, text

pytestmark = pytest.mark.slow


class TestLogged:
    """The model as MLflow loads it, in this process."""

    @pytest.mark.parametrize("kind", ["PNG", "TIFF"])
    def test_a_field_is_answered_as_detect_does(self, served, detector, image, kind):
        expected = expected_answer(detector, image)
        assert len(expected["mitoses"]) > 1
        assert served.predict(pd.DataFrame({"field": [text(image, kind)]})) == [expected]
        status, answer = post(served, {"dataframe_records": [{"field": text(image, kind), "microns_per_pixel": 0.3}]})
        assert (status, answer) == (200, {"predictions": [expected_answer(detector, image, 0.3)]})

    def test_a_patch_is_answered_as_classify_does(self, served, detector):
        (expected,) = detector.classify(Windows.of(NOISE[None])).tolist()
        assert served.predict(pd.DataFrame({"patch": [encode_patch(NOISE)]})) == [
            {"probability": expected, "mitosis": expected >= 0.502}
        ]

    @pytest.mark.parametrize("form", ["records", "split"])
    def test_both_mix_in_one_table(self, served, detector, image, form):
        few = image[:200, :200]
        rows = [{"patch": encode_patch(NOISE)}, {"field": text(few, "PNG"), "microns_per_pixel": 1}]
        columns = ["field", "microns_per_pixel", "patch"]
        body = {
            "records": {"dataframe_records": rows},
            "split": {
                "dataframe_split": {"columns": columns, "data": [[row.get(name) for name in columns] for row in rows]}
            },
        }[form]
        status, answer = post(served, body)
        assert status == 200, answer
        patch, field = answer["predictions"]
        assert set(patch) == {"probability", "mitosis"}
        assert field == expected_answer(detector, few, 1.0)

    def test_the_example_of_mlflow_works(self, logged):
        payload = (logged.folder / "serving_input_example.json").read_text()
        (row,) = validate_serving_input(str(logged.folder), payload)
        assert set(row) == {"probability", "mitosis"}

    def test_nothing_in_it_is_pickled(self, logged):
        names = {path.name for path in logged.folder.rglob("*")}
        assert {"model.py", "detector.pt", "answers.py"} <= names
        assert not [name for name in names if name.endswith((".pkl", ".pickle", ".joblib"))]
        flavor = yaml.safe_load((logged.folder / "MLmodel").read_text())["flavors"]["python_function"]
        assert flavor["model_code_path"].endswith("model.py") and "python_model" not in flavor

    @pytest.mark.parametrize(
        ("row", "reason"),
        [
            ({"field": claiming(30000, 30000)}, "row 1 (the first is 0): field has 30000 x 30000 px"),
            ({"field": "%%%"}, "row 1 (the first is 0): field is not base64"),
            ({"field": text(NOISE[..., 0], "PNG")}, "row 1 (the first is 0): field: is a grey image"),
            ({"field": text(NOISE, "PNG"), "microns_per_pixel": 7}, "row 1 (the first is 0): 7.0 um per pixel"),
            ({"patch": text(NOISE[:9], "PNG")}, "row 1 (the first is 0): patch is a PNG of 32 x 9 px"),
            ({"patch": "", "field": ""}, "row 1 (the first is 0): has both"),
            ({}, "row 1 (the first is 0): has neither"),
        ],
    )
    def test_a_bad_row_is_named_in_one_line(self, served, row, reason):
        status, answer = post(served, {"dataframe_records": [{"patch": encode_patch(NOISE)}, row]})
        assert status == 400
        assert set(answer) == {"error_code", "message"} and answer["message"].startswith(reason)
        assert "\n" not in answer["message"]

    @pytest.mark.parametrize("value", [5, None, True, [1, 2], {"a": "b"}])
    @pytest.mark.parametrize("column", ["field", "patch"])
    def test_what_is_no_text_is_the_senders_fault(self, served, column, value):
        for rows in ([{column: value}], [{"patch": encode_patch(NOISE)}, {column: value}]):
            status, answer = post(served, {"dataframe_records": rows})
            assert (status, "Traceback" in str(answer)) == (400, False), answer

    @pytest.mark.parametrize("value", ["wide", [0.25], {"a": 1}])
    def test_microns_that_are_no_number_are_the_senders_fault(self, served, value):
        rows = [{"field": text(NOISE, "PNG"), "microns_per_pixel": value}]
        status, answer = post(served, {"dataframe_records": rows})
        assert (status, "Traceback" in str(answer)) == (400, False), answer
        assert "microns_per_pixel" in answer["message"]

    def test_an_empty_table_gets_an_empty_answer(self, served):
        for body in ({"dataframe_split": {"columns": ["patch"], "data": []}}, {"inputs": {"field": []}}):
            assert post(served, body) == (200, {"predictions": []})

    def test_other_columns_and_no_table_are_rejected(self, served):
        bodies = ({"dataframe_records": [{"image": "a"}]}, {"dataframe_records": []}, {}, [], 5, {"patch": "a"})
        for body in bodies:
            status, answer = post(served, body)
            assert (status, "Traceback" in str(answer)) == (400, False), answer
        assert "no column field and no column patch" in post(served, bodies[0])[1]["message"]


class TestTwoVersions:
    """One process serves one version: Python imports `mitoscope` once."""

    @pytest.fixture
    def versions(self, logged: Logged, tmp_path: Path) -> tuple[Path, Path]:
        """Two logged models, whose code differs by a comment."""
        first, second = tmp_path / "first", tmp_path / "second"
        for folder in (first, second):
            shutil.copytree(logged.folder, folder, ignore=shutil.ignore_patterns("__pycache__"))
        with (second / "code" / "mitoscope" / "detection" / "detector.py").open("a") as file:
            file.write("# another version\n")
        return first, second

    def test_only_code_that_differs_is_said(self, versions, tmp_path, monkeypatch, caplog):
        first, second = (folder / "code" / "mitoscope" for folder in versions)
        monkeypatch.setattr(mitoscope, "__file__", str(first / "__init__.py"))
        shutil.copytree(first, tmp_path / "same")
        for silent in (first, tmp_path / "same", tmp_path / "missing"):
            warn_of_other_code(silent)
        assert not caplog.records
        warn_of_other_code(second)
        (record,) = caplog.records
        assert (record.name, record.levelname) == ("mitoscope", "WARNING")

    @pytest.mark.slow
    def test_the_second_version_of_a_process_is_said_in_one_line(self, versions, programs):
        first, second = map(str, versions)
        code = "import sys, mlflow\nfor model in sys.argv[1:]: mlflow.pyfunc.load_model(model)\n"
        code += "import mitoscope; print(mitoscope.__file__)"
        command = [programs / "python", "-c", code, first, second]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=first)
        assert done.stdout.startswith(f"{first}/code/mitoscope/")
        (line,) = [line for line in done.stderr.splitlines() if "differs from the mitoscope" in line]
        assert f"({second}/code/mitoscope)" in line and f"({first}/code/mitoscope)" in line


@dataclass
class Server:
    """`mlflow models serve`."""

    url: str
    process: "subprocess.Popen[bytes]"

    def ask(self, body: bytes, content_type: str = "application/json") -> tuple[int, str]:
        """POST `body`; returns the status and the answer."""
        request = urllib.request.Request(f"{self.url}/invocations", body, {"Content-Type": content_type})
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def answer(self, **row: Any) -> tuple[int, Any]:
        """Send one row as the README does; returns the status and what the answer's JSON holds."""
        status, answer = self.ask(json.dumps({"dataframe_records": [row]}).encode())
        return status, json.loads(answer)


@pytest.fixture
def server(logged: Logged, mlflow_store: str, empty_registry: None, tmp_path: Path, programs: Path) -> Iterator[Server]:
    """A server of the champion, which works outside the project and with the model's own code."""
    client = mlflow.MlflowClient()
    client.create_registered_model("mitoscope")
    version = client.create_model_version("mitoscope", f"models:/{logged.model_id}", model_id=logged.model_id)
    client.set_registered_model_alias("mitoscope", "champion", version.version)
    port = free_port()
    command = ["models", "serve", "-m", "models:/mitoscope@champion", "--env-manager", "local"]
    command += ["-h", "127.0.0.1", "-p", str(port), "--workers", "1"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["PATH"] = f"{programs}{os.pathsep}{environment['PATH']}"
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [programs / "mlflow", *command], env=environment, stdout=log, stderr=log, cwd=tmp_path
        )
    server = Server(f"http://127.0.0.1:{port}", process)
    try:
        await_health(server.url, process, tmp_path / "log")
        yield server
    finally:
        process.terminate()
        process.wait(60)


@pytest.mark.slow
def test_a_real_server_answers_and_outlives_what_it_is_sent(server: Server, detector: Any, image: Pixels) -> None:
    expected = expected_answer(detector, image)
    assert server.answer(field=text(image, "TIFF")) == (200, {"predictions": [expected]})
    status, answer = server.answer(field=claiming(30000, 30000))
    assert (status, answer["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    assert answer["message"].startswith("row 0 (the first is 0): field has 30000 x 30000 px")
    garbage = np.random.default_rng(0).bytes(10_000_000)
    record = b'{"dataframe_records": [{"field": "' + base64.b64encode(garbage) + b'"}]}'
    for body, content_type in ((garbage, "application/json"), (garbage, "text/csv"), (record, "application/json")):
        status, said = server.ask(body, content_type)
        assert status == 400
    assert len(said) < 500  # the last one is ours: no table is sent back
    assert server.answer(field=text(image, "PNG")) == (200, {"predictions": [expected]})
    (patch,) = server.answer(patch=encode_patch(NOISE))[1]["predictions"]
    assert patch["probability"] == pytest.approx(detector.classify(Windows.of(NOISE[None]))[0], abs=1e-6)
    assert server.process.poll() is None
