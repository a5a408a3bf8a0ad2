"""Stage `evaluate@network`: score the detector on test patches and test fields -> results/evaluate/<network>/."""

import hashlib
import json
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd
from sklearn.metrics import precision_recall_curve, roc_curve

from mitoscope.datasets.fields import FieldOfView, list_fields
from mitoscope.datasets.patches import read_summary, sample_name
from mitoscope.errors import InputError
from mitoscope.files import atomic_path, read_json, write_json
from mitoscope.params import Evaluate, read_params
from mitoscope.paths import DATA, PATCHES, Outputs
from mitoscope.progress import console, progress
from mitoscope.tracking.provenance import dataset_digest

if TYPE_CHECKING:
    from mitoscope.detection.detector import Detector
    from mitoscope.detection.stored import StoredFields

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
    from mitoscope.learning.devices import join
    from mitoscope.reporting.results import logged_files, logged_scores
    from mitoscope.tracking import runs
    from mitoscope.tracking.store import connect, require_run

    settings, outputs = read_params().evaluate, Outputs(network, fold)
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
        patches = _score_patches(detector, outputs, settings, show)
        fields = _score_fields(detector, stored, tested, outputs, settings, show)
    metrics = {"patches": patches.metrics, "fields": fields.metrics}
    runs.log_results(
        detector.origin.run_id, report["model_id"], logged_scores(metrics), logged_files(outputs.evaluated)
    )
    names = {name: report[name] for name in ("run_id", "model_id")}
    write_json(outputs.evaluated / "test_set.json", names | describe_test_set(tested, stored, digest))
    # metrics.json is written last: other commands take it as the sign that the results are complete.
    write_json(outputs.evaluated / "intervals.json", {"patches": patches.intervals, "fields": fields.intervals})
    write_json(outputs.evaluated / "metrics.json", metrics)
    synthetic = ", synthetic data" if detector.origin.synthetic else ""
    for level, scores in metrics.items():
        console.print(
            f"{network}, test {level}{synthetic}, {scores['mitoses']} mitoses of {scores['patients']} patients: "
            f"recall {scores['recall']:.3f}, precision {scores['precision']:.3f}, F1 {scores['f1']:.3f}"
        )


class Scores(NamedTuple):
    """The scores of one level, and their 95 % intervals by patient, under the same names."""

    metrics: dict[str, Any]
    intervals: dict[str, Any]


def _score_patches(detector: "Detector", outputs: Outputs, settings: Evaluate, show: Show) -> Scores:
    """Score the test patches one by one; write predictions, confusion and curves, and draw them."""
    from mitoscope.detection.stored import read_samples
    from mitoscope.evaluation.patches import score_predictions
    from mitoscope.reporting.figures import draw_scores

    network, threshold = outputs.network, detector.patch_threshold
    samples, rows = read_samples(PATCHES, outputs.split, "test")
    probabilities = detector.classify(samples.windows, partial(show, f"{network} test patches"))
    predictions = pd.DataFrame(
        {
            "network": network,
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
    tables = {name: pd.DataFrame({"network": network, **columns}) for name, columns in curves.items()}
    _write_tables(outputs, {"predictions": predictions} | tables)
    draw_scores(
        outputs.evaluated / "patches.png",
        rows.label.to_list(),
        probabilities.tolist(),
        threshold=threshold,
        title=_title(detector, "patches"),
    )
    return Scores(metrics, intervals)


def _score_fields(
    detector: "Detector",
    stored: "StoredFields",
    tested: list[FieldOfView],
    outputs: Outputs,
    settings: Evaluate,
    show: Show,
) -> Scores:
    """Score the whole test fields by the MIDOG rule; write objects, counts and the FROC curve, and draw the errors."""
    from mitoscope.evaluation.fields import count_fields, reach, score_domains, score_fields
    from mitoscope.evaluation.metrics import froc
    from mitoscope.reporting.errors import draw_errors
    from mitoscope.reporting.figures import draw_field_scores

    network = outputs.network
    probabilities = detector.score(stored.windows, stored.field, partial(show, f"{network} test fields"))
    objects = stored.objects(probabilities, detector.detection.suppress_um)
    objects["predicted"] = (objects.probability >= detector.threshold).astype(int)
    fields = count_fields(objects, stored.areas_mm2, stored.domains)
    metrics, intervals = score_fields(objects, fields, detector.threshold, settings)
    metrics["domains"], intervals["domains"] = score_domains(objects, fields, detector.threshold, settings)
    metrics["reachable"] = reach(stored.candidates, stored.truths, stored.microns_per_pixel)
    curve = pd.DataFrame(froc(objects.label.to_numpy(), objects.probability.to_numpy(), metrics["area_mm2"]))
    tables = {"objects": objects, "fields": fields, "froc": curve}
    for table in tables.values():
        table.insert(0, "network", network)
    _write_tables(outputs, tables)
    picture, title = outputs.evaluated / "fields.png", _title(detector, "fields")
    draw_field_scores(picture, {network: curve}, fields, metrics, title=title)
    draw_errors(
        outputs.evaluated,
        objects,
        stored.truths,
        tested,
        stored.microns_per_pixel,
        note=", synthetic data" if detector.origin.synthetic else "",
        on_field=partial(show, "overlays"),
    )
    return Scores(metrics, intervals)


def _title(detector: "Detector", level: str) -> str:
    origin = detector.origin
    synthetic = ", synthetic data" if origin.synthetic else ""
    return f"{origin.network}, {origin.start_weights} start weights: test {level}{synthetic}"


def _write_tables(outputs: Outputs, tables: dict[str, pd.DataFrame]) -> None:
    for name, table in tables.items():
        with atomic_path(outputs.evaluated / f"{name}.csv") as temporary:
            table.to_csv(temporary, index=False)


def describe_test_set(fields: list[FieldOfView], stored: "StoredFields", digest: str) -> dict[str, Any]:
    """Describe a test set: patients, fields, pixel hashes, and a SHA-256 of everything in it that scores depend on.

    Args:
        fields: the tested fields.
        stored: the same fields in the patch store.
        digest: DVC's hash of the dataset.
    """
    content = hashlib.sha256(stored.truths[["patient", "field", "row", "col"]].to_csv(index=False).encode())
    content.update(json.dumps([stored.images, stored.microns_per_pixel], sort_keys=True).encode())
    for field in fields:
        mask = field.mask("cmask")
        content.update(hashlib.sha256(mask.read_bytes() if mask.exists() else b"").digest())
    return {
        "digest": content.hexdigest(),
        "dataset_digest": digest,
        "patients": sorted(stored.images),
        "fields": [field.name for field in fields],
        "images": stored.images,
    }


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
