"""Stage `evaluate@network`: score the detector on test patches and test fields -> results/evaluate/<network>/."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd
from sklearn.metrics import precision_recall_curve, roc_curve

from mitoscope.datasets.fields import list_fields
from mitoscope.datasets.patches import read_summary, sample_name
from mitoscope.errors import InputError
from mitoscope.files import read_json, write_json
from mitoscope.params import Evaluate, read_params
from mitoscope.paths import DATA, PATCHES, Outputs
from mitoscope.progress import console, progress
from mitoscope.tracking.provenance import dataset_digest

if TYPE_CHECKING:
    from mitoscope.detection.detector import Detector

Show = Callable[[str, int, int], None]


def evaluate(network: str, fold: int | None = None) -> None:
    """Score a network's detector on the test patients' patches and fields; write the results and log them to its run.

    Args:
        network: name of an entry under `train` in params.yaml.
        fold: fold of the cross-validation; None = the project's own split.

    Raises:
        InputError: a file of an earlier stage is missing or from another training, the detector was fitted or its
            threshold chosen on a test patient, or the MLflow store does not contain the network's run.
    """
    from mitoscope.detection.detector import Detector
    from mitoscope.detection.stored import StoredFields
    from mitoscope.detection.whole_fields import describe_test_set, score_whole_fields
    from mitoscope.learning.devices import join
    from mitoscope.reporting.results import counted, logged_files, logged_scores
    from mitoscope.reporting.whole_fields import write_whole_fields
    from mitoscope.tracking import runs
    from mitoscope.tracking.store import connect, require_run

    params, outputs = read_params(), Outputs(network, fold)
    params.train_of(network)
    if not outputs.detector.exists():
        raise InputError(f"{outputs.detector}: no such file; run {outputs.repro('detector')} first")
    detector = Detector.load(outputs.detector)
    report = _read_report(outputs, detector.origin.run_id)
    require_run(connect(), detector.origin.run_id)  # before scoring, which may take long
    stored = StoredFields.read(PATCHES, outputs.split, "test")
    digest = dataset_digest(DATA, read_summary(PATCHES)["digest"])
    if known := detector.origin.known(stored.images, digest):
        raise InputError(
            f"{outputs.split}: patient {known[0]} is tested, but {outputs.detector} has learnt from this patient or "
            f"its threshold was chosen on this patient; run {outputs.repro('evaluate')}, which trains with this split"
        )
    tested = [field for field in list_fields(DATA) if field.name in stored.areas_mm2]

    with join() as device, progress() as show:
        detector.to(device.torch)
        patches, patch_intervals = _score_patches(detector, outputs, params.evaluate, show)
        fields = score_whole_fields(detector, stored, params.evaluate, partial(show, f"{network} test fields"))
        write_whole_fields(
            outputs.evaluated,
            network,
            fields,
            stored,
            tested,
            title=_title(detector, "fields"),
            note=_synthetic(detector),
            on_field=partial(show, "overlays"),
        )
    metrics = {"patches": patches, "fields": fields.metrics}
    runs.log_results(
        detector.origin.run_id, report["model_id"], logged_scores(metrics), logged_files(outputs.evaluated)
    )
    names = {name: report[name] for name in ("run_id", "model_id")}
    write_json(outputs.evaluated / "test_set.json", names | describe_test_set(tested, stored, digest))
    # metrics.json is written last: other commands take it as the sign that the results are complete.
    write_json(outputs.evaluated / "intervals.json", {"patches": patch_intervals, "fields": fields.intervals})
    write_json(outputs.evaluated / "metrics.json", metrics)
    synthetic = _synthetic(detector)
    for level, scores in metrics.items():
        console.print(
            f"{network}, test {level}{synthetic}, {scores['mitoses']} mitoses of "
            f"{counted(scores['patients'], 'patient')}: "
            f"recall {scores['recall']:.3f}, precision {scores['precision']:.3f}, F1 {scores['f1']:.3f}"
        )


def _score_patches(
    detector: "Detector", outputs: Outputs, settings: Evaluate, show: Show
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Score the test patches one by one; write predictions, confusion and curves, and draw them.

    Returns:
        The scores, and their 95 % intervals by patient under the same names.
    """
    from mitoscope.detection.stored import read_samples
    from mitoscope.evaluation.patches import score_predictions
    from mitoscope.reporting.figures import draw_scores
    from mitoscope.reporting.whole_fields import write_tables

    network, threshold = outputs.network, detector.patch_threshold
    samples, rows = read_samples(PATCHES, outputs.split, "test")
    probabilities = detector.classify(samples.windows, partial(show, f"{network} test patches"))
    predictions = pd.DataFrame(
        {
            "name": [sample_name(row) for row in rows.itertuples()],
            "patient": rows.patient,
            "label": rows.label,
            "probability": probabilities,
            "predicted": (probabilities >= threshold).astype(int),
        }
    )
    metrics, intervals = score_predictions(predictions, threshold, settings)
    precision, recall, cuts = precision_recall_curve(predictions.label, predictions.probability)
    false_positive_rate, true_positive_rate, roc_cuts = roc_curve(predictions.label, predictions.probability)
    words = {0: "negative", 1: "mitosis"}  # one row per patch: true and predicted class
    confusion = {"actual": predictions.label.map(words), "predicted": predictions.predicted.map(words)}
    curves: dict[str, dict[str, Any]] = {
        "confusion": confusion,
        "pr": {"recall": recall[:-1], "precision": precision[:-1], "threshold": cuts},
        "roc": {"fpr": false_positive_rate, "tpr": true_positive_rate, "threshold": roc_cuts},
    }
    tables = {name: pd.DataFrame(columns) for name, columns in curves.items()}
    write_tables(outputs.evaluated, network, {"predictions": predictions} | tables)
    draw_scores(
        outputs.evaluated / "patches.png",
        rows.label.to_list(),
        probabilities.tolist(),
        threshold=threshold,
        title=_title(detector, "patches"),
    )
    return metrics, intervals


def _title(detector: "Detector", level: str) -> str:
    origin = detector.origin
    return f"{origin.network}, {origin.start_weights} start weights: test {level}{_synthetic(detector)}"


def _synthetic(detector: "Detector") -> str:
    return ", synthetic data" if detector.origin.synthetic else ""


def _read_report(outputs: Outputs, run_id: str) -> dict[str, Any]:
    """Read the report of stage `detector`; check that it, the detector and the report of `train` are from one training.

    Raises:
        InputError: a report is missing or from another training.
    """
    report: dict[str, Any] = {}
    for path in (outputs.trained, outputs.detected):
        report = read_json(path, f"run {outputs.repro('detector')} first")
        if report["run_id"] != run_id:
            raise InputError(
                f"{outputs.detector}: is from run {run_id}, but {path} is from run {report['run_id']}; run "
                f"{outputs.repro('detector')} first"
            )
    return report
