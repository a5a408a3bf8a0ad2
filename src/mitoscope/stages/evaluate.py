"""Stage `evaluate@arch`: the trained network on the test patients' patches and fields -> results/evaluate/<arch>/."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import precision_recall_curve, roc_curve

from mitoscope.datasets.fields import FieldOfView, list_fields
from mitoscope.datasets.patches import read_summary, sample_name
from mitoscope.detection.detector import load_detector
from mitoscope.errors import InputError
from mitoscope.evaluation.fields import count_fields, draw_errors, reach, score_fields
from mitoscope.files import atomic_path, write_json
from mitoscope.params import Evaluate, read_params
from mitoscope.paths import DATA, EVALUATED, MODELS, PATCHES, SPLIT, TRAINED
from mitoscope.progress import console, progress
from mitoscope.stages.subsets import read_patients, read_samples, score_candidates


def evaluate(arch: str) -> None:
    """Score network `arch` on the test patients at both levels; write the results and log them to its run.

    Raises:
        InputError: the network, the patches or the fields are missing, or the MLflow store lacks the network's run.
    """
    from mitoscope.evaluation.metrics import froc
    from mitoscope.learning.devices import join
    from mitoscope.learning.scoring import score_patches
    from mitoscope.reporting.figures import draw_field_scores, draw_scores
    from mitoscope.tracking import runs

    settings = read_params().evaluate
    report = TRAINED / f"{arch}.json"
    if not report.exists():
        raise InputError(f"{report}: {arch} has not been trained; run `dvc repro train@{arch}` first")
    trained = json.loads(report.read_text(encoding="utf-8"))
    network, kept = load_detector(str(MODELS / arch / "best.pt"))
    patches, rows = read_samples("test")
    patients = read_patients("test")
    tested = [field for field in list_fields(DATA) if field.patient in patients]
    out = EVALUATED / arch
    summary = read_summary(PATCHES)
    dataset = summary["dataset"]
    synthetic = ", synthetic data" if dataset["synthetic"] else ""
    title = f"{arch}, {trained['start_weights']} start weights: test {{}}{synthetic}"

    with join() as place, progress() as show:
        network.to(place.device)
        probabilities = score_patches(network, patches, place, show, f"{arch} test patches")
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

        scored = score_candidates(network, kept["field_head"], "test", place, show, views=kept["fields"]["views"])
        objects = scored.objects(kept["fields"]["typical_spread"])
        field_threshold = float(kept["field_threshold"])
        objects["predicted"] = (objects.probability >= field_threshold).astype(int)
        fields = count_fields(objects, {field.name: summary["areas_mm2"][field.name] for field in tested})
        field_metrics, field_intervals = score_fields(objects, fields, field_threshold, settings)
        field_metrics["reachable"] = reach(scored.candidates, scored.truths, dataset["microns_per_pixel"])
        draw_errors(out, objects, scored.truths, tested, dataset["microns_per_pixel"], note=synthetic, show=show)

    labels = objects.label.to_numpy()
    curve = pd.DataFrame(froc(labels, objects.probability.to_numpy(), field_metrics["area_mm2"]))
    tables = {"objects": objects, "fields": fields, "froc": curve}
    _write_tables(out, tables | _patch_tables(predictions))
    pictures = {level: out / f"{level}.png" for level in ("patches", "fields")}
    draw_scores(
        pictures["patches"],
        rows.label.to_list(),
        probabilities.tolist(),
        threshold=threshold,
        title=title.format("patches"),
    )
    draw_field_scores(pictures["fields"], {arch: curve}, fields, field_metrics, title=title.format("fields"))
    runs.log_results(
        trained["run_id"],
        trained["model_id"],
        _flat("test", metrics) | _flat("test_at_half", metrics["at_half"]) | _flat("test_fields", field_metrics),
        {
            "pictures": [*pictures.values(), out / "errors.png"],
            "pictures/overlays": sorted((out / "overlays").iterdir()),
            "tables": [out / "predictions.csv", out / "objects.csv", out / "fields.csv"],
        },
    )
    test_set = describe_test_set(tested, scored.truths, dataset["microns_per_pixel"])
    write_json(out / "test_set.json", {"run_id": trained["run_id"], **test_set})
    # Last, because it is what the other commands look for.
    write_json(out / "intervals.json", {"patches": intervals, "fields": field_intervals})
    write_json(out / "metrics.json", {"patches": metrics, "fields": field_metrics})
    for level, scores in (("patches", metrics), ("fields", field_metrics)):
        console.print(
            f"{arch}, test {level}{synthetic}, {scores['mitoses']} mitoses of {scores['patients']} patients: "
            f"recall {scores['recall']:.3f}, precision {scores['precision']:.3f}, F1 {scores['f1']:.3f}"
        )


def describe_test_set(fields: Sequence[FieldOfView], truths: pd.DataFrame, microns_per_pixel: float) -> dict[str, Any]:
    """Patients and fields of a test set, and a SHA-256 of all that a score in it depends on but the network.

    Args:
        fields: that were tested.
        truths: patient, field, row, col of their mitoses.
        microns_per_pixel: of the fields.
    """
    digest = hashlib.sha256(truths[["patient", "field", "row", "col"]].to_csv(index=False).encode())
    digest.update(f"{microns_per_pixel}".encode())
    for field in fields:
        for path in (field.image, field.mask("cmask")):
            content = path.read_bytes() if path.exists() else b""
            digest.update(f"{path.name} {hashlib.sha256(content).hexdigest()}".encode())
    patients = sorted({field.patient for field in fields})
    return {"digest": digest.hexdigest(), "patients": patients, "fields": [field.name for field in fields]}


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
    from mitoscope.evaluation.metrics import classification, patient_intervals, ranking

    labels, probabilities = predictions.label.to_numpy(), predictions.probability.to_numpy()
    patients = predictions.patient.to_numpy(dtype=str)
    if not labels.any():
        who = ", ".join(np.unique(patients))
        raise InputError(
            f"{SPLIT}: the test patients ({who}) have no mitosis away from the edges; choose another split.fold"
        )

    def score(some: Any, values: Any) -> dict[str, float]:
        return classification(some, values, threshold) | ranking(some, values)

    def score_at_half(some: Any, values: Any) -> dict[str, float]:
        return classification(some, values, 0.5)

    counts = {
        "patients": len(np.unique(patients)),
        "mitoses": int(labels.sum()),
        "negatives": int((labels == 0).sum()),
        "threshold": threshold,
    }
    bounds, bounds_at_half = (
        patient_intervals(patients, labels, probabilities, how, resamples=settings.bootstrap, seed=settings.seed)
        for how in (score, score_at_half)
    )
    metrics = counts | score(labels, probabilities) | {"at_half": score_at_half(labels, probabilities)}
    return metrics, bounds | ({"at_half": bounds_at_half} if bounds_at_half else {})


def _patch_tables(predictions: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The predictions, the confusion (a row per patch: what it is and what it was taken for), and both curves."""
    words = {0: "negative", 1: "mitosis"}
    confusion = pd.DataFrame({"actual": predictions.label.map(words), "predicted": predictions.predicted.map(words)})
    precision, recall, cuts = precision_recall_curve(predictions.label, predictions.probability)
    pr = pd.DataFrame({"recall": recall[:-1], "precision": precision[:-1], "threshold": cuts})
    false_positive_rate, true_positive_rate, cuts = roc_curve(predictions.label, predictions.probability)
    roc = pd.DataFrame({"fpr": false_positive_rate, "tpr": true_positive_rate, "threshold": cuts})
    return {"predictions": predictions, "confusion": confusion, "pr": pr, "roc": roc}


def _write_tables(out: Path, tables: dict[str, pd.DataFrame]) -> None:
    for name, table in tables.items():
        with atomic_path(out / f"{name}.csv") as temporary:
            table.to_csv(temporary, index=False)


def _flat(prefix: str, metrics: dict[str, Any]) -> dict[str, float]:
    """The scores among the metrics as MLflow names them."""
    return {f"{prefix}/{name}": value for name, value in metrics.items() if isinstance(value, float)}
