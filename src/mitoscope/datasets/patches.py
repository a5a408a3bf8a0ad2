"""The patch store on disk: one array of windows per field, and one index of all windows.

A window is wider than a patch, so that a patch can be cropped at any rotation from real pixels; rotations are
therefore not stored. The store does not depend on the split: `read_rows` joins it with `split.csv`.
It contains the annotated centres (label 1), the labelled look-alikes (label 0), and every candidate, because whole
fields are scored by their candidates alone. A candidate near a mitosis has label 1 too; `is_sample` tells it from the
samples of the patch level.

    patches/01_02.npy     (N, S, S, 3) uint8 RGB, read memory-mapped
    patches/index.csv     one row per window with the columns COLUMNS; `record` numbers the windows of a field
    patches/summary.json  counts, dropped windows by reason, the fields, the settings and a digest of the content
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mitoscope.errors import InputError
from mitoscope.files import read_json

COLUMNS = (
    "patient",
    "field",
    "domain",
    "label",
    "center",
    "row",
    "col",
    "source",
    "distance",
    "lookalike",
    "edge",
    "record",
)

Integers = npt.NDArray[np.int64]
Store = npt.NDArray[np.uint8]


def is_sample(index: pd.DataFrame) -> "pd.Series[bool]":
    """Mark the index rows that are samples of the patch level: annotated centres, and what is far from them."""
    return (index.source == "annotation") | (index.label == 0)


def store_path(patches: Path, patient: str, field: str) -> Path:
    """Return the path of a field's array in the folder `patches`."""
    return patches / f"{patient}_{field}.npy"


def read_index(patches: Path) -> pd.DataFrame:
    """Read `index.csv` in the folder `patches`, with patient and field as text and edge as bool.

    Raises:
        InputError: there is no patch store.
    """
    path = patches / "index.csv"
    if not path.exists():
        raise InputError(f"{path}: no patch store; run `dvc repro extract` first")
    # A patient may be called NA, so only an empty distance counts as missing.
    types = {"patient": str, "field": str, "domain": str, "lookalike": bool, "edge": bool}
    return pd.read_csv(path, dtype=types, keep_default_na=False, na_values={"distance": [""]})


def read_summary(patches: Path) -> dict[str, Any]:
    """Read `summary.json` in the folder `patches`.

    Raises:
        InputError: there is no patch store, or an older version wrote it.
    """
    path = patches / "summary.json"
    if not path.exists():
        raise InputError(f"{path}: no patch store; run `dvc repro extract` first")
    summary = read_json(path, "run `dvc repro extract -f`")
    fields = summary.get("fields")
    if not isinstance(fields, dict) or not all("domain" in facts for facts in fields.values()):
        raise InputError(f"{path}: was written by an older version; run `dvc repro extract` first")
    return summary


def read_split(split: Path) -> pd.DataFrame:
    """Read `split.csv`: patient, fold, subset, mitoses, fields.

    Raises:
        InputError: there is no split.
    """
    if not split.exists():
        raise InputError(f"{split}: no split of the patients; run `dvc repro split` first")
    return pd.read_csv(split, dtype={"patient": str}, keep_default_na=False)  # a patient may be called NA


def read_patients(split: Path) -> dict[str, list[str]]:
    """Return the patients of each subset: train, validation and test.

    Raises:
        InputError: there is no split.
    """
    table = read_split(split)
    return {subset: table.patient[table.subset == subset].tolist() for subset in ("train", "validation", "test")}


def read_rows(patches: Path, split: Path, *subsets: str) -> pd.DataFrame:
    """Return the index rows of the patients of one or more subsets: train, validation, test.

    Raises:
        InputError: there is no patch store or no split, or the split lacks a patient of the store.
    """
    rows = read_index(patches).merge(
        read_split(split)[["patient", "subset"]], on="patient", how="left", validate="many_to_one"
    )
    if rows.subset.isna().any():
        lost = rows.patient[rows.subset.isna()].iloc[0]
        raise InputError(f"{split}: lacks patient {lost}, who is in {patches}; run `dvc repro split extract`")
    return rows[rows.subset.isin(subsets)].reset_index(drop=True)


def select_samples(rows: pd.DataFrame, near_um: float = 0) -> pd.DataFrame:
    """Select the samples of the patch level from index rows.

    Windows with reflected border (`edge`) are left out, because their rotations would not show real pixels only.

    Args:
        rows: rows of the index.
        near_um: candidates closer than this to a mitosis are positives too; 0 = the annotated centres only.
    """
    near = (rows.source == "candidate") & (rows.label == 1) & (rows.distance < near_um)
    return rows[(is_sample(rows) | near) & ~rows.edge].reset_index(drop=True)


def open_windows(patches: Path, rows: pd.DataFrame) -> tuple[Sequence[Store], Integers, Integers]:
    """Open the windows of index rows, memory-mapped.

    Returns:
        The arrays of the fields in the order of their first row; for each row, the number of its array; and for each
        row, its record in that array.
    """
    fields = rows[["patient", "field"]].drop_duplicates()
    stores = [np.load(store_path(patches, *names), mmap_mode="r") for names in fields.itertuples(index=False)]
    store, _ = pd.factorize(rows.patient + "_" + rows.field)
    return stores, store.astype(np.int64), rows.record.to_numpy(dtype=np.int64)


def sample_name(row: Any, angle: float = 0) -> str:
    """Return a sample's name in every table and gallery, in the capstone's form: `01_02_class0_center0_rot45.png`.

    `row` has the attributes patient, field, label and center, like a row of the index.
    """
    return f"{row.patient}_{row.field}_class{row.label}_center{row.center}_rot{angle:g}.png"
