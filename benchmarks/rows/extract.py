"""Extraction against decoding the images, and against the capstone's way."""

import os
import uuid
from collections.abc import Sequence
from functools import partial
from itertools import cycle, islice
from pathlib import Path

import numpy as np

from benchmarks import capstone
from benchmarks.bench import Bench, timed
from benchmarks.data import Data
from benchmarks.results import Growth, Row, Table
from mitoscope.cluster import results
from mitoscope.datasets.fields import Description, FieldOfView
from mitoscope.datasets.readers import read_picture
from mitoscope.params import Extract
from mitoscope.stages.extract import extract_field

FIELDS = (1, 2, 4, 8)
_NOTE = (
    "From image files to arrays on the disk. The capstone's way decodes, halves, and writes every rotation of each "
    "patch as PNG, with one core; it is given the places, which the project has to find."
)


def measure(bench: Bench, fields: Sequence[int] = FIELDS) -> list[Table]:
    """Measure seconds per field, and how they grow with the fields and with the workers."""
    data, most, cores = bench.data, fields[-1], os.cpu_count() or 1
    with bench.folder() as folder:
        decode, extract, by_capstone = (partial(work, data, Path(folder)) for work in (_decode, _extract, _by_capstone))
        works = {
            "decoding the images": timed(decode, most),
            "mitoscope, stain: none": timed(extract, most),
            "mitoscope, stain: macenko": timed(partial(extract, stain="macenko"), most),
            "the capstone's way": timed(by_capstone, most),
        }
        seconds = bench.in_turn("extract", works)
        per_field = {name: [value / most for value in values] for name, values in seconds.items()}
        ways = {"decoding": decode, "mitoscope": extract, "the capstone's way": by_capstone}
        over_fields = bench.grow(
            "extract, fields", {name: {count: timed(way, count) for count in fields} for name, way in ways.items()}
        )
        workers = [2**power for power in range((2 * cores).bit_length())]
        over_workers = bench.grow(
            "extract, workers",
            {"mitoscope": {count: timed(partial(extract, workers=count), most) for count in workers}},
        )
    return [
        Row("A field", "s", per_field, "decoding the images", f"{_NOTE} All {cores} cores otherwise."),
        Growth("Fields", "s", "fields", over_fields),
        Growth(f"Workers, on {cores} cores", f"s for {most} fields", "workers", over_workers),
    ]


def _decode(data: Data, _: Path, count: int) -> None:
    list(results(_read, list(islice(cycle(data.fields), count))))


def _read(field: FieldOfView) -> None:
    read_picture(field.image)


def _extract(data: Data, folder: Path, count: int, workers: int | None = None, stain: str = "none") -> None:
    fields, settings = list(islice(cycle(data.fields), count)), Extract.model_validate({"stain": stain})
    for path in results(partial(_write, folder, settings, data.description), fields, threads=workers):
        path.unlink()


def _write(folder: Path, settings: Extract, description: Description, field: FieldOfView) -> Path:
    path = folder / f"{uuid.uuid4().hex}.npy"  # a name of its own, as in the stage
    np.save(path, extract_field(field, settings, description).windows)
    return path


def _by_capstone(data: Data, folder: Path, count: int) -> None:
    for field, rows in islice(cycle(data.by_field()), count):
        capstone.cut(field.image, rows[["row", "col"]].to_numpy(), rows.label, folder / "pngs", field.name)
