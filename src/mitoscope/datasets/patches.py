"""The patch store: one array of windows per field and one index of all.

A window is wider than a patch, so that the patch can be cropped at any rotation from real pixels; rotations are
therefore not stored. The store knows nothing of training, validation and test: `train` joins `results/split.csv`.
It holds the annotated centres (label 1) and every candidate, as whole fields are scored by their candidates alone:
one near a mitosis has label 1 too, and `is_sample` tells it from the samples of the patch level.

    patches/01_02.npy     (N, S, S, 3) uint8 RGB, read memory-mapped
    patches/index.csv     one row per window, COLUMNS; the windows of a field are numbered by `record`
    patches/summary.json  counts, what was dropped and why, the settings and a digest of the content
"""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from mitoscope.errors import InputError

COLUMNS = ("patient", "field", "label", "center", "row", "col", "source", "distance", "edge", "record")


def is_sample(index: pd.DataFrame) -> "pd.Series[bool]":
    """Which rows of the index are samples of the patch level: the annotated centres, and candidates far from them."""
    return (index.source == "annotation") | (index.label == 0)


def store_path(patches: Path, patient: str, field: str) -> Path:
    """The array of one field in the folder `patches`."""
    return patches / f"{patient}_{field}.npy"


def read_index(patches: Path) -> pd.DataFrame:
    """Read `index.csv` of the folder `patches`: COLUMNS, patient and field as text, edge as bool.

    Raises:
        InputError: there is no patch store.
    """
    path = patches / "index.csv"
    if not path.exists():
        raise InputError(f"{path}: no patch store; run `dvc repro extract` first")
    # A patient may be called NA: only an empty distance is missing.
    types = {"patient": str, "field": str, "edge": bool}
    return pd.read_csv(path, dtype=types, keep_default_na=False, na_values={"distance": [""]})


def read_summary(patches: Path) -> dict[str, Any]:
    """Read `summary.json` of the folder `patches`.

    Raises:
        InputError: there is no patch store.
    """
    path = patches / "summary.json"
    if not path.exists():
        raise InputError(f"{path}: no patch store; run `dvc repro extract` first")
    summary: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return summary


def sample_name(row: Any, angle: float = 0) -> str:
    """A sample's name in every table and gallery, the capstone's: `01_02_class0_center0_rot45.png`.

    `row` has the attributes patient, field, label and center, as a row of the index has.
    """
    return f"{row.patient}_{row.field}_class{row.label}_center{row.center}_rot{angle:g}.png"
