"""The patch store joined with a split, as input for networks and detectors."""

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


def read_samples(patches: Path, split: Path, *subsets: str, near_um: float = 0) -> tuple[PatchSet, pd.DataFrame]:
    """Read the patch-level samples of the patients of one or more subsets, and their index rows in the same order.

    Args:
        patches: the patch store.
        split: path of split.csv.
        subsets: train, validation, test.
        near_um: candidates closer than this to a mitosis are positives too; 0 = the annotated centres only.

    Raises:
        InputError: there is no patch store or no split, the split lacks a patient of the store, or the subsets have no
            samples.
    """
    rows = select_samples(read_rows(patches, split, *subsets), near_um)
    if rows.empty:
        raise InputError(f"{split}: the {' and '.join(subsets)} patients have no patches; choose another split.fold")
    return PatchSet(Windows(*open_windows(patches, rows)), rows.label.to_numpy(dtype=np.int64)), rows


@dataclass(frozen=True)
class StoredFields:
    """All candidates in whole fields of some patients, including those at the edges, where mitoses count too.

    Attributes:
        windows: windows of the candidates.
        candidates: patient, field, row, col (px), in the order of the windows.
        truths: patient, field, row, col (px) of the mitoses.
        microns_per_pixel: pixel size of every field of these patients, um, by name PP_FF.
        areas_mm2: area of every field of these patients, by name PP_FF.
        domains: scanner, laboratory or tumour of every field of these patients, by name PP_FF; may be empty texts.
        images: SHA-256 of the pixels of every field, by patient.
    """

    windows: Windows
    candidates: pd.DataFrame
    truths: pd.DataFrame
    microns_per_pixel: dict[str, float]
    areas_mm2: dict[str, float]
    domains: dict[str, str]
    images: dict[str, list[str]]

    @classmethod
    def read(cls, patches: Path, split: Path, *subsets: str) -> Self:
        """Read the fields of the patients of one or more subsets: train, validation, test.

        Raises:
            InputError: there is no patch store or no split, or the split lacks a patient of the store.
        """
        rows = read_rows(patches, split, *subsets)
        by_subset = read_patients(split)
        patients = {patient for subset in subsets for patient in by_subset[subset]}  # some may have blank fields only
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
            domains={name: str(fact["domain"]) for name, fact in facts.items()},
            images=images,
        )

    @property
    def field(self) -> npt.NDArray[np.int64]:
        """(N,) field number of each candidate."""
        return self.windows.store

    def count_mitoses(self) -> pd.DataFrame:
        """Return one row per field: patient, field, domain, mitoses."""
        counts = (self.truths.patient + "_" + self.truths.field).value_counts()
        rows = [(*name.split("_", 1), domain, counts.get(name, 0)) for name, domain in self.domains.items()]
        return pd.DataFrame(rows, columns=["patient", "field", "domain", "mitoses"])

    def objects(self, probabilities: npt.NDArray[np.float64], suppress_um: float) -> pd.DataFrame:
        """Return the detections and missed mitoses as the table of `evaluation.matching.find_objects`.

        Args:
            probabilities: (N,) probabilities of the candidates.
            suppress_um: radius of the non-maximum suppression, um.
        """
        return find_objects(
            self.candidates, probabilities, self.truths, self.microns_per_pixel, suppress_um=suppress_um
        )
