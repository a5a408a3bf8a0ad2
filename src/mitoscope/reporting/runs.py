"""MLflow runs as rows of the report's table."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Protocol

from mitoscope.reporting.results import percent
from mitoscope.reporting.terms import shorten

LOGGED = ("f1", "recall", "precision")  # scores of each level of the test


class Run(Protocol):
    """The part of an MLflow run that the report shows; `tracking.history.Training` has it."""

    @property
    def run_id(self) -> str:
        """Id."""

    @property
    def name(self) -> str:
        """Name."""

    @property
    def started(self) -> datetime:
        """Start time."""

    @property
    def params(self) -> Mapping[str, str]:
        """Settings, as text."""

    @property
    def tags(self) -> Mapping[str, str]:
        """Network, start weights, git commit ..."""

    @property
    def metrics(self) -> Mapping[str, float]:
        """Last value of each metric."""


def run_row(run: Run, current: bool) -> dict[str, Any]:
    """A row of the table of runs; runs of version 0.1 have shorter names for their settings."""

    def setting(name: str, before: str) -> str:
        return run.params.get(f"train.{name}", run.params.get(f"train.{before}", ""))

    angles = (setting(f"sampling.rotations.{label}", f"rotations.{label}") for label in ("positive", "negative"))
    scores = [f"{level}/{score}" for level in ("test_fields", "test") for score in LOGGED]
    return {
        "run": run,
        "current": current,
        "network": run.tags.get("network", run.tags.get("architecture", "-")),
        "lr": shorten("lr", setting("optimisation.lr", "lr") or "-"),
        "rotations": " / ".join(str(len(text.split(","))) for text in angles),
        "commit": describe_commit(run),
        "scores": [percent(run.metrics.get(name)) for name in ("best_validation/best_f1", *scores)],
    }


def describe_commit(run: Run) -> str:
    """Short commit at which a run was trained, with "+ changes" if tracked files differed from it."""
    commit = run.tags.get("mlflow.source.git.commit", "")[:8] or "none"
    return f"{commit}\n+ changes" if run.tags.get("git_dirty") == "true" else commit
