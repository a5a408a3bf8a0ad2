"""Synthetic fields of the usual size, and their patch store on disk."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd

from benchmarks import capstone
from mitoscope.datasets.fields import Description, FieldOfView, list_fields, read_description
from mitoscope.datasets.patches import open_windows, read_index, select_samples, store_path
from mitoscope.datasets.synthetic import synthesize
from mitoscope.learning.batches import PatchSet, Windows
from mitoscope.params import Extract
from mitoscope.stages.extract import extract_field

EXTRACT = Extract()
"""How fields become patches: of 64 px, at half resolution."""


@dataclass(frozen=True)
class Data:
    """A dataset and its patch store.

    Attributes:
        fields: the fields.
        description: the dataset's description.
        store: the folder of the patch store.
    """

    fields: list[FieldOfView]
    description: Description
    store: Path

    @classmethod
    def make(cls, folder: Path, patients: int, size: int, show: Callable[[int, int], None]) -> Self:
        """Paint a field of `size` px for each patient, and extract their patches."""
        raw, store = folder / "raw", folder / "patches"
        raw.mkdir(parents=True)
        store.mkdir()
        painted: list[str] = []

        def on_field(name: str) -> None:
            painted.append(name)
            show(len(painted), patients)

        synthesize(raw, patients=patients, fields_per_patient=1, size=size, on_field=on_field)
        data = cls(list_fields(raw), read_description(raw), store)
        found = [extract_field(field, EXTRACT, data.description) for field in data.fields]
        for field, patches in zip(data.fields, found, strict=True):
            np.save(store_path(store, field.patient, field.field), patches.windows)
        pd.concat([patches.index for patches in found]).to_csv(store / "index.csv", index=False)
        return data

    @property
    def rows(self) -> pd.DataFrame:
        """The index rows of the samples."""
        return select_samples(read_index(self.store))

    @cached_property
    def pngs(self) -> Path:
        """The folder of the same samples as the capstone stored them, made at the first use."""
        folder = self.store.with_name("pngs")
        for field, rows in self.by_field():
            capstone.cut(field.image, rows[["row", "col"]].to_numpy(), rows.label, folder, field.name)
        return folder

    def by_field(self) -> Iterator[tuple[FieldOfView, pd.DataFrame]]:
        """Yield each field with the index rows of its samples."""
        rows = self.rows
        for field in self.fields:
            yield field, rows[(rows.patient == field.patient) & (rows.field == field.field)]

    @property
    def samples(self) -> PatchSet:
        """The samples, read from the store on access."""
        return read_samples(self.store)


def read_samples(store: Path) -> PatchSet:
    """Return all samples of a patch store, whatever the patient."""
    rows = select_samples(read_index(store))
    return PatchSet(Windows(*open_windows(store, rows)), rows.label.to_numpy(dtype=np.int64))


def repeat(samples: PatchSet, count: int) -> PatchSet:
    """Return `count` samples; each may be there several times."""
    return samples.take(np.resize(np.arange(len(samples)), count))
