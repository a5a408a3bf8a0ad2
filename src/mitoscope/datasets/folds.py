"""Folds of patients with similar shares of everything that is counted."""

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold


def number_folds(fields: pd.DataFrame, folds: int, seed: int) -> "pd.Series[int]":
    """Assign each patient to a fold.

    If each fold is one patient, the folds are in the order of the patients' names, so they do not depend on counts.
    Otherwise the folds get similar shares of the fields and mitoses of each domain.

    Args:
        fields: one row per field: patient, field, domain, mitoses.
        folds: number of folds, at most as many as patients; as many as patients = leave one patient out.
        seed: random seed of the shuffling.

    Returns:
        The number of the fold by patient, in the order of the patients' names.
    """
    patients = sorted(fields.patient.unique())
    number = pd.Series(range(len(patients)), index=patients)
    if folds < len(patients):
        # One sample per field and one per mitosis, so that the folds get similar shares of both.
        samples = fields.loc[fields.index.repeat(fields.mitoses + 1)]
        groups = samples.patient.to_numpy()
        kinds = pd.Series(np.where(samples.index.duplicated(), " mitosis", " field"))
        labels = samples.domain.reset_index(drop=True) + kinds
        labels = labels.where(labels.map(labels.value_counts()) >= folds, kinds)  # rare domains count together
        splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
        for found, (_, inside) in enumerate(splitter.split(groups, labels, groups)):
            number[sorted(set(groups[inside]))] = found
    return number
