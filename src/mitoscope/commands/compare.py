"""Command `compare`: the test scores of all networks side by side."""

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from mitoscope.datasets.patches import read_summary
from mitoscope.params import read_params
from mitoscope.paths import PATCHES
from mitoscope.progress import console
from mitoscope.reporting.results import SCORES, Results, heading, read_all
from mitoscope.reporting.verdict import judge


def compare() -> None:
    """Print the test scores of each evaluated network, for patches and for whole fields, and say which is better.

    Raises:
        InputError: no network has been evaluated, the files of none belong together, or a file is missing.
    """
    params = read_params()
    dataset = read_summary(PATCHES)["dataset"]
    data = "synthetic" if dataset["synthetic"] else dataset["name"]
    evaluated, unusable = read_all(params.train)
    patches = _table(f"Scores of test patches, {data} data", "mitoses : negatives", "patches")
    fields = _table(f"Scores of whole test fields, {data} data: mitoses found within 7.5 um", "mitoses", "fields")
    for level, table in (("patches", patches), ("fields", fields)):
        for results in evaluated:
            table.add_row(results.network, results.start_weights, data, results.size(level), *results.cells(level))
        console.print(table)
    if any(results.domain_rows() for results in evaluated):
        console.print(_domains(evaluated, data))
    for results in evaluated:
        if results.heads_note:
            console.print(results.heads_note)
    for network, reason in unusable.items():
        console.print(f"{network} is not shown: {reason}", markup=False)
    console.print("Thresholds are chosen on the validation patients; brackets: 95 % intervals by patient.")
    if verdict := judge(evaluated, params.evaluate, synthetic=dataset["synthetic"]):
        console.print(verdict.sentence, markup=False)


def _domains(evaluated: Sequence[Results], data: str) -> Table:
    table = Table(title=f"Scores of whole test fields by domain, {data} data", title_justify="left")
    for column in ("network", "domain", "mitoses"):
        table.add_column(column)
    for score in SCORES["fields"]:
        table.add_column(f"{heading(score)} %", justify="right", no_wrap=True)
    for results in evaluated:
        for row in results.domain_rows():
            table.add_row(results.network, *map(escape, row))
    return table


def _table(title: str, size: str, level: str) -> Table:
    table = Table(title=title, title_justify="left")
    for column in ("network", "start weights", "data", size):
        table.add_column(column, no_wrap=column in ("network", "data"))
    for score in SCORES[level]:
        table.add_column(f"{heading(score)} %", justify="right", no_wrap=True)
    return table
