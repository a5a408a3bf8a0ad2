"""The patch store joined with a split, as networks and detectors take it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from mitoscope.datasets.patches import open_windows, read_patients, read_rows, read_summary, select_samples
from mitoscope.errors import InputError
from mitoscope.evaluation.matching import find_objects
from mitoscope.learning.batches import PatchSet, Windows


def read_samples(patches: Path, split: Path, subset: str, near_um: float = 0) -> tuple[PatchSet, pd.DataFrame]:
    """The samples of the patch level of a subset's patients, and their index rows in the same order.

    Args:
        patches: the patch store.
        split: split.csv.
        subset: train, validation or test.
        near_um: candidates this close to a mitosis are positives too; 0 = the annotated centres only.

    Raises:
        InputError: a patient of the patch store is in no subset, or the subset is empty.
    """
    rows = select_samples(read_rows(patches, split, subset), near_um)
    if rows.empty:
        raise InputError(f"{split}: the {subset} patients have no patch; choose another split.fold")
    return PatchSet(Windows(*open_windows(patches, rows)), rows.label.to_numpy(dtype=np.int64)), rows


@dataclass(frozen=True)
class StoredFields:
    """All candidates in the whole fields of some patients. At the edge of a field, too: a mitosis there counts.

    Attributes:
        windows: of the candidates.
        candidates: patient, field, row, col (px), in the order of the windows.
        truths: patient, field, row, col (px) of the mitoses.
        microns_per_pixel: um, by field name PP_FF, of every field of these patients.
        areas_mm2: likewise.
        images: SHA-256 of the pixels of every field, by patient.
    """

    windows: Windows
    candidates: pd.DataFrame
    truths: pd.DataFrame
    microns_per_pixel: dict[str, float]
    areas_mm2: dict[str, float]
    images: dict[str, list[str]]

    @classmethod
    def read(cls, patches: Path, split: Path, subset: str) -> Self:
        """Read the fields of the train, validation or test patients.

        Raises:
            InputError: there is no patch store or no split, or a patient of the store is in no subset.
        """
        rows = read_rows(patches, split, subset)
        patients = set(read_patients(split)[subset])  # one whose fields are blank has no row
        facts = {
            name: fact for name, fact in read_summary(patches)["fields"].items() if name.partition("_")[0] in patients
        }
        images: dict[str, list[str]] = {}
        for name, fact in facts.items():
            images.setdefault(name.partition("_")[0], []).append(fact["pixels_sha256"])
        candidates = rows[rows.source == "candidate"].reset_index(drop=True)
        return cls(
            windows=Windows(*open_windows(patches, candidates)),
            candidates=candidates,
            truths=rows[rows.source == "annotation"].reset_index(drop=True),
            microns_per_pixel={name: float(fact["microns_per_pixel"]) for name, fact in facts.items()},
            areas_mm2={name: float(fact["area_mm2"]) for name, fact in facts.items()},
            images=images,
        )

    @property
    def field(self) -> npt.NDArray[np.int64]:
        """(N,) which field each candidate is in."""
        return self.windows.store

    def objects(self, probabilities: npt.NDArray[np.float64], suppress_um: float) -> pd.DataFrame:
        """Detections and missed mitoses, the table of `evaluation.matching.find_objects`.

        Args:
            probabilities: (N,) of the candidates.
            suppress_um: of two detections this close the more probable one stays.
        """
        return find_objects(
            self.candidates, probabilities, self.truths, self.microns_per_pixel, suppress_um=suppress_um
        )
