"""MLflow runs as rows of the page's table."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Protocol

from mitoscope.reporting.results import percent

LOGGED = ("recall", "precision", "f1")  # of each level of the test


class Run(Protocol):
    """What the page shows of an MLflow run; `tracking.history.Training` is one."""

    @property
    def run_id(self) -> str:
        """Its id."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def started(self) -> datetime:
        """When."""

    @property
    def params(self) -> Mapping[str, str]:
        """Settings, as text."""

    @property
    def tags(self) -> Mapping[str, str]:
        """Network, start weights, git commit ..."""

    @property
    def metrics(self) -> Mapping[str, float]:
        """The last value of each."""


def run_row(run: Run, current: bool) -> dict[str, Any]:
    """A row of the table of runs; those of version 0.1 have their settings under shorter names."""

    def setting(name: str, before: str) -> str:
        return run.params.get(f"train.{name}", run.params.get(f"train.{before}", ""))

    angles = (setting(f"sampling.rotations.{label}", f"rotations.{label}") for label in ("positive", "negative"))
    scores = [f"{level}/{score}" for level in ("test", "test_fields") for score in LOGGED]
    return {
        "run": run,
        "current": current,
        "network": run.tags.get("network", run.tags.get("architecture", "-")),
        "lr": setting("optimisation.lr", "lr") or "-",
        "rotations": " / ".join(str(len(text.split(","))) for text in angles),
        "commit": describe_commit(run),
        "scores": [percent(run.metrics.get(name)) for name in ("best_validation/best_f1", *scores)],
    }


def describe_commit(run: Run) -> str:
    """The start of the commit that a run was trained at, and whether tracked files differed from it."""
    commit = run.tags.get("mlflow.source.git.commit", "")[:8] or "none"
    return f"{commit}\n+ changes" if run.tags.get("git_dirty") == "true" else commit
