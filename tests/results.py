"""What the stages leave of a network, for the commands that read it: written by hand, or by the stages themselves."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from mitoscope.files import write_json
from mitoscope.params import Detection
from mitoscope.paths import DATA, MODELS, PATCHES, Outputs
from tests.conftest import NETWORK, Params, small_detector

PATCH_SCORES = {"accuracy": 0.75, "precision": 0.75, "recall": 0.75, "f1": 0.75, "ap": 0.8}
FIELD_SCORES = {"precision": 0.5, "recall": 0.25, "f1": 1 / 3, "ap": 0.125}


def write_results(network: str = NETWORK, *, start: str = "random", refit: bool = False, **test_set: Any) -> Outputs:
    """Write the files of a network that was never trained; `test_set` replaces entries of test_set.json."""
    outputs, ids = Outputs(network), {"run_id": "0" * 32, "model_id": "m-" + "0" * 32}
    report = {"run_id": ids["run_id"], "network": network, "start_weights": start, "threshold": 0.5, "epochs": 3}
    write_json(outputs.trained, report | {"best_epoch": 2, "patients": {"train": ["03"], "validation": ["04"]}})
    settings = Detection(refit_fields=refit).model_dump(mode="json")
    found = {"threshold": 0.4, "validation_fields": {"f1": 0.6}, "settings": settings}
    write_json(outputs.detected, ids | {"network": network} | found)
    patches = {"patients": 2, "mitoses": 4, "negatives": 4, "threshold": 0.5, **PATCH_SCORES, "at_half": {"f1": 0.7}}
    fields = {"patients": 2, "mitoses": 4, "fields": 2, "threshold": 0.4, **FIELD_SCORES, "reachable": 1.0}
    fields |= {"mitoses_per_mm2": 200.0, "detections_per_mm2": 100.0, "domains": {}}
    write_json(outputs.evaluated / "metrics.json", {"patches": patches, "fields": fields})
    intervals = {"patches": {"f1": [0.5, 1.0]}, "fields": {"f1": [0.11, 0.55], "domains": {}}}
    write_json(outputs.evaluated / "intervals.json", intervals)
    tested = {"digest": "d" * 64, "dataset_digest": "e" * 32, "patients": ["01", "02"], "fields": [], "images": {}}
    write_json(outputs.evaluated / "test_set.json", ids | tested | test_set)
    write_json(MODELS / network / "start.json", {"source": start, "sha256": "f" * 64})
    return outputs


def run_of_training(**tags: str) -> str:
    """A finished run as stage `train` leaves it, on the patches that are there; returns its id."""
    import mlflow

    from mitoscope.tracking.provenance import dataset_digest
    from mitoscope.tracking.runs import log_dataset
    from mitoscope.tracking.store import connect

    connect()
    patches = json.loads((PATCHES / "summary.json").read_text())["digest"]
    with mlflow.start_run() as run:
        log_dataset("drawn", dataset_digest(DATA, patches), DATA)
        mlflow.set_tags({"network": NETWORK, "start_weights": "random", "patches": patches} | tags)
        mlflow.log_params({"split.fold": 0, "split.folds": 4, "train.optimisation.lr": 0.001})
        mlflow.log_param("train.sampling.rotations.positive", [0, 45])
        mlflow.log_metric("best_validation/best_f1", 0.4321)
        return str(run.info.run_id)


def leave_detector(run_id: str, threshold: float = 0.4) -> None:
    """Leave what stages `weights`, `train` and `detector` do: a detector of chance that knows its patients."""
    from dataclasses import replace

    from mitoscope.datasets.patches import read_patients, read_summary
    from mitoscope.serving.package import describe
    from mitoscope.tracking.provenance import dataset_digest
    from mitoscope.tracking.runs import log_detector

    outputs, summary = Outputs(NETWORK), read_summary(PATCHES)
    everybody = read_patients(outputs.split)
    patients = {subset: everybody[subset] for subset in ("train", "validation")}
    known = {name for names in patients.values() for name in names}
    images = [facts["pixels_sha256"] for name, facts in summary["fields"].items() if name.split("_")[0] in known]
    digest = dataset_digest(DATA, summary["digest"])
    detector = small_detector(run_id, threshold=threshold)
    origin = replace(detector.origin, patients=patients, images=images, dataset_digest=digest)
    detector = replace(detector, origin=origin)
    detector.save(outputs.detector)
    parts = describe(detector, np.zeros((32, 32, 3), np.uint8))
    model_id = log_detector(run_id, detector=outputs.detector, params={}, metrics={}, **parts._asdict())
    report: dict[str, Any] = {"run_id": run_id, "network": NETWORK, "start_weights": "random"}
    training = {"threshold": 0.5, "epochs": 3, "best_epoch": 2, "patients": patients}
    write_json(outputs.trained, report | training)
    found = {"model_id": model_id, "threshold": threshold, "validation_fields": {"f1": 0.5}}
    write_json(outputs.detected, report | found | {"settings": detector.detection.model_dump(mode="json")})
    write_json(MODELS / NETWORK / "start.json", {"source": "random", "sha256": "f" * 64})


def read(path: Path) -> dict[str, Any]:
    """The content of a JSON file."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def change(path: Path, **entries: Any) -> None:
    """Replace entries of a JSON file."""
    write_json(path, read(path) | entries)


def add_domains(outputs: Outputs, metrics: Params, intervals: Params) -> None:
    """Give the field scores of written results scores by domain."""
    for name, domains in (("metrics", metrics), ("intervals", intervals)):
        path = outputs.evaluated / f"{name}.json"
        change(path, fields=read(path)["fields"] | {"domains": domains})
