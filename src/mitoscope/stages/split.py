"""Stage `split`: which patients test, which validate, which train -> results/split.csv."""

import numpy as np
import pandas as pd
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

from mitoscope.datasets.annotations import read_centres
from mitoscope.datasets.fields import list_fields, read_description
from mitoscope.datasets.images import read_image
from mitoscope.errors import InputError
from mitoscope.files import atomic_path
from mitoscope.params import read_params
from mitoscope.paths import DATA, SPLIT
from mitoscope.progress import console, progress


def split() -> None:
    """Write `patient,subset,mitoses,fields`, with every patient in one subset only."""
    settings = read_params().split
    description = read_description(DATA)
    rows = []
    fields = list_fields(DATA)
    with progress() as show:
        for done, field in enumerate(fields, start=1):
            shape = read_image(field.image).shape
            centres = read_centres(field, (shape[0], shape[1]), description.annotation_order)
            rows.append({"patient": field.patient, "field": field.field, "mitoses": len(centres)})
            show("split", done, len(fields))
    table = assign(pd.DataFrame(rows), folds=settings.folds, fold=settings.fold, seed=settings.seed)
    with atomic_path(SPLIT) as temporary:
        table.to_csv(temporary, index=False)
    for subset, part in table.groupby("subset", sort=False):
        patients = ", ".join(part.patient)
        console.print(f"{subset}: {part.mitoses.sum()} mitoses in {part.fields.sum()} fields of patients {patients}")


def assign(fields: pd.DataFrame, *, folds: int, fold: int, seed: int) -> pd.DataFrame:
    """Assign patients to subsets: fold `fold` tests, the next validates, the others train.

    Args:
        fields: one row per field: patient, field, mitoses.
        folds: number of folds; as many as patients = leave one patient out.
        fold: the fold that tests.
        seed: of the shuffling.

    Returns:
        One row per patient, sorted: patient, subset (train, validation or test), mitoses, fields.

    Raises:
        InputError: more folds than patients, no such fold, or a subset without mitosis.
    """
    patients = fields.groupby("patient", sort=True).agg(mitoses=("mitoses", "sum"), fields=("field", "count"))
    if folds > len(patients):
        raise InputError(f"params.yaml: split.folds is {folds}, but there are only {len(patients)} patients")
    if fold >= folds:
        raise InputError(f"params.yaml: split.fold is {fold}, but the folds are 0 to {folds - 1}")
    # One sample per field and one per mitosis: so the folds get alike shares of both.
    groups = np.repeat(fields.patient.to_numpy(), fields.mitoses.to_numpy() + 1)
    labels = np.concatenate([[0] + [1] * count for count in fields.mitoses])
    if folds == len(patients):
        splitter = GroupKFold(folds)
    else:
        splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    tested = [set(groups[test]) for _, test in splitter.split(groups, labels, groups)]
    subset = pd.Series("train", index=patients.index)
    subset[sorted(tested[(fold + 1) % folds])] = "validation"
    subset[sorted(tested[fold])] = "test"
    table = patients.assign(subset=subset).reset_index()[["patient", "subset", "mitoses", "fields"]]
    for name in ("train", "validation", "test"):
        chosen = table[table.subset == name]
        if chosen.mitoses.sum() == 0:
            who = ", ".join(chosen.patient) or "none"
            raise InputError(
                f"params.yaml: with split.fold {fold} the {name} patients ({who}) have no mitosis; "
                "choose another split.fold, split.seed or fewer split.folds"
            )
    return table
