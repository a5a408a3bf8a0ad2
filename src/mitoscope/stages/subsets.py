"""The patch store joined with the split: what train and evaluate read, and detection in it."""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mitoscope.datasets.patches import is_sample, read_index, read_summary, store_path
from mitoscope.errors import InputError
from mitoscope.evaluation.matching import find_objects
from mitoscope.paths import PATCHES, SPLIT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mitoscope.detection.field_head import FieldHead
    from mitoscope.learning.batches import PatchSet
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


def read_samples(subset: str, near_um: float = 0) -> tuple["PatchSet", pd.DataFrame]:
    """The samples of the patch level of the train, validation or test patients, and their index rows in this order.

    Windows with reflected border (`edge`) are left out: no rotation of them would show real pixels only.

    Args:
        subset: train, validation or test.
        near_um: candidates this close to a mitosis are positives too; 0 = the annotated centres only.

    Raises:
        InputError: a patient of the patch store is in no subset, or the subset is empty.
    """
    rows = _read_rows(subset)
    near = (rows.source == "candidate") & (rows.label == 1) & (rows.distance < near_um)
    rows = rows[(is_sample(rows) | near) & ~rows.edge]
    if rows.empty:
        raise InputError(f"{SPLIT}: the {subset} patients have no patch; choose another split.fold")
    return _open(rows)


def read_candidates(subset: str) -> tuple["PatchSet", pd.DataFrame, pd.DataFrame]:
    """All candidates in the fields of a subset's patients, their index rows in the same order, and those of the truth.

    Candidates at the edge of a field are among them: a mitosis there still counts.

    Raises:
        InputError: a patient of the patch store is in no subset.
    """
    rows = _read_rows(subset)
    return *_open(rows[rows.source == "candidate"]), rows[rows.source == "annotation"]


@dataclass(frozen=True)
class ScoredFields:
    """What a network says of all candidates of some patients' fields.

    Attributes:
        candidates: patient, field, row, col and probability, in the order of the store.
        truths: patient, field, row, col of the mitoses.
        microns_per_pixel: of the fields.
    """

    candidates: pd.DataFrame
    truths: pd.DataFrame
    microns_per_pixel: float

    def typical_spread(self) -> tuple[float, float]:
        """The median over the fields of their candidates' `detection.calibration.spread`."""
        from mitoscope.detection.calibration import spread

        fields = self.candidates.groupby(["patient", "field"]).probability
        low, high = np.median([spread(values.to_numpy()) for _, values in fields], axis=0)
        return float(low), float(high)

    def objects(self, typical: "Sequence[float] | None") -> pd.DataFrame:
        """Detections and misses, the table of `evaluation.matching.find_objects`.

        Args:
            typical: the spread that every field's scores are brought to; None = the scores as they are.
        """
        from mitoscope.detection.calibration import calibrate

        probabilities = self.candidates.probability
        if typical is not None and len(probabilities):
            fields = self.candidates.groupby(["patient", "field"]).probability
            probabilities = fields.transform(lambda values: calibrate(values.to_numpy(), typical))
        return find_objects(self.candidates, probabilities.to_numpy(), self.truths, self.microns_per_pixel)


def score_candidates(
    network: "PatchNetwork", head: "FieldHead | None", subset: str, place: "Place", on_batch: "OnBatch", *, views: int
) -> ScoredFields:
    """Score all candidates in the whole fields of a subset's patients.

    Args:
        network: sees the patches.
        head: scores them; None = the network's own.
        subset: train, validation or test.
        place: where to compute.
        on_batch: called with a label, the candidates done and their number.
        views: of each candidate (`score_patches`).

    Raises:
        InputError: there is no patch store, or a patient of it is in no subset.
    """
    from mitoscope.detection.field_head import score_by_field
    from mitoscope.learning.scoring import score_patches

    patches, candidates, truths = read_candidates(subset)
    score = partial(score_by_field, network, head) if head else partial(score_patches, network)
    probabilities = score(patches, place, on_batch, f"{network.arch} {subset} fields", views)
    microns = read_summary(PATCHES)["dataset"]["microns_per_pixel"]
    return ScoredFields(candidates.assign(probability=probabilities), truths, microns)


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
    return pd.read_csv(SPLIT, dtype={"patient": str}, keep_default_na=False)  # a patient may be called NA


def _open(rows: pd.DataFrame) -> tuple["PatchSet", pd.DataFrame]:
    from mitoscope.learning.batches import PatchSet

    rows = rows.reset_index(drop=True)
    fields = rows[["patient", "field"]].drop_duplicates()
    stores = [np.load(store_path(PATCHES, *names), mmap_mode="r") for names in fields.itertuples(index=False)]
    store, _ = pd.factorize(rows.patient + "_" + rows.field)
    record, label = (rows[name].to_numpy(dtype=np.int64) for name in ("record", "label"))
    return PatchSet(stores, store.astype(np.int64), record, label), rows
