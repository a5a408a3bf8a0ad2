"""Commands against the floor that their tools set."""

import sys

from benchmarks.bench import Bench, run, timed
from benchmarks.results import Row
from mitoscope.errors import InputError
from mitoscope.progress import console
from mitoscope.tracking.registry import MODEL

_MLFLOW = (
    "import os; from mlflow import MlflowClient; "
    "MlflowClient(os.environ.get('MLFLOW_TRACKING_URI', 'sqlite:///mlflow.db'))"
    f".search_model_versions(\"name='{MODEL}'\")"
)
_TABLES: dict[str, dict[str, tuple[str, ...]]] = {
    "Commands that read the registry": {
        "floor: MLflow lists the versions": ("-c", _MLFLOW),
        "mitoscope registry": ("-m", "mitoscope", "registry"),
        "mitoscope compare": ("-m", "mitoscope", "compare"),
        "mitoscope promote, nothing new": ("-m", "mitoscope", "promote"),
    },
    "A pipeline in which nothing has changed": {
        "floor: dvc status": ("-m", "dvc", "status"),
        "dvc repro": ("-m", "dvc", "repro"),
        "mitoscope status": ("-m", "mitoscope", "status"),
    },
    "Help": {
        "floor: python starts": ("-c", "pass"),
        "mitoscope --help": ("-m", "mitoscope", "--help"),
    },
}


def measure(bench: Bench) -> list[Row]:
    """Measure wall seconds in a project whose pipeline has run and whose detectors are registered."""
    project = bench.project
    if project is None:
        console.print("commands: not measured, because no project is given with --project")
        return []
    if not (project / "dvc.lock").exists():
        raise InputError(f"{project}: has no dvc.lock; give a project whose pipeline has run")
    rows = []
    for title, commands in _TABLES.items():
        works = {name: timed(run, [sys.executable, *command], project) for name, command in commands.items()}
        variants = bench.in_turn(title, works)
        rows.append(Row(title, "s", variants, next(iter(works)), "Wall seconds of the whole process."))
    return rows
