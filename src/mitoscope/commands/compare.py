"""Command `compare`: the networks beside each other, and beside the capstone's published figures."""

import json
import math
from collections.abc import Sequence

from rich.table import Table

from mitoscope.errors import InputError
from mitoscope.histology.patches import read_summary
from mitoscope.params import read_params
from mitoscope.paths import EVALUATED, PATCHES, TRAINED
from mitoscope.progress import console

# Test patches of Janowczyk's 311 fields, split by hand with patients in several sets; ImageNet start weights.
# Source: the 2020 capstone that this project starts from.
_CAPSTONE = {
    "AlexNet, 2020 capstone": (0.8487, 0.903, 0.675, 0.773),
    "DenseNet161, 2020 capstone": (0.84, 0.896, 0.659, 0.759),
}
_SCORES = {"patches": ("accuracy", "precision", "recall", "f1", "ap"), "fields": ("precision", "recall", "f1", "ap")}


def compare() -> None:
    """Print the test scores of every evaluated network, of patches and of whole fields.

    Raises:
        InputError: no network has been evaluated.
    """
    dataset = read_summary(PATCHES)["dataset"]
    data = "synthetic" if dataset["synthetic"] else dataset["name"]
    evaluated = [arch for arch in read_params().train if (EVALUATED / arch / "metrics.json").exists()]
    if not evaluated:
        raise InputError(f"{EVALUATED}: no network has been evaluated; run `dvc repro` first")
    patches = _table(f"Scores of the test patches, {data} data", "mitoses : others", _SCORES["patches"])
    fields = _table(
        f"Scores of the whole test fields, {data} data: mitoses found within 7.5 um", "mitoses", _SCORES["fields"]
    )
    for arch in evaluated:
        metrics, intervals, trained = (
            json.loads(path.read_text(encoding="utf-8"))
            for path in (
                EVALUATED / arch / "metrics.json",
                EVALUATED / arch / "intervals.json",
                TRAINED / f"{arch}.json",
            )
        )
        if "fields" not in metrics:
            raise InputError(f"{EVALUATED / arch / 'metrics.json'}: is of an older version; run `dvc repro` first")
        ratio = f"{metrics['patches']['mitoses']} : {metrics['patches']['negatives']}"
        count = f"{metrics['fields']['mitoses']} in {metrics['fields']['fields']} fields"
        for table, level, size in ((patches, "patches", ratio), (fields, "fields", count)):
            cells = (percent(metrics[level].get(score), intervals[level].get(score)) for score in _SCORES[level])
            table.add_row(arch, trained["start_weights"], data, size, *cells)
    patches.add_section()
    for label, figures in _CAPSTONE.items():
        row = [label, "ImageNet", "another dataset", "unknown"]
        patches.add_row(*row, *(f"{100 * figure:.1f}" for figure in figures), "", style="dim")
    console.print(patches)
    console.print(fields)
    console.print(
        "Thresholds chosen on the validation patients; in brackets 95 % intervals by patient. The capstone's patients "
        "are in several of its sets at once, and its data is another: its figures are no yardstick, only a reminder."
    )


def _table(title: str, size: str, scores: tuple[str, ...]) -> Table:
    table = Table(title=title, title_justify="left")
    for column in ("network", "start weights", "data", size):
        table.add_column(column, no_wrap=column in ("network", "data"))
    for score in scores:
        name = score.upper() if score in ("f1", "ap") else score
        table.add_column(f"{name} %", justify="right", no_wrap=True)
    return table


def percent(value: float | None, interval: Sequence[float] | None = None) -> str:
    """A score in percent, with its interval on a second line where there is one; a dash where there is no score."""
    if value is None or math.isnan(value):
        return "-"
    if interval is None:
        return f"{100 * value:.1f}"
    return f"{100 * value:.1f}\n[{100 * interval[0]:.0f}, {100 * interval[1]:.0f}]"
