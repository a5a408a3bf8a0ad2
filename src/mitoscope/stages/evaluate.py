"""Stage `evaluate@arch`: the trained network on the test patients -> results/evaluate/<arch>/."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import precision_recall_curve, roc_curve

from mitoscope.errors import InputError
from mitoscope.files import atomic_path, write_json
from mitoscope.histology.patches import read_summary, sample_name
from mitoscope.params import Evaluate, read_params
from mitoscope.paths import EVALUATED, MODELS, PATCHES, SPLIT, TRAINED
from mitoscope.progress import console, progress
from mitoscope.stages.subsets import read_subset


def evaluate(arch: str) -> None:
    """Score the test patches with network `arch`; write metrics, curves and predictions and log them to its run.

    Raises:
        InputError: the network or the patches are missing, or the MLflow store lacks the network's run.
    """
    from mitoscope.learning import checkpoints
    from mitoscope.learning.devices import join
    from mitoscope.learning.loop import score_patches
    from mitoscope.tracking import runs
    from mitoscope.tracking.figures import draw_scores

    settings = read_params().evaluate
    report = TRAINED / f"{arch}.json"
    if not report.exists():
        raise InputError(f"{report}: {arch} has not been trained; run `dvc repro train@{arch}` first")
    trained = json.loads(report.read_text(encoding="utf-8"))
    network, kept = checkpoints.load_network(MODELS / arch / "best.pt")
    patches, rows = read_subset("test")
    with join() as place, progress() as show:
        probabilities = score_patches(network.to(place.device), patches, place, show, f"{arch} test")
    threshold = float(kept["threshold"])
    predictions = pd.DataFrame(
        {
            "name": [sample_name(row) for row in rows.itertuples()],
            "patient": rows.patient,
            "label": rows.label,
            "probability": probabilities,
            "predicted": (probabilities >= threshold).astype(int),
        }
    )
    metrics, intervals = score_test(predictions, threshold, settings)

    out = EVALUATED / arch
    _write_tables(out, predictions)
    synthetic = ", synthetic data" if read_summary(PATCHES)["dataset"]["synthetic"] else ""
    title = f"{arch}, {trained['start_weights']} start weights: test patches{synthetic}"
    draw_scores(out / "scores.png", rows.label.to_list(), probabilities.tolist(), threshold=threshold, title=title)
    flat = {f"test/{name}": value for name, value in metrics.items() if isinstance(value, float)}
    flat |= {f"test_at_half/{name}": value for name, value in metrics["at_half"].items() if isinstance(value, float)}
    runs.log_results(
        trained["run_id"],
        trained["model_id"],
        flat,
        {"pictures": [out / "scores.png"], "tables": [out / "predictions.csv"]},
    )
    # Last, because it is what the other commands look for.
    write_json(out / "intervals.json", {"patches": intervals})
    write_json(out / "metrics.json", {"patches": metrics})
    console.print(
        f"{arch} on {metrics['mitoses']} mitoses and {metrics['negatives']} negatives of {metrics['patients']} test "
        f"patients{synthetic}: recall {metrics['recall']:.3f}, precision {metrics['precision']:.3f}, "
        f"F1 {metrics['f1']:.3f}",
    )


def score_test(
    predictions: pd.DataFrame, threshold: float, settings: Evaluate
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Scores of the test patches, and their 95 % intervals by patient.

    Args:
        predictions: patient, label and probability of every test patch.
        threshold: chosen on the validation patients.
        settings: of the intervals.

    Returns:
        Counts; accuracy, precision, recall, f1 at `threshold` and under `at_half` at 0.5; ap and auc. And under the
        same names [low, high]; empty with a single patient.

    Raises:
        InputError: there is no mitosis among the test patches, so that recall and F1 mean nothing.
    """
    from mitoscope.learning.scores import classification, patient_intervals, ranking

    labels, probabilities = predictions.label.to_numpy(), predictions.probability.to_numpy()
    patients = predictions.patient.to_numpy(dtype=str)
    if not labels.any():
        who = ", ".join(np.unique(patients))
        raise InputError(f"{SPLIT}: the test patients ({who}) have no mitosis; choose another split.fold")

    def score(some: Any, values: Any) -> dict[str, float]:
        at_half = {f"at_half.{name}": value for name, value in classification(some, values, 0.5).items()}
        return classification(some, values, threshold) | ranking(some, values) | at_half

    intervals = patient_intervals(
        patients, labels, probabilities, score, resamples=settings.bootstrap, seed=settings.seed
    )
    counts = {
        "patients": len(np.unique(patients)),
        "mitoses": int(labels.sum()),
        "negatives": int((labels == 0).sum()),
        "threshold": threshold,
    }
    return counts | _nested(score(labels, probabilities)), _nested(intervals)


def _nested(scores: dict[str, Any]) -> dict[str, Any]:
    """`at_half.f1` as an entry of a dictionary `at_half`."""
    nested = {name: value for name, value in scores.items() if "." not in name}
    half = {name.removeprefix("at_half."): value for name, value in scores.items() if "." in name}
    return nested | ({"at_half": half} if half else {})


def _write_tables(out: Path, predictions: pd.DataFrame) -> None:
    """predictions.csv, confusion.csv (a row per patch: what it is and what it was taken for), pr.csv and roc.csv."""
    words = {0: "negative", 1: "mitosis"}
    confusion = pd.DataFrame({"actual": predictions.label.map(words), "predicted": predictions.predicted.map(words)})
    precision, recall, cuts = precision_recall_curve(predictions.label, predictions.probability)
    pr = pd.DataFrame({"recall": recall[:-1], "precision": precision[:-1], "threshold": cuts})
    false_positive_rate, true_positive_rate, cuts = roc_curve(predictions.label, predictions.probability)
    roc = pd.DataFrame({"fpr": false_positive_rate, "tpr": true_positive_rate, "threshold": cuts})
    tables = {"predictions": predictions, "confusion": confusion, "pr": pr, "roc": roc}
    for name, table in tables.items():
        with atomic_path(out / f"{name}.csv") as temporary:
            table.to_csv(temporary, index=False)
