"""Two checkouts share an MLflow server on PostgreSQL and a DVC remote: the one trains, the other gets the results."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest

from mitoscope.cli import main
from mitoscope.tracking.models import detector_file
from tests.forkserver import NAMES
from tests.servers import await_health, free_port

from .conftest import FIRST, IDENTITY, Params, Project, stages_in, trained, trainings

pytestmark = pytest.mark.slow
NETWORK = "squeezenet1_1"  # 3 MB


@pytest.fixture
def server(
    postgresql: str, tmp_path: Path, no_mlflow_environment: None, programs: Path
) -> "Iterator[tuple[str, subprocess.Popen[bytes], Path]]":
    """`mlflow server` as the README starts it; yields its address, its process and its folder of artifacts."""
    artifacts, port, log = tmp_path / "artifacts", free_port(), tmp_path / "server.log"
    command = ["mlflow", "server", "--backend-store-uri", postgresql]
    command += ["--artifacts-destination", str(artifacts), "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    environment = os.environ | {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "PATH": f"{programs}:{os.environ['PATH']}",
    }
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=output, stderr=output)
    url = f"http://127.0.0.1:{port}"
    try:
        await_health(url, process, log)
        yield url, process, artifacts
    finally:
        process.terminate()
        process.wait(60)


def with_packages(project: Project) -> None:
    """A .venv as `make setup` leaves it, with the packages of the tests' own and the project's `mitoscope`."""
    environment = project.folder / ".venv"
    programs = environment / "bin"
    programs.mkdir(parents=True)
    for path in Path(sys.prefix).iterdir():
        if path.name not in (".installed", "bin"):
            (environment / path.name).symlink_to(path)
    for path in (Path(sys.prefix) / "bin").iterdir():
        (programs / path.name).symlink_to(project.programs / path.name if path.name in NAMES else path)
    (environment / ".installed").touch()


def one_network(params: Params) -> None:
    block = params["train"][FIRST]
    block["model"]["input_size"] = 32
    params["extract"]["candidates_per_mm2"] = 1500  # the fields are small
    params["train"], params["weights"], params["detection"] = {NETWORK: block}, {NETWORK: "random"}, {}


def commit(project: Project) -> None:
    project.run("git", "add", "--all")
    project.run("git", *IDENTITY, "commit", "--quiet", "--message", "results")


def test_one_trains_and_the_other_gets_the_results(
    project: Project,
    raw: Path,
    server: "tuple[str, subprocess.Popen[bytes], Path]",
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    url, process, artifacts = server
    # Their own data: that of the sample has a remote of its own.
    shutil.copytree(raw, project.folder / "data")
    (project.folder / "data.dvc").unlink()
    project.run("dvc", "add", "--quiet", "data")
    project.change_params(one_network)
    commit(project)
    config = (project.folder / ".dvc/config").read_bytes()

    # The server asks for no password; that one is given must not be seen.
    with_login = url.replace("://", "://someone:secret@")
    shared = {"MLFLOW_TRACKING_URI": with_login, "MITOSCOPE_REMOTE": str(tmp_path / "remote")}
    project.environment |= shared
    with_packages(project)
    said = project.run("make", "repro")
    assert f"train@{NETWORK}" in said and "secret" not in said

    client = mlflow.MlflowClient(url)
    (run,) = trainings(client)
    result = trained(project, NETWORK)
    assert run.info.status == "FINISHED" and run.info.run_id == result["run_id"]
    assert "test/f1" in run.data.metrics and "test_fields/f1" in run.data.metrics
    pictures = {item.path for item in client.list_artifacts(run.info.run_id, "pictures")}
    assert {"pictures/patches.png", "pictures/fields.png"} <= pictures
    assert {"last.pt", "detector.pt", "MLmodel", "patches.png"} <= {path.name for path in artifacts.rglob("*")}
    assert not (project.folder / "mlflow.db").exists() and not (project.folder / "mlartifacts").exists()
    assert (project.folder / ".dvc/config").read_bytes() == config

    # The second checkout has what git has: no data, no cache, no model.
    commit(project)
    other = Project(tmp_path / "other", project.programs)
    project.run("git", "clone", "--quiet", str(project.folder), str(other.folder))
    other.environment |= shared
    with_packages(other)
    said = other.run("make", "repro")
    assert stages_in(said) == [] and "secret" not in said
    for path in (f"models/{NETWORK}/detector.pt", f"results/evaluate/{NETWORK}/metrics.json", "patches/index.csv"):
        assert (other.folder / path).read_bytes() == (project.folder / path).read_bytes()
    assert len(trainings(client)) == 1
    assert other.run("git", "status", "--porcelain") == ""

    # It can use the model of the server, too. In this process, which has all the imports behind it.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", with_login)
    monkeypatch.setenv("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "")  # so that it is put back
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    monkeypatch.chdir(other.folder)
    with detector_file(f"runs:/{result['run_id']}/detector") as model:
        assert model.read_bytes() == Path(f"models/{NETWORK}/detector.pt").read_bytes()

    process.terminate()
    process.wait(60)
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # pytest's own handlers stay
    monkeypatch.setattr(sys, "argv", ["mitoscope", "evaluate", NETWORK])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capfd.readouterr().err
    assert ended.value.code == 2 and "Traceback" not in said and "secret" not in said
    last = said.splitlines()[-1]
    assert "the MLflow store cannot be opened" in last and "MLFLOW_TRACKING_URI" in last
