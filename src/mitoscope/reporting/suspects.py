"""Suspects for a pathologist: a GeoJSON per field for QuPath, and a sheet with a window around each."""

from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from mitoscope.datasets.fields import FieldOfView
from mitoscope.datasets.importers.classes import LOOKALIKE_NAMES, MITOSIS_NAMES, SUSPECT
from mitoscope.datasets.readers import Image, read_image
from mitoscope.evaluation.fields import UNNAMED
from mitoscope.evaluation.suspects import LOOKALIKE, MITOSIS, NONE
from mitoscope.histology.windows import FieldWindows
from mitoscope.reporting.exports import Annotation, write_annotations
from mitoscope.reporting.galleries import draw_gallery
from mitoscope.reporting.overlays import DETECTED, FALSE, MISSED, NUCLEUS_UM

NO_CANDIDATE = "no candidate"
_CLASSES = {MITOSIS: MITOSIS_NAMES[0], LOOKALIKE: LOOKALIKE_NAMES[0], NONE: SUSPECT}
_COLOURS = {MITOSIS: DETECTED.colour, LOOKALIKE: MISSED.colour, NONE: FALSE.colour}
_SHOWN, _SHOWN_UM = 60, 32  # number of windows of a domain on the sheet, and their width


def describe_suspect(row: Mapping[Any, Any]) -> str:
    """Rank, label and score of a suspect; `no candidate` in place of a score that it does not have."""
    score = row["probability"]
    return f"{row['rank']}: {NO_CANDIDATE}" if pd.isna(score) else f"{row['rank']}: {row['label']} {score:.2f}"


def write_field(path: Path, labels: pd.DataFrame, *, microns_per_pixel: float, shape: tuple[int, int]) -> None:
    """Write the annotations and suspects of a field as GeoJSON, which `mitoscope import qupath` brings back.

    Annotations have the classes that the importer takes. A suspect without annotation has a class that it leaves out,
    until somebody gives it another one. The name of a suspect says its rank and score.

    Args:
        path: the GeoJSON.
        labels: rows of `evaluation.suspects.rank_labels`: all annotations, and the places to show.
        microns_per_pixel: pixel size of the field, um.
        shape: rows and columns of the image.
    """
    # In the order of their file, so that a field which nobody has corrected comes back as it was.
    annotations = [_annotate(row) for row in labels.sort_index().to_dict("records")]
    write_annotations(path, annotations, radius=NUCLEUS_UM / microns_per_pixel, shape=shape)


def _annotate(row: Mapping[Any, Any]) -> Annotation:
    label = row["label"]
    values = {key: row[key] for key in ("probability", "threshold", "disagreement") if row["rank"]}
    return Annotation(
        row["row"],
        row["col"],
        _CLASSES[label],
        _COLOURS[label],
        describe_suspect(row) if row["rank"] else "",
        {key.capitalize(): value for key, value in values.items() if not pd.isna(value)},
    )


def draw_suspects(
    path: Path,
    suspects: pd.DataFrame,
    fields: Mapping[str, FieldOfView],
    microns_per_pixel: Mapping[str, float],
    *,
    note: str,
    on_field: Callable[[int, int], None] | None = None,
) -> None:
    """Draw a sheet with the first suspects of each domain, in the order of ranks.

    Those annotated as mitosis and the others are apart.

    Args:
        path: PNG to write.
        suspects: rows of `evaluation.suspects.rank_labels` with a rank, in its order.
        fields: the fields by name PP_FF.
        microns_per_pixel: pixel size of each field by its name, um.
        note: appended to the titles, as ", synthetic data".
        on_field: called after each field with the number of fields read and the number of all fields.

    Raises:
        InputError: an image cannot be read.
    """
    domains = (suspects.patient + "_" + suspects.field).map(lambda name: fields[name].domain)
    shown = suspects.groupby(domains).head(_SHOWN)
    windows: dict[int, Image] = {}
    by_field = list(shown.groupby(shown.patient + "_" + shown.field))
    for done, (name, rows) in enumerate(by_field, start=1):
        side = round(_SHOWN_UM / microns_per_pixel[str(name)])
        cut = FieldWindows(read_image(fields[str(name)].image), rows[["row", "col"]].to_numpy(), side).cut()
        windows |= dict(zip(rows["rank"], cut, strict=True))
        if on_field:
            on_field(done, len(by_field))
    kinds = (("annotated mitoses that score low", True), ("other places that score high", False))
    sections = []
    for domain, (title, is_mitosis) in product(sorted(set(domains)) or [""], kinds):
        chosen, drawn = (
            table[(domains[table.index] == domain) & ((table.label == MITOSIS) == is_mitosis)]
            for table in (suspects, shown)
        )
        tiles = [(describe_suspect(row), windows[row["rank"]]) for row in drawn.to_dict("records")]
        where = f"{domain or UNNAMED}: " if domains.nunique() > 1 else ""
        heading = (
            f"{where}{len(chosen)} {title}{note}: the first {len(tiles)}, {_SHOWN_UM} um wide, with rank and score"
        )
        sections.append((heading, tiles))
    draw_gallery(path, sections)
