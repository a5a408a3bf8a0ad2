"""Command `compare`: the networks beside each other, and beside the capstone's published figures."""

import json
from pathlib import Path
from typing import Any

from rich.table import Table

from mitoscope.errors import InputError
from mitoscope.params import read_params
from mitoscope.progress import console
from mitoscope.stages.subsets import read_summary

# Test patches of Janowczyk's 311 fields, split by hand with patients in several sets; ImageNet start weights.
# Source: the 2020 capstone that this project starts from.
_CAPSTONE = {
    "AlexNet, capstone 2020": (0.8487, 0.903, 0.675, 0.773),
    "DenseNet161, capstone 2020": (0.84, 0.896, 0.659, 0.759),
}
_SCORES = ("accuracy", "precision", "recall", "f1")


def compare() -> None:
    """Print the test scores of every evaluated network.

    Raises:
        InputError: no network has been evaluated.
    """
    dataset = read_summary()["dataset"]
    name = f"{dataset['name']} (synthetic)" if dataset["synthetic"] else dataset["name"]
    table = Table(title=f"Test patches: {name}", title_justify="left")
    for column in ("network", "start weights", "data", "mitoses : others"):
        table.add_column(column, overflow="fold")
    for score in _SCORES:
        table.add_column("F1 %" if score == "f1" else f"{score} %", justify="right")
    found = 0
    for arch in read_params().train:
        path = Path("results/evaluate", arch, "metrics.json")
        if not path.exists():
            continue
        scores = json.loads(path.read_text(encoding="utf-8"))["patches"]
        trained = json.loads(Path("results/train", f"{arch}.json").read_text(encoding="utf-8"))
        ratio = f"{scores['mitoses']} : {scores['negatives']}"
        table.add_row(arch, trained["start_weights"], name, ratio, *(_percent(scores, score) for score in _SCORES))
        found += 1
    if not found:
        raise InputError("results/evaluate: no network has been evaluated; run `dvc repro` first")
    table.add_section()
    for label, figures in _CAPSTONE.items():
        row = [label, "ImageNet", "another dataset", "unknown"]
        table.add_row(*row, *(f"{100 * figure:.1f}" for figure in figures), style="dim")
    console.print(table)
    console.print(
        "Threshold chosen on the validation patients; in brackets 95 % intervals by patient. The capstone's patients "
        "are in several of its sets at once, and its data is another: its figures are no yardstick, only a reminder."
    )


def _percent(scores: dict[str, Any], name: str) -> str:
    """A score in percent, with its interval on a second line where there is one."""
    text = f"{100 * scores[name]:.1f}"
    if f"{name}_low" in scores:
        text += f"\n[{100 * scores[f'{name}_low']:.0f}, {100 * scores[f'{name}_high']:.0f}]"
    return text
