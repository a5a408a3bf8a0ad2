"""Command `compare`: the networks beside each other, and beside the capstone's published figures."""

import json

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
_SCORES = ("accuracy", "precision", "recall", "f1")


def compare() -> None:
    """Print the test scores of every evaluated network.

    Raises:
        InputError: no network has been evaluated.
    """
    dataset = read_summary(PATCHES)["dataset"]
    data = "synthetic" if dataset["synthetic"] else dataset["name"]
    table = Table(title=f"Scores of the test patches, {data} data", title_justify="left")
    for column in ("network", "start weights", "data", "mitoses : others"):
        table.add_column(column, no_wrap=column == "network")
    for score in _SCORES:
        table.add_column("F1 %" if score == "f1" else f"{score} %", justify="right", no_wrap=True)
    found = 0
    for arch in read_params().train:
        path = EVALUATED / arch / "metrics.json"
        if not path.exists():
            continue
        scores = json.loads(path.read_text(encoding="utf-8"))["patches"]
        intervals = json.loads(path.with_name("intervals.json").read_text(encoding="utf-8"))["patches"]
        trained = json.loads((TRAINED / f"{arch}.json").read_text(encoding="utf-8"))
        ratio = f"{scores['mitoses']} : {scores['negatives']}"
        table.add_row(
            arch,
            trained["start_weights"],
            data,
            ratio,
            *(_percent(scores[score], intervals.get(score)) for score in _SCORES),
        )
        found += 1
    if not found:
        raise InputError(f"{EVALUATED}: no network has been evaluated; run `dvc repro` first")
    table.add_section()
    for label, figures in _CAPSTONE.items():
        row = [label, "ImageNet", "another dataset", "unknown"]
        table.add_row(*row, *(f"{100 * figure:.1f}" for figure in figures), style="dim")
    console.print(table)
    console.print(
        "Threshold chosen on the validation patients; in brackets 95 % intervals by patient. The capstone's patients "
        "are in several of its sets at once, and its data is another: its figures are no yardstick, only a reminder."
    )


def _percent(value: float, interval: list[float] | None) -> str:
    """A score in percent, with its interval on a second line where there is one."""
    if interval is None:
        return f"{100 * value:.1f}"
    return f"{100 * value:.1f}\n[{100 * interval[0]:.0f}, {100 * interval[1]:.0f}]"
