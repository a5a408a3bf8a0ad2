"""A copy of the repository in which whole pipelines run, small but real."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
import yaml
from mlflow.entities import Run

REPOSITORY = Path(__file__).parents[2]
IDENTITY = ("-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false")

Params = dict[str, Any]
FIRST, SECOND = yaml.safe_load((REPOSITORY / "params.yaml").read_text())["train"]


class Project:
    """A checkout of this repository in a folder of its own, with its own git, DVC cache and MLflow store.

    Args:
        folder: where it is.
        programs: a folder whose programs take the place of the installed ones (tests/forkserver.py).
    """

    def __init__(self, folder: Path, programs: Path) -> None:
        self.folder, self.programs = folder, programs
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "DVC_", "GIT_"))
        } | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(folder / "src"),
            "DVC_NO_ANALYTICS": "1",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "1",
            # No network: whatever a machine can reach, `weights: random` below and this make the runs alike.
            "TORCH_HOME": str(folder / ".work/torch"),
        }

    def run(self, *command: str, expect: int = 0) -> str:
        """Run a command in the project; returns what it printed."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self._with_programs(),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert done.returncode == expect, done.stdout
        return done.stdout

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        """Start a command in the background, as leader of a process group of its own."""
        return subprocess.Popen(
            command, cwd=self.folder, env=self._with_programs(), stdout=subprocess.DEVNULL, start_new_session=True
        )

    def _with_programs(self) -> dict[str, str]:
        return self.environment | {"PATH": f"{self.programs}{os.pathsep}{self.environment['PATH']}"}

    def change_params(self, change: Callable[[Params], None]) -> None:
        """Edit params.yaml."""
        path = self.folder / "params.yaml"
        params = yaml.safe_load(path.read_text())
        change(params)
        path.write_text(yaml.safe_dump(params, sort_keys=False))


def make_tiny(params: Params) -> None:
    """The real networks on few and small patches."""
    params["extract"] |= {"patch_um": 16, "candidates_per_mm2": 100}  # 32 px
    params["evaluate"]["bootstrap"] = 100
    params["search"]["trials"] = 0
    params["promote"] |= {"min_recall": 0.0, "min_f1": 0.0}
    for network, block in params["train"].items():
        params["weights"][network] = "random"
        block["model"]["input_size"] = 64 if network == FIRST else 32  # AlexNet takes no less
        block["sampling"] |= {"samples_per_epoch": 16, "mining": {"start_epoch": 1, "every": 1}}
        block["optimisation"] |= {"epochs": 2, "batch_size": 16}
    # AlexNet's own head has 55 million weights, and each of its checkpoints takes seconds to write.
    params["train"][FIRST]["model"]["head"] = "pooled"


@pytest.fixture(scope="module")
def project(programs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """The repository's files as they are now, committed; the first run pulls the sample from its remote."""
    folder = tmp_path_factory.mktemp("pipeline") / "mitoscope"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (source := REPOSITORY / name).is_file() and name != "dvc.lock":
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    project = Project(folder, programs)
    project.change_params(make_tiny)
    project.run("git", "init", "--quiet")
    project.run("git", "add", "--all")
    project.run("git", *IDENTITY, "commit", "--quiet", "--message", "tiny")
    yield project
    shutil.rmtree(folder)


@pytest.fixture
def client(project: Project) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(f"sqlite:///{project.folder / 'mlflow.db'}")


def stages_in(said: str) -> list[str]:
    """The stages that `dvc repro` says it ran."""
    return [line.split("'")[1] for line in said.splitlines() if line.startswith("Running stage")]


def trainings(client: mlflow.MlflowClient) -> list[Run]:
    experiment = client.get_experiment_by_name("mitoscope")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id], order_by=["attributes.start_time"]))


def trained(project: Project, network: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((project.folder / "results/train" / f"{network}.json").read_text())
    return content


def reported(project: Project, network: str) -> dict[str, Any]:
    """What stage `detector` reports."""
    content: dict[str, Any] = json.loads((project.folder / "results/detector" / f"{network}.json").read_text())
    return content
