"""The files of a test in whole fields: tables, curve, overlays and the sheet of the worst errors."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from mitoscope.datasets.fields import FieldOfView
from mitoscope.files import atomic_path
from mitoscope.reporting.errors import draw_errors
from mitoscope.reporting.figures import draw_field_scores

if TYPE_CHECKING:
    from mitoscope.detection.stored import StoredFields
    from mitoscope.detection.whole_fields import FieldScores


def write_whole_fields(
    out: Path,
    network: str,
    scores: "FieldScores",
    stored: "StoredFields",
    tested: Sequence[FieldOfView],
    *,
    title: str,
    note: str,
    on_field: Callable[[int, int], None] | None = None,
) -> None:
    """Write objects.csv, fields.csv, froc.csv, fields.png, errors.png and overlays/.

    Args:
        out: folder for the files.
        network: name of the network, for the tables and the curve.
        scores: what was found.
        stored: the fields that were scored.
        tested: the images of the same fields.
        title: title of fields.png.
        note: appended to the titles of the other pictures, as ", synthetic data".
        on_field: called with the number of fields drawn and the total.

    Raises:
        InputError: an image cannot be read.
    """
    write_tables(out, network, {"objects": scores.objects, "fields": scores.fields, "froc": scores.froc})
    draw_field_scores(out / "fields.png", {network: scores.froc}, scores.fields, scores.metrics, title=title)
    draw_errors(out, scores.objects, stored.truths, tested, stored.microns_per_pixel, note=note, on_field=on_field)


def write_tables(out: Path, network: str, tables: Mapping[str, pd.DataFrame]) -> None:
    """Write tables as CSV by their names, each with the network in the first column."""
    for name, table in tables.items():
        with atomic_path(out / f"{name}.csv") as temporary:
            table.assign(network=network)[["network", *table]].to_csv(temporary, index=False)
