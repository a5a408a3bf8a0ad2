"""Stage `detector@network`: weights + validation fields -> models/<network>/detector.pt, results/detector/*.json.

Everything that a detector needs besides trained weights is fitted here, so a change of `views` or `refit_fields` trains
nothing. The features of a frozen network stay in .work/features, because all folds of a cross-validation need them.
"""

import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mitoscope.datasets.folds import number_folds
from mitoscope.datasets.patches import read_patients, read_summary
from mitoscope.errors import InputError
from mitoscope.files import read_json, write_json
from mitoscope.params import Extract, read_params
from mitoscope.paths import DATA, PATCHES, WORK, Outputs
from mitoscope.progress import console, progress
from mitoscope.tracking.provenance import dataset_digest, hash_code

_UNUSED_SECONDS = 86_400  # until a network's features of other settings are removed; another process may use them

if TYPE_CHECKING:
    from mitoscope.detection.detector import Detector
    from mitoscope.detection.fit import InnerFolds
    from mitoscope.detection.origin import Origin
    from mitoscope.detection.stored import StoredFields
    from mitoscope.learning.batches import PatchSet
    from mitoscope.learning.devices import Device
    from mitoscope.learning.networks import PatchNetwork


def detector(network: str, fold: int | None = None) -> None:
    """Fit the detector of a trained network, and log it to the training's MLflow run as the model `detector`.

    Args:
        network: name of an entry under `train` in params.yaml.
        fold: fold of the cross-validation; None = the project's own split.

    Raises:
        InputError: bad params, or a file of an earlier stage is missing or from another training or split.
    """
    from mitoscope.detection.fit import fit_detector
    from mitoscope.detection.stored import StoredFields, read_samples
    from mitoscope.evaluation.metrics import scores
    from mitoscope.learning.checkpoints import load_network
    from mitoscope.learning.devices import join

    params, outputs = read_params(), Outputs(network, fold)
    train, settings = params.train_of(network), params.detection_of(network)
    trained = _read_trained(outputs)
    model, kept = load_network(outputs.weights)
    if kept.get("run_id") != trained["run_id"]:
        raise InputError(
            f"{outputs.weights}: is from another training than {outputs.trained}; run {outputs.repro('train')} first"
        )
    summary = read_summary(PATCHES)
    if model.patch_size != (size := summary["patch_size"]):
        raise InputError(
            f"{PATCHES}: contains patches of {size} px, but {outputs.weights} needs {model.patch_size} px; run "
            f"{outputs.repro('train')} first"
        )
    frozen, folds = trained.get("trainable") == "head", settings.field_head.inner_folds
    if folds and not frozen:
        raise InputError(
            f"{outputs.trained}: all layers of {network} were trained, which rules out "
            f"detection.{network}.field_head.inner_folds; run {outputs.repro('train')} first"
        )
    learnt, chosen = (("train", "validation"),) * 2 if folds else (("train",), ("validation",))
    samples, rows = read_samples(PATCHES, outputs.split, *learnt, near_um=train.sampling.near_um)
    fields = StoredFields.read(PATCHES, outputs.split, *chosen)
    WORK.mkdir(exist_ok=True)
    with join() as device, progress() as show:
        cached = settings.refit_fields and frozen and device.world == 1
        fitted, objects = fit_detector(
            model,
            samples,
            fields,
            inner=_inner_folds(network, folds, rows, fields) if folds else None,
            extract=Extract.model_validate(summary["settings"]),
            detection=settings,
            patch_threshold=float(kept["threshold"]),
            origin=_origin(outputs, trained, summary),
            device=device,
            cache=_feature_cache(network, model, [settings.views, summary["digest"]], device) if cached else None,
            work=WORK,
            show=show,
        )
    fitted.save(outputs.detector)
    validation = objects[objects.patient.isin(trained["patients"]["validation"])]
    found = scores("fields", validation.label.to_numpy(), validation.probability.to_numpy(), fitted.threshold)
    report = {
        "run_id": trained["run_id"],
        "model_id": _log(outputs, fitted, samples, found),
        "network": network,
        "threshold": fitted.threshold,
        "validation_fields": found,
        "settings": settings.model_dump(mode="json"),
    }
    write_json(outputs.detected, report)
    console.print(
        f"{network}: in the validation patients' fields F1 {found['f1']:.3f} at threshold {fitted.threshold:.3f}; "
        f"{outputs.detector}"
    )


def _read_trained(outputs: Outputs) -> dict[str, Any]:
    """Read the report of stage `train`.

    Raises:
        InputError: the network has not been trained, or was trained with another split.
    """
    for path in (outputs.trained, outputs.weights):
        if not path.exists():
            raise InputError(f"{path}: {outputs.network} has not been trained; run {outputs.repro('train')} first")
    report = read_json(outputs.trained, f"run {outputs.repro('train')} first")
    patients = read_patients(outputs.split)
    if any(patients[subset] != report["patients"][subset] for subset in ("train", "validation")):
        raise InputError(
            f"{outputs.split}: {outputs.network} was trained with another split; run {outputs.repro('train')} first"
        )
    return report


def _inner_folds(network: str, folds: int, samples: pd.DataFrame, fields: "StoredFields") -> "InnerFolds":
    """Assign the samples and the candidates to inner folds of patients, at most as many as there are patients.

    Raises:
        InputError: all mitoses or all negatives are in one fold.
    """
    from mitoscope.detection.fit import InnerFolds

    table = fields.count_mitoses()
    number = number_folds(table, min(folds, table.patient.nunique()), seed=0).to_dict()
    learnt, scored = (
        np.array([number[patient] for patient in patients], dtype=np.int64)
        for patients in (samples.patient, fields.candidates.patient)
    )
    for label, kind in ((1, "mitoses"), (0, "negatives")):
        if len(np.unique(learnt[samples.label == label])) < 2:
            raise InputError(
                f"params.yaml: detection.{network}.field_head.inner_folds: with {folds}, all {kind} to learn from are "
                "in one inner fold; choose another number, or 0"
            )
    return InnerFolds(learnt, scored)


def _feature_cache(network: str, model: "PatchNetwork", evidence: list[object], device: "Device") -> Path:
    """Return the folder for the features of a frozen network, which all folds share; older ones are removed."""
    from mitoscope.learning.features import digest_features

    digest = digest_features(model, device, [*evidence, hash_code(["learning/**/*.py"])])
    cache = WORK / "features" / network / digest
    cache.mkdir(parents=True, exist_ok=True)
    os.utime(cache)
    for path in cache.parent.iterdir():
        if time.time() - path.stat().st_mtime > _UNUSED_SECONDS:
            shutil.rmtree(path, ignore_errors=True)
    return cache


def _origin(outputs: Outputs, trained: dict[str, Any], summary: dict[str, Any]) -> "Origin":
    """Return the detector's origin, which also identifies its training and validation patients."""
    from mitoscope.detection.origin import Origin

    patients = {patient for names in trained["patients"].values() for patient in names}
    known = [facts for name, facts in summary["fields"].items() if name.partition("_")[0] in patients]
    return Origin(
        network=outputs.network,
        run_id=trained["run_id"],
        start_weights=trained["start_weights"],
        dataset=summary["dataset"]["name"],
        dataset_digest=dataset_digest(DATA, summary["digest"]),
        synthetic=summary["dataset"]["synthetic"],
        microns_per_pixel=float(np.median([facts["microns_per_pixel"] for facts in known])),
        patients=trained["patients"],
        images=[facts["pixels_sha256"] for facts in known],
    )


def _log(outputs: Outputs, fitted: "Detector", training: "PatchSet", found: dict[str, float]) -> str:
    """Log the detector to its training's run; return the id of the logged model."""
    from mitoscope.learning.augment import crop
    from mitoscope.serving.package import describe
    from mitoscope.tracking import runs

    console.print(f"{outputs.network}: logging the detector")
    example = crop(training.windows.read(np.arange(1)), 0, fitted.extract.patch_size)[0].permute(1, 2, 0).numpy()
    metrics = found | {"threshold": fitted.threshold}
    return runs.log_detector(
        fitted.origin.run_id,
        detector=outputs.detector,
        params={"detection": fitted.detection.model_dump()},
        metrics={f"validation_fields/{name}": value for name, value in metrics.items()},
        **describe(fitted, example)._asdict(),
    )
