"""Command `crossvalidate`: every patient is tested once, by a network that never saw them -> results/crossvalidate/.

The folds run in a copy of the project, which shares DVC's cache, the MLflow store and .work with it. So whatever ends
this command, the project's own settings, results and git state are untouched; a fold that was finished comes from the
cache when the command is started again, and a training that was under way goes on from its last epoch.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from filelock import FileLock, Timeout
from rich.table import Table

from mitoscope.commands.compare import percent
from mitoscope.commands.project_copy import copy_of_project, require_commit, run_dvc
from mitoscope.datasets.fields import read_description
from mitoscope.datasets.validation import check_dataset
from mitoscope.errors import InputError
from mitoscope.evaluation.metrics import Labels, Probabilities, best_threshold, froc, patient_intervals
from mitoscope.files import atomic_path, write_json
from mitoscope.params import Evaluate, Params, Split, read_params
from mitoscope.paths import DATA, EVALUATED, MODELS, SPLIT, TRAINED, WORK
from mitoscope.progress import console, progress
from mitoscope.stages.split import assign

OUT = Path("results/crossvalidate")
LEVELS = {"patches": "predictions.csv", "fields": "objects.csv"}
COLUMNS = ("patient", "mitoses", "detections", "TP", "FP", "FN", "precision %", "recall %", "F1 %", "best F1 %*")


@dataclass(frozen=True)
class Fold:
    """What one fold left.

    Attributes:
        number: its `split.fold`.
        split: the patients and their subsets, as results/split.csv has them.
        trained: results/train/<network>.json.
        metrics: metrics.json of the test patients, by level.
        tables: by level, a row per test patch or per object of the test fields: patient, label, probability and
            predicted (1 where the probability reaches the threshold that this fold's validation patients chose).
        fields: fields.csv, a row per test field.
    """

    number: int
    split: pd.DataFrame
    trained: dict[str, Any]
    metrics: dict[str, Any]
    tables: dict[str, pd.DataFrame]
    fields: pd.DataFrame

    def patients(self, subset: str) -> list[str]:
        """The patients of a subset."""
        return list(self.split.patient[self.split.subset == subset])


def crossvalidate(arch: str) -> None:
    """Train and test network `arch` in every fold of `split.folds`, pool what the test patients gave, and print it.

    Writes results/crossvalidate/<arch>.json (settings and their digest, folds, pooled scores), <arch>.csv (a row per
    patient and level), <arch>-objects.csv (objects.csv of all folds) and <arch>.png (FROC curves and pooled counts),
    and leaves one DVC experiment per fold.

    Raises:
        InputError: bad params or data, no git commit, another cross-validation of this network is under way, or a fold
            failed.
    """
    params = read_params()
    params.for_network(arch)
    require_commit()
    splits = plan(params.split)
    dataset = _describe_dataset()
    lock = WORK / f"crossvalidate-{arch}.lock"
    lock.parent.mkdir(exist_ok=True)
    try:
        with FileLock(lock, timeout=0), copy_of_project(params.weights[arch], f"crossvalidate-{arch}") as copy:
            folds = _run_folds(copy, arch, splits)
            start = json.loads((copy / MODELS / arch / "start.json").read_text(encoding="utf-8"))
    except Timeout as error:
        raise InputError(f"{lock}: another cross-validation of {arch} is still running; wait for it") from error

    settings = {"dataset": dataset, "start_weights": start, "params": _used(params, arch)}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    pooled, patients = pool(folds, params.evaluate)
    described = [_describe_fold(arch, fold) for fold in folds]
    report = {"network": arch, **settings, "digest": digest, "folds": described, "pooled": pooled}
    objects = pd.concat([fold.tables["fields"].assign(fold=fold.number) for fold in folds])
    for name, table in ((f"{arch}.csv", patients), (f"{arch}-objects.csv", objects)):
        with atomic_path(OUT / name) as temporary:
            table.to_csv(temporary, index=False)
    _draw(folds, report)
    write_json(OUT / f"{arch}.json", report)
    _print(report, patients)


def _run_folds(copy: Path, arch: str, splits: Sequence[pd.DataFrame]) -> list[Fold]:
    """Run the pipeline in every fold, in a copy of the project, and store the folds' experiments in the project."""
    folds = []
    for number, split in enumerate(splits):
        tested = split.patient[split.subset == "test"]
        who = f"patient{'s' if len(tested) > 1 else ''} {', '.join(tested)}"
        which = f"fold {number} ({number + 1} of {len(splits)})"
        console.print(f"{which}: tests {who}", style="bold")
        name, fold = experiment(arch, number), f"split.fold={number}"
        if run_dvc(copy, "exp", "run", "--name", name, "--set-param", fold, f"evaluate@{arch}"):
            raise InputError(
                f"{which} failed, see above; started again, `mitoscope crossvalidate {arch}` goes on with it"
            )
        folds.append(read_fold(copy, arch, number))
    names = [experiment(arch, fold.number) for fold in folds]
    if run_dvc(copy, "exp", "push", "--quiet", "--no-cache", "--force", "origin", *names):
        raise InputError("the folds' experiments could not be stored in this repository, see above")
    return folds


def experiment(arch: str, number: int) -> str:
    """The name of a fold's DVC experiment."""
    return f"crossvalidate-{arch}-fold{number}"


def plan(settings: Split) -> list[pd.DataFrame]:
    """The split of every fold, so that a fold that cannot work ends the command before the first one has run.

    Raises:
        InputError: the dataset has a problem, or a subset of some fold has no mitosis.
    """
    with progress() as show:
        report = check_dataset(DATA, on_progress=show)
    if report.problems:
        raise InputError(report.problems[0])
    fields = pd.DataFrame(
        {"patient": field.patient, "field": field.name, "mitoses": field.mitoses} for field in report.fields
    )
    return [assign(fields, folds=settings.folds, fold=fold, seed=settings.seed) for fold in range(settings.folds)]


def read_fold(folder: Path, arch: str, number: int) -> Fold:
    """Read what fold `number` of network `arch` left in a project's `folder`."""
    results = folder / EVALUATED / arch

    def table(path: Path) -> pd.DataFrame:
        return pd.read_csv(path, dtype={"patient": str, "field": str}, keep_default_na=False)  # a patient called NA

    return Fold(
        number,
        table(folder / SPLIT),
        json.loads((folder / TRAINED / f"{arch}.json").read_text(encoding="utf-8")),
        json.loads((results / "metrics.json").read_text(encoding="utf-8")),
        {level: table(results / file) for level, file in LEVELS.items()},
        table(results / "fields.csv"),
    )


def pool(folds: Sequence[Fold], settings: Evaluate) -> tuple[dict[str, Any], pd.DataFrame]:
    """Scores of the test patients of all folds together, and of each patient.

    Every fold has another network, whose probabilities are on a scale of their own: they are cut at the fold's own
    threshold and only then pooled, and there is no pooled average precision.

    Args:
        folds: with every patient in the test subset of one of them.
        settings: of the intervals.

    Returns:
        By level: patients, the counts mitoses, detections, tp, fp, fn; precision, recall and f1 as fractions of 1; and
        under `intervals` their 95 % intervals by patient, empty with a single patient. And a row per level and
        patient: the fold, the same counts and scores (recall and f1 empty without mitosis), and the f1 of the
        patient's own best threshold, which shows how much the validation patients' threshold loses and which nobody
        can attain, since it is chosen on the patient it scores.
    """
    pooled, rows = {}, []
    for level in LEVELS:
        table = pd.concat([fold.tables[level] for fold in folds], ignore_index=True)
        intervals = patient_intervals(
            table.patient.to_numpy(dtype=str),
            table.label.to_numpy(),
            table.predicted.to_numpy(dtype=float),
            _scores,
            resamples=settings.bootstrap,
            seed=settings.seed,
        )
        count = {"patients": sum(len(fold.patients("test")) for fold in folds)}
        pooled[level] = count | _count(table) | {"intervals": intervals}
        for fold in folds:
            for patient in fold.patients("test"):
                own = fold.tables[level][fold.tables[level].patient == patient]
                row = {"level": level, "patient": patient, "fold": fold.number, **_count(own)}
                if row["mitoses"]:
                    labels, probabilities = own.label.to_numpy(), own.probability.to_numpy()
                    row["best_f1_not_attainable"] = best_threshold(labels, probabilities)[1]
                else:
                    row |= {"recall": np.nan, "f1": np.nan, "best_f1_not_attainable": np.nan}
                rows.append(row)
    return pooled, pd.DataFrame(rows).sort_values(["level", "patient"], ascending=[False, True], ignore_index=True)


def _count(table: pd.DataFrame) -> dict[str, Any]:
    """Counts and scores of the rows of a level's table."""
    true, found = table.label == 1, table.predicted == 1
    counts = {"mitoses": true, "detections": found, "tp": true & found, "fp": ~true & found, "fn": true & ~found}
    scores = _scores(table.label.to_numpy(), table.predicted.to_numpy(dtype=float))
    return {name: int(rows.sum()) for name, rows in counts.items()} | scores


def _scores(labels: Labels, predicted: Probabilities) -> dict[str, float]:
    """Precision, recall and F1 of zeros and ones; what is undefined counts as 0."""
    hits, found, true = float((labels * predicted).sum()), predicted.sum(), labels.sum()
    return {
        "precision": hits / max(found, 1),
        "recall": hits / max(true, 1),
        "f1": 2 * hits / max(found + true, 1),
    }


def _describe_dataset() -> dict[str, Any]:
    description = read_description(DATA)
    tracked = Path("data.dvc")
    if not tracked.exists():
        raise InputError(f"{tracked}: no such file; bring the dataset under DVC first with `dvc add data`")
    md5 = yaml.safe_load(tracked.read_text(encoding="utf-8"))["outs"][0]["md5"]
    return {"name": description.name, "synthetic": description.synthetic, "md5": md5}


def _used(params: Params, arch: str) -> dict[str, Any]:
    """The settings that were cross-validated."""
    train, weights = params.for_network(arch)
    return {
        "split": params.split.model_dump(exclude={"fold"}),
        "extract": params.extract.model_dump(),
        "weights": weights,
        "train": train.model_dump(mode="json"),
        "search": params.search.model_dump(mode="json", exclude={"storage"}),  # a URL may hold a password
        "evaluate": params.evaluate.model_dump(),
    }


def _describe_fold(arch: str, fold: Fold) -> dict[str, Any]:
    who = {subset: fold.patients(subset) for subset in ("test", "validation")}
    names = {"fold": fold.number, "experiment": experiment(arch, fold.number), "run_id": fold.trained["run_id"]}
    return names | who | {level: fold.metrics[level] for level in LEVELS}


def _draw(folds: Sequence[Fold], report: dict[str, Any]) -> None:
    """Draw the FROC curve of every fold, the pooled counts, and the densities of all fields."""
    from mitoscope.reporting.figures import draw_field_scores

    curves = {}
    # By patient, as in the panel of the fields: leaving one patient out, each has one colour in both.
    for fold in sorted(folds, key=lambda fold: fold.patients("test")):
        objects = fold.tables["fields"]
        points = froc(objects.label.to_numpy(), objects.probability.to_numpy(), float(fold.fields.area_mm2.sum()))
        curves[f"tests {', '.join(fold.patients('test'))}"] = pd.DataFrame(points)
    fields = pd.concat([fold.fields for fold in folds])
    pooled = report["pooled"]["fields"] | {"area_mm2": float(fields.area_mm2.sum())}
    path = OUT / f"{report['network']}.png"
    draw_field_scores(path, curves, fields, pooled, title=f"{_name(report)}: fields of {len(folds)} folds, pooled")


def _name(report: dict[str, Any]) -> str:
    dataset = report["dataset"]
    data = "synthetic" if dataset["synthetic"] else dataset["name"]
    return f"{report['network']}, {report['start_weights']['source']} start weights, {data} data"


def _print(report: dict[str, Any], patients: pd.DataFrame) -> None:
    network = _name(report)
    for level, pooled in report["pooled"].items():
        table = Table(title=f"{network}: test {level} of {len(report['folds'])} folds", title_justify="left")
        for column in COLUMNS:
            table.add_column(column, justify="left" if column == "patient" else "right", no_wrap=column == "patient")
        for row in patients[patients.level == level].to_dict("records"):
            table.add_row(*cells(row["patient"], row), percent(row["best_f1_not_attainable"]))
        table.add_section()
        table.add_row(*cells("pooled", pooled), "", style="bold")
        console.print(table)
    console.print(
        "Each fold's threshold is chosen on its validation patients; in brackets 95 % intervals by patient. * At the "
        "patient's own best threshold, which nobody knows beforehand: a diagnosis, not a result."
    )
    console.print(
        f"More in {OUT}: {report['network']}.json, .csv, -objects.csv and .png; the project's own results stay."
    )


def cells(who: str, row: dict[str, Any]) -> list[str]:
    """A row of COLUMNS, but for the last: counts, and scores in percent with their intervals."""
    counts = (str(row[name]) for name in ("mitoses", "detections", "tp", "fp", "fn"))
    intervals = row.get("intervals", {})
    return [who, *counts, *(percent(row[name], intervals.get(name)) for name in ("precision", "recall", "f1"))]
