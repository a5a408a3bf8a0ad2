"""Stage `pool@network` of the cross-validation: pool the results of all folds -> results/crossvalidate/<network>.*."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mitoscope.datasets.patches import read_split, read_summary
from mitoscope.errors import InputError
from mitoscope.evaluation.fields import by_domain, without_undefined
from mitoscope.evaluation.intervals import patient_intervals
from mitoscope.evaluation.metrics import Level, best_threshold, froc, scores
from mitoscope.files import atomic_path, write_json
from mitoscope.params import Evaluate, Params, read_params
from mitoscope.paths import CROSSVALIDATED, DATA, PATCHES, Outputs, split_path
from mitoscope.progress import console
from mitoscope.reporting.crossvalidation import describe
from mitoscope.reporting.figures import draw_field_scores
from mitoscope.reporting.results import Results, read_results
from mitoscope.tracking.provenance import dataset_digest, hash_settings

_TABLES: dict[Level, str] = {"patches": "predictions.csv", "fields": "objects.csv"}
# Left out of the settings: the number of the fold, and a URL that may contain a password.
_LEFT_OUT = {"split": {"fold"}, "search": {"storage"}}


@dataclass(frozen=True)
class Fold:
    """The results of one fold.

    Attributes:
        number: number of the fold.
        results: reports of its stages; their test set names the patients that the fold tests.
        tables: by level, a row per test patch or per object in the test fields: patient, label, probability, and
            predicted (1 if the probability reaches the threshold, which was chosen without this fold's test patients).
        fields: a row per test field: patient, area_mm2, and densities per mm2.
    """

    number: int
    results: Results
    tables: dict[Level, pd.DataFrame]
    fields: pd.DataFrame

    @property
    def tested(self) -> list[str]:
        """The test patients."""
        return list(self.results.test_set["patients"])


def pool(network: str) -> None:
    """Pool the results of the test patients of all folds.

    Writes <network>.json (settings and their digest, folds, pooled scores), <network>.csv (a row per patient and
    level), <network>-objects.csv (the objects of all folds) and <network>.png (FROC curves and pooled counts).

    Raises:
        InputError: bad params, or a fold's files are missing, do not belong together, or are from another split or
            number of folds.
    """
    params = read_params()
    params.train_of(network)
    folds = read_folds(network, params.split.folds)
    summary = read_summary(PATCHES)
    dataset = {name: summary["dataset"][name] for name in ("name", "synthetic")}
    dataset["md5"] = dataset_digest(DATA, summary["digest"])
    start = dict(folds[0].results.start)
    pooled, patients = pool_counts(folds, params.evaluate)
    patients.insert(0, "network", network)
    report = {
        "network": network,
        "dataset": dataset,
        "start_weights": start,
        "params": settings_of(params, network),
        # Only entries that differ from their defaults, so a new option does not change the digest.
        "digest": hash_settings([dataset, start, settings_of(params, network, chosen=True)]),
        "folds": [_describe_fold(fold) for fold in folds],
        "pooled": pooled,
    }
    objects = pd.concat([fold.tables["fields"].assign(network=network, fold=fold.number) for fold in folds])
    for name, table in ((f"{network}.csv", patients), (f"{network}-objects.csv", objects)):
        with atomic_path(CROSSVALIDATED / name) as temporary:
            table.to_csv(temporary, index=False)
    _draw(CROSSVALIDATED / f"{network}.png", folds, report)
    write_json(CROSSVALIDATED / f"{network}.json", report)
    for level, found in pooled.items():
        console.print(
            f"{network}, {len(folds)} folds, test {level}, {found['mitoses']} mitoses of {found['patients']} patients: "
            f"recall {found['recall']:.3f}, precision {found['precision']:.3f}, F1 {found['f1']:.3f}"
        )


def read_folds(network: str, count: int) -> list[Fold]:
    """Read the results of all folds of a network.

    Args:
        network: name of an entry under `train` in params.yaml.
        count: `split.folds`.

    Raises:
        InputError: a fold's files are missing or do not belong together, or the folds do not test every patient once.
    """
    remedy = f"run `mitoscope crossvalidate {network}`"
    folds, patients = [], set()
    for number in range(count):
        path, outputs = split_path(number), Outputs(network, number)
        if not path.exists():
            raise InputError(f"{path}: no such file, but split.folds is {count}; {remedy}")
        split = read_split(path)
        if split.fold.nunique() != count:
            raise InputError(f"{path}: has {split.fold.nunique()} folds, but split.folds is {count}; {remedy}")
        results = read_results(outputs)
        if sorted(results.test_set["patients"]) != sorted(split.patient[split.subset == "test"]):
            raise InputError(f"{outputs.evaluated}: the tested patients are not those in {path}; {remedy}")
        tables = {level: _read_table(outputs.evaluated / name) for level, name in _TABLES.items()}
        folds.append(Fold(number, results, tables, _read_table(outputs.evaluated / "fields.csv")))
        patients |= set(split.patient)
    if sorted(patient for fold in folds for patient in fold.tested) != sorted(patients):
        raise InputError(f"{path.parent}: the folds do not test every patient once; {remedy}")
    return folds


def _read_table(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype={"patient": str, "field": str}, keep_default_na=False)  # a patient may be called NA


def pool_counts(folds: Sequence[Fold], settings: Evaluate) -> tuple[dict[Level, dict[str, Any]], pd.DataFrame]:
    """Score the test patients of all folds together, and each patient alone.

    Each fold has its own trained network, and probabilities of different networks are not comparable. So each fold's
    own threshold is applied before pooling, and there is no pooled average precision.

    Args:
        folds: all folds; each patient is tested in exactly one.
        settings: settings of the intervals.

    Returns:
        By level: the number of patients; the counts mitoses, detections, tp, fp, fn; the metrics at the threshold as
        fractions of 1; under `intervals` their 95 % intervals by patient, empty with a single patient; and for fields
        the area and, under `domains`, the same of each domain, if there are several, without recall and f1 where there
        are no mitoses.
        And a row per level and patient: the fold, the same counts and metrics (recall and f1 are empty without
        mitoses), and the f1 at the patient's own best threshold. The last shows how much is lost with the fold's
        threshold; it is not attainable, since this threshold is chosen on the patient that it scores.
    """
    fields = pd.concat([fold.fields for fold in folds])
    areas = _areas(fields)
    pooled: dict[Level, dict[str, Any]] = {}
    rows = []
    for level in _TABLES:
        table = pd.concat([fold.tables[level] for fold in folds], ignore_index=True)
        pooled[level] = _score(table, level, settings, areas)
        if level == "fields":
            pooled[level]["domains"] = {
                domain: without_undefined(_score(mine, level, settings, _areas(inside)))
                for domain, inside, mine in by_domain(fields, table)
            }
        for fold in folds:
            for patient in fold.tested:
                own = fold.tables[level][fold.tables[level].patient == patient]
                area = {"area_mm2": areas[patient]} if level == "fields" else {}
                row = {"level": level, "patient": patient, "fold": fold.number, **_count(own, level, **area)}
                if row["mitoses"]:
                    labels, probabilities = own.label.to_numpy(), own.probability.to_numpy()
                    row["best_f1_not_attainable"] = best_threshold(labels, probabilities)[1]
                else:
                    row |= {"recall": np.nan, "f1": np.nan, "best_f1_not_attainable": np.nan}
                rows.append(row)
    return pooled, pd.DataFrame(rows).sort_values(["level", "patient"], ascending=[False, True], ignore_index=True)


def _areas(fields: pd.DataFrame) -> dict[str, float]:
    """Return the area of each patient's fields, mm2."""
    return {str(patient): float(area) for patient, area in fields.groupby("patient").area_mm2.sum().items()}


def _score(table: pd.DataFrame, level: Level, settings: Evaluate, areas: dict[str, float]) -> dict[str, Any]:
    """Return counts, metrics and intervals of the rows of a level's table; `areas` are those of all its patients."""
    intervals = patient_intervals(
        table.patient.to_numpy(dtype=str),
        table.label.to_numpy(),
        table.predicted.to_numpy(dtype=float),
        partial(scores, level, threshold=1.0, ranking=False),
        resamples=settings.bootstrap,
        seed=settings.seed,
        areas_mm2=areas if level == "fields" else None,
    )
    area = {"area_mm2": float(sum(areas.values()))} if level == "fields" else {}
    return {"patients": len(areas), **area, **_count(table, level, **area), "intervals": intervals}


def _count(table: pd.DataFrame, level: Level, area_mm2: float | None = None) -> dict[str, Any]:
    """Return counts and metrics of the rows of a level's table, at the threshold of each row's fold."""
    true, found = table.label == 1, table.predicted == 1
    counts = {"mitoses": true, "detections": found, "tp": true & found, "fp": ~true & found, "fn": true & ~found}
    predicted = table.predicted.to_numpy(dtype=float)
    metrics = scores(level, table.label.to_numpy(), predicted, 1.0, area_mm2=area_mm2, ranking=False)
    return {name: int(rows.sum()) for name, rows in counts.items()} | metrics


def settings_of(params: Params, network: str, *, chosen: bool = False) -> dict[str, Any]:
    """Return the settings of a network's cross-validation: all, or (`chosen`) those that differ from their defaults."""
    blocks = {
        "split": params.split,
        "extract": params.extract,
        "train": params.train_of(network),
        "detection": params.detection_of(network),
        "search": params.search,
        "evaluate": params.evaluate,
    }
    return {"weights": params.weights_of(network)} | {
        name: block.model_dump(mode="json", exclude=_LEFT_OUT.get(name), exclude_defaults=chosen)
        for name, block in blocks.items()
    }


def _describe_fold(fold: Fold) -> dict[str, Any]:
    results = fold.results
    names = {"fold": fold.number, "run_id": results.run_id, "model_id": results.model_id}
    who = {"test": fold.tested, "validation": results.trained["patients"]["validation"]}
    return names | who | {level: results.metrics[level] for level in _TABLES}


def _draw(path: Path, folds: Sequence[Fold], report: dict[str, Any]) -> None:
    """Draw the FROC curve of every fold, the pooled counts, and the densities of all fields."""
    curves = {}
    # Ordered by patient, like the panel of the fields, so that with one patient per fold the colours match.
    for fold in sorted(folds, key=lambda fold: fold.tested):
        objects = fold.tables["fields"]
        points = froc(objects.label.to_numpy(), objects.probability.to_numpy(), float(fold.fields.area_mm2.sum()))
        curves[f"tests {', '.join(fold.tested)}"] = pd.DataFrame(points)
    fields = pd.concat([fold.fields for fold in folds])
    title = f"{describe(report)}: fields of {len(folds)} folds, pooled"
    draw_field_scores(path, curves, fields, report["pooled"]["fields"], title=title)
