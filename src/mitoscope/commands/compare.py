"""Command `compare`: the networks beside each other."""

from rich.table import Table

from mitoscope.datasets.patches import read_summary
from mitoscope.params import read_params
from mitoscope.paths import PATCHES
from mitoscope.progress import console
from mitoscope.reporting.results import SCORES, heading, read_all


def compare() -> None:
    """Print the test scores of every evaluated network, of patches and of whole fields.

    Raises:
        InputError: no network has been evaluated, or no network's files belong together.
    """
    dataset = read_summary(PATCHES)["dataset"]
    data = "synthetic" if dataset["synthetic"] else dataset["name"]
    evaluated, unusable = read_all(read_params().train)
    patches = _table(f"Scores of the test patches, {data} data", "mitoses : others", "patches")
    fields = _table(f"Scores of the whole test fields, {data} data: mitoses found within 7.5 um", "mitoses", "fields")
    for level, table in (("patches", patches), ("fields", fields)):
        for results in evaluated:
            table.add_row(results.network, results.start_weights, data, results.size(level), *results.cells(level))
        console.print(table)
    for results in evaluated:
        if results.heads_note:
            console.print(results.heads_note)
    for network, reason in unusable.items():
        console.print(f"{network} is left out: {reason}", markup=False)
    console.print("Thresholds chosen on the validation patients; in brackets 95 % intervals by patient.")


def _table(title: str, size: str, level: str) -> Table:
    table = Table(title=title, title_justify="left")
    for column in ("network", "start weights", "data", size):
        table.add_column(column, no_wrap=column in ("network", "data"))
    for score in SCORES[level]:
        table.add_column(f"{heading(score)} %", justify="right", no_wrap=True)
    return table
