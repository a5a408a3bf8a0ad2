"""Command `compare`: the test scores of all networks side by side."""

from rich import box
from rich.markup import escape
from rich.table import Table

from mitoscope.datasets.patches import read_summary
from mitoscope.params import read_params
from mitoscope.paths import PATCHES
from mitoscope.progress import console
from mitoscope.reporting.results import read_all
from mitoscope.reporting.score_tables import ScoreTable, score_tables
from mitoscope.reporting.verdict import judge


def compare() -> None:
    """Print the test scores of each evaluated network, for whole fields and for patches, and say which is better.

    Raises:
        InputError: no network has been evaluated, the files of none belong together, or a file is missing.
    """
    params = read_params()
    dataset = read_summary(PATCHES)["dataset"]
    evaluated, unusable = read_all(params.train)
    data = "synthetic" if dataset["synthetic"] else dataset["name"]
    for table in score_tables([results.scores for results in evaluated], data):
        console.print(draw(table), "")
    for results in evaluated:
        if results.heads_note:
            console.print(results.heads_note)
    for network, reason in unusable.items():
        console.print(f"{network} is not shown: {reason}", markup=False)
    console.print("Thresholds are chosen without the test patients; brackets: 95 % intervals by patient.")
    if verdict := judge(evaluated, params.evaluate, synthetic=dataset["synthetic"]):
        console.print(verdict.sentence, markup=False)


def draw(scores: ScoreTable) -> Table:
    """Draw a table that fits into 80 columns: a row has two lines anyway, and its words are folded, but no number."""
    table = Table(title=escape(scores.title), title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, padding=0)
    first, second, size, *headings = scores.columns
    for words in (f"{first}\n{second}", size):
        table.add_column(words, overflow="fold")
    for name in headings:
        table.add_column(name.replace(" ", "\n"), justify="right", no_wrap=True)
    for row in scores.rows:
        network, origin, *cells = map(escape, row)
        table.add_row(f"{network}\n{origin}", *cells)
    return table
