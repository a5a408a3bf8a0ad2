"""Command `compare`: the networks beside each other, and beside the capstone's published figures."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from mitoscope.datasets.patches import read_summary
from mitoscope.errors import InputError
from mitoscope.params import read_params
from mitoscope.paths import EVALUATED, PATCHES, TRAINED
from mitoscope.progress import console

# Test patches of Janowczyk's 311 fields, split by hand with patients in several sets; ImageNet start weights.
# Source: the 2020 capstone that this project starts from.
_CAPSTONE = {
    "AlexNet, 2020 capstone": (0.8487, 0.903, 0.675, 0.773),
    "DenseNet161, 2020 capstone": (0.84, 0.896, 0.659, 0.759),
}
SCORES = {"patches": ("accuracy", "precision", "recall", "f1", "ap"), "fields": ("precision", "recall", "f1", "ap")}


def compare() -> None:
    """Print the test scores of every evaluated network, of patches and of whole fields.

    Raises:
        InputError: no network has been evaluated.
    """
    dataset = read_summary(PATCHES)["dataset"]
    data = "synthetic" if dataset["synthetic"] else dataset["name"]
    patches = _table(f"Scores of the test patches, {data} data", "mitoses : others", "patches")
    fields = _table(f"Scores of the whole test fields, {data} data: mitoses found within 7.5 um", "mitoses", "fields")
    evaluated = read_results()
    for results in evaluated:
        for level, table in (("patches", patches), ("fields", fields)):
            table.add_row(results.arch, results.start_weights, data, results.size(level), *results.cells(level))
    patches.add_section()
    for label, figures in _CAPSTONE.items():
        row = [label, "ImageNet", "another dataset", "unknown"]
        patches.add_row(*row, *(f"{100 * figure:.1f}" for figure in figures), "", style="dim")
    console.print(patches)
    console.print(fields)
    for results in evaluated:
        if results.heads_note:
            console.print(results.heads_note)
    console.print(
        "Thresholds chosen on the validation patients; in brackets 95 % intervals by patient. The capstone's patients "
        "are in several of its sets at once, and its data is another: its figures are no yardstick, only a reminder."
    )


@dataclass(frozen=True)
class Results:
    """What the stages `train` and `evaluate` left of a network.

    Attributes:
        arch: the network.
        trained: results/train/<network>.json.
        metrics: metrics.json, by level.
        intervals: intervals.json, by level.
    """

    arch: str
    trained: dict[str, Any]
    metrics: dict[str, Any]
    intervals: dict[str, Any]

    @property
    def start_weights(self) -> str:
        """What the network started from, in a word."""
        return str(self.trained["start_weights"])

    @property
    def heads_note(self) -> str:
        """A sentence on who scored what, where the two levels were not scored by the same head."""
        if not self.trained.get("refit_fields"):
            return ""
        return f"{self.arch}: patches are scored by the network's head, whole fields by their own (refit_fields)."

    def size(self, level: str) -> str:
        """How much the network was tested on."""
        metrics = self.metrics[level]
        if level == "fields":
            return f"{metrics['mitoses']} in {metrics['fields']} fields"
        return f"{metrics['mitoses']} : {metrics['negatives']}"

    def cells(self, level: str) -> list[str]:
        """The scores of a level in percent, with their intervals, in the order of SCORES."""
        return [percent(self.metrics[level].get(name), self.intervals[level].get(name)) for name in SCORES[level]]


def read_results() -> list[Results]:
    """The results of every evaluated network, in the order of params.yaml.

    Raises:
        InputError: there are none, or they are of an older version.
    """
    evaluated = [arch for arch in read_params().train if (EVALUATED / arch / "metrics.json").exists()]
    if not evaluated:
        raise InputError(f"{EVALUATED}: no network has been evaluated; run `dvc repro` first")
    found = []
    for arch in evaluated:
        paths = (
            TRAINED / f"{arch}.json",
            EVALUATED / arch / "metrics.json",
            EVALUATED / arch / "intervals.json",
        )
        results = Results(arch, *(json.loads(path.read_text(encoding="utf-8")) for path in paths))
        if "fields" not in results.metrics:
            raise InputError(f"{EVALUATED / arch / 'metrics.json'}: is of an older version; run `dvc repro` first")
        found.append(results)
    return found


def _table(title: str, size: str, level: str) -> Table:
    table = Table(title=title, title_justify="left")
    for column in ("network", "start weights", "data", size):
        table.add_column(column, no_wrap=column in ("network", "data"))
    for score in SCORES[level]:
        table.add_column(f"{heading(score)} %", justify="right", no_wrap=True)
    return table


def heading(score: str) -> str:
    """A score's name at the head of a column."""
    return score.upper() if score in ("f1", "ap") else score


def percent(value: float | None, interval: Sequence[float] | None = None) -> str:
    """A score in percent, with its interval on a second line where there is one; a dash where there is no score."""
    if value is None or math.isnan(value):
        return "-"
    if interval is None:
        return f"{100 * value:.1f}"
    return f"{100 * value:.1f}\n[{100 * interval[0]:.0f}, {100 * interval[1]:.0f}]"
