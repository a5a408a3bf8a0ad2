"""The patch store joined with the split: what train and evaluate read, and detection in it."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mitoscope.errors import InputError
from mitoscope.histology.detections import find_objects
from mitoscope.histology.patches import is_sample, read_index, read_summary, store_path
from mitoscope.learning.batches import PatchSet
from mitoscope.paths import PATCHES, SPLIT

if TYPE_CHECKING:
    from mitoscope.learning.devices import Place
    from mitoscope.learning.networks import PatchNetwork
    from mitoscope.learning.scoring import OnBatch


def read_patients(subset: str) -> list[str]:
    """The patients of a subset.

    Raises:
        InputError: there is no split.
    """
    split = _read_split()
    return split.patient[split.subset == subset].tolist()


def read_samples(subset: str) -> tuple[PatchSet, pd.DataFrame]:
    """The samples of the patch level of the train, validation or test patients, and their index rows in this order.

    Windows with reflected border (`edge`) are left out: no rotation of them would show real pixels only.

    Raises:
        InputError: a patient of the patch store is in no subset, or the subset is empty.
    """
    rows = _read_rows(subset)
    rows = rows[is_sample(rows) & ~rows.edge]
    if rows.empty:
        raise InputError(f"{SPLIT}: the {subset} patients have no patch; choose another split.fold")
    return _open(rows)


def read_candidates(subset: str) -> tuple[PatchSet, pd.DataFrame, pd.DataFrame]:
    """All candidates in the fields of a subset's patients, their index rows in the same order, and those of the truth.

    Candidates at the edge of a field are among them: a mitosis there still counts.

    Raises:
        InputError: a patient of the patch store is in no subset.
    """
    rows = _read_rows(subset)
    return *_open(rows[rows.source == "candidate"]), rows[rows.source == "annotation"]


def detect(network: "PatchNetwork", subset: str, place: "Place", on_batch: "OnBatch | None" = None) -> pd.DataFrame:
    """Detect mitoses in the whole fields of a subset's patients; the table of `histology.detections.find_objects`.

    Raises:
        InputError: there is no patch store, or a patient of it is in no subset.
    """
    from mitoscope.learning.scoring import score_patches

    patches, candidates, truths = read_candidates(subset)
    probabilities = score_patches(network, patches, place, on_batch, f"{network.arch} {subset} fields")
    return find_objects(candidates, probabilities, truths, read_summary(PATCHES)["dataset"]["microns_per_pixel"])


def _read_rows(subset: str) -> pd.DataFrame:
    rows = read_index(PATCHES).merge(
        _read_split()[["patient", "subset"]], on="patient", how="left", validate="many_to_one"
    )
    if rows.subset.isna().any():
        lost = rows.patient[rows.subset.isna()].iloc[0]
        raise InputError(f"{SPLIT}: has no patient {lost}, which {PATCHES} has; run `dvc repro split extract`")
    return rows[rows.subset == subset]


def _read_split() -> pd.DataFrame:
    if not SPLIT.exists():
        raise InputError(f"{SPLIT}: no split of the patients; run `dvc repro split` first")
    return pd.read_csv(SPLIT, dtype={"patient": str})


def _open(rows: pd.DataFrame) -> tuple[PatchSet, pd.DataFrame]:
    rows = rows.reset_index(drop=True)
    fields = rows[["patient", "field"]].drop_duplicates()
    stores = [np.load(store_path(PATCHES, *names), mmap_mode="r") for names in fields.itertuples(index=False)]
    store, _ = pd.factorize(rows.patient + "_" + rows.field)
    record, label = (rows[name].to_numpy(dtype=np.int64) for name in ("record", "label"))
    return PatchSet(stores, store.astype(np.int64), record, label), rows
