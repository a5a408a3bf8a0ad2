"""Stain normalisation and cutting against TIAToolbox."""

from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.bench import Bench, run, timed
from benchmarks.data import EXTRACT
from benchmarks.results import Row
from mitoscope.datasets.readers import read_image
from mitoscope.histology.stain import normalise
from mitoscope.histology.windows import FieldWindows, window_size

_SCRIPT = Path(__file__).parents[1] / "tia.py"


def measure(bench: Bench, count: int = 400) -> list[Row]:
    """Measure the seconds for a field, and for the windows around points in it."""
    field, size = bench.data.fields[0].image, window_size(EXTRACT.patch_size)
    image = read_image(field)
    points = np.random.default_rng(0).uniform(size, min(image.shape[:2]) - size, (count, 2))
    windows = FieldWindows(image, points, size)
    normalise(image, "macenko")  # warms up, as TIAToolbox does
    stain: dict[str, list[float]] = {"mitoscope": []}
    cutting: dict[str, list[float]] = {"mitoscope": []}
    for turn in range(bench.rounds):
        bench.show("stain", turn, bench.rounds)
        stain["mitoscope"].append(timed(normalise, image, "macenko")())
        cutting["mitoscope"].append(timed(windows.cut)())
        if bench.tiatoolbox:
            table = bench.scratch / "points.csv"
            pd.DataFrame({"x": points[:, 1], "y": points[:, 0], "type": 0}).to_csv(table, index=False)
            lines = run([bench.tiatoolbox, "-P", _SCRIPT, field, table, str(size)], bench.scratch).split()
            for times, seconds in zip((stain, cutting), lines[-2:], strict=True):
                times.setdefault("TIAToolbox", []).append(float(seconds))
    how = (
        "TIAToolbox runs in a process and an environment of its own; its start and its first call are not counted."
        if bench.tiatoolbox
        else "To compare with TIAToolbox, install it in an environment of its own and give `--tiatoolbox PYTHON`."
    )
    return [
        Row(f"Macenko, {image.shape[0]} x {image.shape[1]} px", "s", stain, "mitoscope", how),
        Row(f"Cutting {count} windows of {size} px", "s", cutting, "mitoscope", how),
    ]
