"""The tables of a cross-validation, and its description."""

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd
from rich.markup import escape
from rich.table import Table

from mitoscope.reporting.results import POOLED, percent, pooled_cells

COLUMNS = ("patient", *POOLED, "best F1 %*")
NOTE = (
    "Each fold's threshold is chosen without its test patients; 95 % intervals by patient in brackets. * At the "
    "patient's own best threshold, which nobody knows in advance: a diagnosis, not a result."
)


def describe(report: Mapping[str, Any]) -> str:
    """Network, start weights and data of a cross-validation; `report` is results/crossvalidate/<network>.json."""
    dataset = report["dataset"]
    data = "synthetic" if dataset["synthetic"] else dataset["name"]
    return f"{report['network']}, {report['start_weights']['source']} start weights, {data} data"


def build_tables(report: Mapping[str, Any], patients: pd.DataFrame) -> Iterator[Table]:
    """Yield one table per level, with a row per patient and a row for all patients pooled.

    Args:
        report: results/crossvalidate/<network>.json.
        patients: results/crossvalidate/<network>.csv.
    """
    for level, pooled in report["pooled"].items():
        title = f"{describe(report)}: test {level} of {len(report['folds'])} folds"
        table = Table(title=title, title_justify="left")
        for column in COLUMNS:
            table.add_column(column, justify="left" if column == "patient" else "right", no_wrap=column == "patient")
        for row in patients[patients.level == level].to_dict("records"):
            scores = {str(name): value for name, value in row.items()}
            table.add_row(row["patient"], *pooled_cells(scores), percent(row["best_f1_not_attainable"]))
        table.add_section()
        table.add_row("pooled", *pooled_cells(pooled), "", style="bold")
        for domain, scores in pooled.get("domains", {}).items():
            table.add_row(escape(domain), *pooled_cells(scores), "")
        yield table
