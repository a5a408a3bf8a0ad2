"""Extraction against decoding the images, and against the capstone's way."""

import os
from collections.abc import Sequence
from functools import partial
from itertools import cycle, islice
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed

from benchmarks import capstone
from benchmarks.bench import Bench, timed
from benchmarks.data import Data
from benchmarks.results import Growth, Row, Table
from mitoscope.datasets.patches import store_path
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
    fields = islice(cycle(data.fields), count)
    Parallel(n_jobs=-1, prefer="threads")(delayed(read_picture)(field.image) for field in fields)


def _extract(data: Data, folder: Path, count: int, workers: int = -1, stain: str = "none") -> None:
    settings = Extract.model_validate({"stain": stain})
    jobs = Parallel(n_jobs=workers, prefer="threads", return_as="generator")(
        delayed(extract_field)(field, settings, data.description) for field in islice(cycle(data.fields), count)
    )
    for number, patches in enumerate(jobs):  # one thread writes, as in the stage
        np.save(store_path(folder, "field", str(number)), patches.windows)


def _by_capstone(data: Data, folder: Path, count: int) -> None:
    for field, rows in islice(cycle(data.by_field()), count):
        capstone.cut(field.image, rows[["row", "col"]].to_numpy(), rows.label, folder / "pngs", field.name)
