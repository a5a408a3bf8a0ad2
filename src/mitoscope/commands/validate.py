"""Command `validate`: print what a dataset contains and everything that is wrong with it."""

from collections.abc import Sequence
from itertools import compress
from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mitoscope.datasets.validation import Report, check_dataset
from mitoscope.errors import printable
from mitoscope.progress import console, progress

_FIELDS = ("patient", "field", "size (px)", "um per px", "from", "mitoses", "look-alikes", "domain", "masks")
_PATIENTS = ("patient", "fields", "mitoses")
_WORDS = ("patient", "field", "from", "domain", "masks")


def validate(data: Path) -> Report:
    """Check the dataset in the folder `data`; print and return the report.

    Raises:
        InputError: the folder does not exist. All other problems are in the report.
    """
    with progress() as show:
        report = check_dataset(data, on_progress=show)
    print_report(report, console)
    return report


def print_report(report: Report, console: Console) -> None:
    """Print the tables of fields and patients, each warning and problem on its own line, and the verdict."""
    fields = []
    for field in report.fields:
        size = f"{field.width} x {field.height}" if field.width else "unreadable"
        pixel = (f"{field.pixel.microns:.4g}", field.pixel.source) if field.pixel else ("", "")
        counts = (str(field.mitoses), str(field.lookalikes))
        fields.append((field.patient, field.name, size, *pixel, *counts, escape(field.domain), " ".join(field.masks)))
    patients = [(patient.patient, str(patient.fields), str(patient.mitoses)) for patient in report.patients]
    for columns, rows in ((_FIELDS, fields), (_PATIENTS, patients)):
        if rows:
            console.print(_table(columns, rows))

    def print_line(kind: str, line: str, style: str) -> None:
        # One line each, however narrow the terminal, so that grep works. Paths must not be read as markup.
        console.print(f"{kind}: {printable(line)}", style=style, soft_wrap=True, markup=False, highlight=False)

    for warning in report.warnings:
        print_line("warning", warning, "yellow")
    for problem in report.problems:
        print_line("error", problem, "red")
    verdict = f"{len(report.fields)} fields of {len(report.patients)} patients with {report.mitoses} mitoses"
    if report.lookalikes:
        verdict += f" and {report.lookalikes} look-alikes"
    if report.problems:
        print_line("invalid", f"{verdict}; {len(report.problems)} errors to fix", "bold red")
    else:
        print_line("valid", verdict, "bold green")


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table without the columns that have no content; a narrow terminal folds its words."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    filled = [any(cells) for cells in zip(*rows, strict=True)]
    for column in compress(columns, filled):
        table.add_column(column, justify="left" if column in _WORDS else "right", overflow="fold")
    for row in rows:
        table.add_row(*compress(row, filled))
    return table
