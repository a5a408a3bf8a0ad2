"""The tables of test scores that `mitoscope compare` prints and `mitoscope report` shows."""

from collections.abc import Sequence
from typing import NamedTuple

from mitoscope.reporting.results import SCORES, Scores, heading


class ScoreTable(NamedTuple):
    """Scores of networks in the test set.

    Attributes:
        title: what is scored, on which data.
        columns: headings; the last ones are scores in percent.
        rows: cells as text; a score has its interval on a second line.
    """

    title: str
    columns: list[str]
    rows: list[list[str]]


def score_tables(evaluated: Sequence[Scores], data: str) -> list[ScoreTable]:
    """Return the scores of whole fields, the same by domain if there are several, and the scores of patches, if any.

    Args:
        evaluated: the networks.
        data: name of the dataset, or "synthetic".
    """
    fields, patches = (
        [
            [scores.network, scores.start_weights, scores.size(level), *scores.cells(level)]
            for scores in evaluated
            if level in scores.metrics
        ]
        for level in ("fields", "patches")
    )
    domains = [[scores.network, *row] for scores in evaluated for row in scores.domain_rows()]
    whole = f"Whole fields of the test patients, {data} data"
    tables = [
        ScoreTable(f"{whole}: mitoses found within 7.5 um", _columns("fields", "start weights", "mitoses"), fields),
        ScoreTable(
            f"{whole}, by domain (scanner, laboratory or tumour)", _columns("fields", "domain", "mitoses"), domains
        ),
        ScoreTable(
            f"Test patches, {data} data (none at the edge of a field)",
            _columns("patches", "start weights", "mitoses : negatives"),
            patches,
        ),
    ]
    return [table for table in tables if table.rows]


def _columns(level: str, *words: str) -> list[str]:
    return ["network", *words, *(f"{heading(score)} %" for score in SCORES[level])]
