"""Stage `split`: assign patients to training, validation and test -> results/split.csv."""

from pathlib import Path

import pandas as pd

from mitoscope.datasets.annotations import read_centres
from mitoscope.datasets.fields import list_fields, read_description
from mitoscope.datasets.folds import number_folds
from mitoscope.datasets.patches import read_split
from mitoscope.datasets.readers import read_image
from mitoscope.errors import InputError
from mitoscope.files import atomic_path
from mitoscope.params import read_params
from mitoscope.paths import DATA, split_path
from mitoscope.progress import console, progress


def split(fold: int | None = None) -> None:
    """Write a table of patients: patient, fold, subset, mitoses, fields. Each patient is in one subset.

    Args:
        fold: fold of the cross-validation that tests instead of `split.fold`; None = the project's own split.

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
            f"since the last split {len(moved)} patients have moved to another fold: {', '.join(moved)}; an earlier "
            "network may have learnt from patients that are now tested",
            style="yellow",
        )


def count_mitoses() -> pd.DataFrame:
    """Return one row per field of the dataset: patient, field, domain, mitoses.

    Raises:
        InputError: an image or a CSV file is bad.
    """
    description, fields = read_description(DATA), list_fields(DATA)
    rows = []
    with progress() as show:
        for done, field in enumerate(fields, start=1):
            shape = read_image(field.image).shape
            centres = read_centres(field, (shape[0], shape[1]), description.annotation_order)
            names = {"patient": field.patient, "field": field.field, "domain": field.domain}
            rows.append(names | {"mitoses": len(centres)})
            show("split", done, len(fields))
    return pd.DataFrame(rows)


def assign(fields: pd.DataFrame, *, folds: int, fold: int, seed: int) -> pd.DataFrame:
    """Assign patients to subsets: fold `fold` tests, the next validates, the others train.

    Args:
        fields: one row per field: patient, field, domain, mitoses.
        folds: number of folds, as in `number_folds`.
        fold: the fold that tests.
        seed: random seed of the shuffling.

    Returns:
        One row per patient, sorted: patient, fold, subset (train, validation or test), mitoses, fields.

    Raises:
        InputError: more folds than patients, `fold` does not exist, or a subset has no mitosis.
    """
    patients = fields.groupby("patient", sort=True).agg(mitoses=("mitoses", "sum"), fields=("field", "count"))
    if folds > len(patients):
        raise InputError(f"params.yaml: split.folds is {folds}, but there are only {len(patients)} patients")
    if fold >= folds:
        raise InputError(f"params.yaml: split.folds is {folds}, so there is no fold {fold}; the last is {folds - 1}")
    number = number_folds(fields, folds, seed)
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
    """Return the patients that were in another fold in the last split; DVC keeps its file (`persist`)."""
    if not path.exists():
        return []
    before = read_split(path)
    if "fold" not in before:
        return []
    both = table.merge(before, on="patient", suffixes=("", "_before"))
    return both.patient[both.fold != both.fold_before].tolist()
