"""Stage `detector@network`: weights + validation fields -> models/<network>/detector.pt, results/detector/*.json.

Everything that a detector needs besides trained weights is fitted here, so a change of `views` or `refit_fields` trains
nothing. The features of a frozen network stay in .work/features, because all folds of a cross-validation need them.
"""

import shutil
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
    if model.patch_size != (size := read_summary(PATCHES)["patch_size"]):
        raise InputError(
            f"{PATCHES}: contains patches of {size} px, but {outputs.weights} needs {model.patch_size} px; run "
            f"{outputs.repro('train')} first"
        )
    known, validation = (StoredFields.read(PATCHES, outputs.split, subset) for subset in ("train", "validation"))
    origin = _origin(outputs, trained, [known, validation])
    folds, near_um = settings.field_head.inner_folds, train.sampling.near_um
    subsets = ("train", "validation") if folds else ("train",)
    samples, rows = read_samples(PATCHES, outputs.split, *subsets, near_um=near_um)
    fields = StoredFields.read(PATCHES, outputs.split, *subsets) if folds else validation
    WORK.mkdir(exist_ok=True)
    with join() as device, progress() as show:
        frozen = settings.refit_fields and train.model.trainable == "head"
        fitted, objects = fit_detector(
            model,
            samples,
            fields,
            inner=_inner_folds(outputs, folds, params.split.seed, rows, fields) if folds else None,
            extract=Extract.model_validate(read_summary(PATCHES)["settings"]),
            detection=settings,
            patch_threshold=float(kept["threshold"]),
            origin=origin,
            device=device,
            kept=_kept_features(network, model, settings.views, device) if frozen else None,
            work=WORK,
            show=show,
        )
    fitted.save(outputs.detector)
    found = scores("fields", objects.label.to_numpy(), objects.probability.to_numpy(), fitted.threshold)
    report = {
        "run_id": trained["run_id"],
        "model_id": _log(outputs, fitted, samples, found),
        "network": network,
        "threshold": fitted.threshold,
        "validation_fields": found,
        "settings": settings.model_dump(mode="json"),
    }
    write_json(outputs.detected, report)
    whose = "the training and validation" if folds else "the validation"
    console.print(
        f"{network}: in {whose} patients' fields F1 {found['f1']:.3f} at threshold {fitted.threshold:.3f}; "
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


def _inner_folds(
    outputs: Outputs, folds: int, seed: int, samples: pd.DataFrame, fields: "StoredFields"
) -> "InnerFolds":
    """Assign the samples and the candidates to inner folds of patients, at most as many as there are patients.

    Raises:
        InputError: all mitoses are in one fold.
    """
    from mitoscope.detection.fit import InnerFolds

    table = fields.count_mitoses()
    number = number_folds(table, min(folds, table.patient.nunique()), seed)
    if number[samples.patient[samples.label == 1]].nunique() < 2:
        raise InputError(
            f"params.yaml: detection.{outputs.network}.field_head.inner_folds: with {folds}, all mitoses of the "
            "training and validation patients are in one inner fold; choose another number, or 0"
        )
    fold_of = {str(patient): int(fold) for patient, fold in number.items()}
    return InnerFolds(
        np.array([fold_of[patient] for patient in samples.patient]),
        np.array([fold_of[patient] for patient in fields.candidates.patient]),
    )


def _kept_features(network: str, model: "PatchNetwork", views: int, device: "Device") -> Path:
    """Return the folder for the features of a frozen network, which all folds share; those of earlier settings go."""
    from mitoscope.learning.features import digest_features

    evidence = [views, read_summary(PATCHES)["digest"], hash_code(["learning/**/*.py"])]
    kept = WORK / "features" / network / digest_features(model, device, evidence)
    for path in kept.parent.glob("*"):
        if path != kept:
            shutil.rmtree(path)
    return kept


def _origin(outputs: Outputs, trained: dict[str, Any], known: "list[StoredFields]") -> "Origin":
    """Return the detector's origin, which also identifies its training and validation patients."""
    from mitoscope.detection.origin import Origin

    summary = read_summary(PATCHES)
    return Origin(
        network=outputs.network,
        run_id=trained["run_id"],
        start_weights=trained["start_weights"],
        dataset=summary["dataset"]["name"],
        dataset_digest=dataset_digest(DATA, summary["digest"]),
        synthetic=summary["dataset"]["synthetic"],
        microns_per_pixel=float(np.median([size for stored in known for size in stored.microns_per_pixel.values()])),
        patients=trained["patients"],
        images=[image for stored in known for images in stored.images.values() for image in images],
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
