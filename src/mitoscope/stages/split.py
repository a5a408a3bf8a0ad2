"""Stage `split`: which patients test, which validate, which train -> results/split.csv."""

from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from mitoscope.datasets.annotations import read_centres
from mitoscope.datasets.fields import list_fields, read_description
from mitoscope.datasets.images import read_image
from mitoscope.datasets.patches import read_split
from mitoscope.errors import InputError
from mitoscope.files import atomic_path
from mitoscope.params import read_params
from mitoscope.paths import DATA, split_path
from mitoscope.progress import console, progress


def split(fold: int | None = None) -> None:
    """Write `patient,fold,subset,mitoses,fields`, with every patient in one subset only.

    Args:
        fold: of the cross-validation, which tests instead of `split.fold`; None = the project's own split.

    Raises:
        InputError: bad params or data, or a subset has no mitosis.
    """
    settings, path = read_params().split, split_path(fold)
    table = assign(
        count_mitoses(), folds=settings.folds, fold=settings.fold if fold is None else fold, seed=settings.seed
    )
    moved = _moved(path, table)
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False)
    for subset, part in table.groupby("subset", sort=False):
        patients = ", ".join(part.patient)
        console.print(f"{subset}: {part.mitoses.sum()} mitoses in {part.fields.sum()} fields of patients {patients}")
    if moved:
        console.print(
            f"since the last split {len(moved)} patients are in another fold: {', '.join(moved)}; a network of before "
            "may have learnt from what is tested now",
            style="yellow",
        )


def count_mitoses() -> pd.DataFrame:
    """One row per field of the dataset: patient, field, mitoses.

    Raises:
        InputError: an image or a CSV is bad.
    """
    description, fields = read_description(DATA), list_fields(DATA)
    rows = []
    with progress() as show:
        for done, field in enumerate(fields, start=1):
            shape = read_image(field.image).shape
            centres = read_centres(field, (shape[0], shape[1]), description.annotation_order)
            rows.append({"patient": field.patient, "field": field.field, "mitoses": len(centres)})
            show("split", done, len(fields))
    return pd.DataFrame(rows)


def assign(fields: pd.DataFrame, *, folds: int, fold: int, seed: int) -> pd.DataFrame:
    """Assign patients to subsets: fold `fold` tests, the next validates, the others train.

    Where every fold is one patient, they follow each other in the order of their names: who validates whom then
    depends on no count. Else the folds get alike shares of the fields and mitoses.

    Args:
        fields: one row per field: patient, field, mitoses.
        folds: number of folds; as many as patients = leave one patient out.
        fold: the fold that tests.
        seed: of the shuffling.

    Returns:
        One row per patient, sorted: patient, fold, subset (train, validation or test), mitoses, fields.

    Raises:
        InputError: more folds than patients, no such fold, or a subset without mitosis.
    """
    patients = fields.groupby("patient", sort=True).agg(mitoses=("mitoses", "sum"), fields=("field", "count"))
    if folds > len(patients):
        raise InputError(f"params.yaml: split.folds is {folds}, but there are only {len(patients)} patients")
    if fold >= folds:
        raise InputError(f"params.yaml: split.folds is {folds}: there is no fold {fold}, the last is {folds - 1}")
    number = pd.Series(range(len(patients)), index=patients.index)
    if folds < len(patients):
        # One sample per field and one per mitosis: so the folds get alike shares of both.
        groups = np.repeat(fields.patient.to_numpy(), fields.mitoses.to_numpy() + 1)
        labels = np.concatenate([[0] + [1] * count for count in fields.mitoses])
        splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
        for found, (_, inside) in enumerate(splitter.split(groups, labels, groups)):
            number[sorted(set(groups[inside]))] = found
    subset = pd.Series("train", index=patients.index)
    subset[number == (fold + 1) % folds] = "validation"
    subset[number == fold] = "test"
    table = patients.assign(fold=number, subset=subset).reset_index()
    table = table[["patient", "fold", "subset", "mitoses", "fields"]]
    for name in ("train", "validation", "test"):
        chosen = table[table.subset == name]
        if chosen.mitoses.sum() == 0:
            who = ", ".join(chosen.patient) or "none"
            raise InputError(
                f"params.yaml: with split.fold {fold} the {name} patients ({who}) have no mitosis; "
                "choose another split.fold, split.seed or fewer split.folds"
            )
    return table


def _moved(path: Path, table: pd.DataFrame) -> list[str]:
    """The patients that an earlier split had in another fold, as when others come or go; DVC keeps the file."""
    if not path.exists():
        return []
    before = read_split(path)
    if "fold" not in before:
        return []
    both = table.merge(before, on="patient", suffixes=("", "_before"))
    return both.patient[both.fold != both.fold_before].tolist()
