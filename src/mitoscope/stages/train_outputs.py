"""What stage `train@arch` leaves: the best network with its thresholds, curves and report, and all of it in MLflow."""

from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from mitoscope.datasets.patches import sample_name
from mitoscope.files import atomic_path, write_json
from mitoscope.paths import TRAINED
from mitoscope.progress import console
from mitoscope.reporting.galleries import draw_gallery
from mitoscope.stages.subsets import read_patients, score_candidates

if TYPE_CHECKING:
    from mitoscope.detection.field_head import FieldHead
    from mitoscope.learning.devices import Place
    from mitoscope.learning.loop import Fitted
    from mitoscope.learning.networks import PatchNetwork
    from mitoscope.learning.scoring import OnBatch
    from mitoscope.stages.train_inputs import Inputs

_SHOWN = 40  # hard negatives in the picture
# What a machine needs that loads the logged model.
_SERVING_NEEDS = ("mlflow", "numpy", "opencv-python-headless", "pandas", "torch", "torchvision")


def write_outputs(inputs: "Inputs", run_id: str, fitted: "Fitted", place: "Place", show: "OnBatch") -> None:
    """Write the stage's outputs from the checkpoints, and log them to the active run."""
    from mitoscope.evaluation.metrics import best_threshold
    from mitoscope.learning import checkpoints
    from mitoscope.learning.augment import crop
    from mitoscope.reporting.figures import draw_learning_curves
    from mitoscope.serving import pyfunc as serving
    from mitoscope.tracking import runs

    arch, start = inputs.arch, inputs.start["source"]
    best, kept = checkpoints.load_network(inputs.work / "best.pt")
    curves = pd.DataFrame(fitted.history, index=pd.RangeIndex(1, len(fitted.history) + 1, name="epoch"))
    with atomic_path(TRAINED / f"{arch}.csv") as temporary:
        curves.rename(columns=lambda name: name.replace("/", "_")).to_csv(temporary)
    picture = TRAINED / f"{arch}.png"
    synthetic = ", synthetic data" if inputs.summary["dataset"]["synthetic"] else ""
    draw_learning_curves(
        picture, fitted.history, title=f"{arch}, {start} start weights{synthetic}", best_epoch=fitted.best_epoch
    )
    views = inputs.block.views
    best.to(place.device)
    head = _refit(inputs, best, place, show) if inputs.block.refit_fields else None
    scored = score_candidates(best, head, "validation", place, show, views=views)
    typical = scored.typical_spread() if inputs.block.calibrate_fields else None
    fields = inputs.fields | {"views": views, "typical_spread": typical, "refit_fields": head is not None}
    objects = scored.objects(fields["typical_spread"])
    field_threshold, field_f1 = best_threshold(objects.label.to_numpy(), objects.probability.to_numpy())
    best.cpu()
    console.print(f"{arch}: logging the best and the last checkpoint")
    last = inputs.work / "checkpoints" / "last.pt"
    checkpoints.save(last, best.describe() | {"state": checkpoints.load(inputs.work / "last.pt")["state"]})
    trained = inputs.models / "best.pt"
    evidence = kept | {"run_id": run_id, "field_threshold": field_threshold, "fields": fields}
    evidence["field_head"] = head and asdict(head)
    checkpoints.save_network(trained, best, **evidence)
    if fitted.hardness is not None:
        _draw_mined(inputs, fitted.hardness)
    best_epoch = fitted.history[fitted.best_epoch - 1]
    patch = crop(inputs.training.windows(np.arange(1)), 0, best.patch_size)[0].permute(1, 2, 0).numpy()
    model_id = runs.log_training(
        model_code=Path(serving.__file__),
        network=trained,
        example=pd.DataFrame({serving.INPUT: [serving.encode(patch)]}),
        answer=pd.DataFrame({serving.PROBABILITY: [0.5], serving.MITOSIS: [True]}),
        requirements=[f"{name}=={version(name)}" for name in _SERVING_NEEDS],
        metrics={
            **{name: value for name, value in best_epoch.items() if name.startswith("validation/")},
            "validation_fields/f1": field_f1,
            "validation_fields/threshold": field_threshold,
        },
        last_checkpoint=last,
        pictures=[picture] if fitted.hardness is None else [picture, inputs.mined],
    )
    threshold, f1 = kept["threshold"], best_epoch["validation/best_f1"]
    result = {
        "run_id": run_id,
        "model_id": model_id,
        "arch": arch,
        "start_weights": start,
        "epochs": len(fitted.history),
        "best_epoch": fitted.best_epoch,
        "threshold": threshold,
        "validation_f1": f1,
        "field_threshold": field_threshold,
        "field_validation_f1": field_f1,
        "refit_fields": head is not None,
        "patients": {subset: sorted(read_patients(subset)) for subset in ("train", "validation")},
        "fingerprint": inputs.fingerprint,
    }
    write_json(TRAINED / f"{arch}.json", result)
    console.print(
        f"{arch}: epoch {fitted.best_epoch} of {len(fitted.history)} is the best, validation F1 {f1:.3f} at threshold "
        f"{threshold:.3f}, in whole fields {field_f1:.3f} at {field_threshold:.3f}; MLflow run {run_id}",
    )


def _refit(inputs: "Inputs", network: "PatchNetwork", place: "Place", show: "OnBatch") -> "FieldHead":
    """Fit the head of whole fields to all training patches."""
    from mitoscope.detection.field_head import fit_head
    from mitoscope.learning.scoring import pool_patches

    training = inputs.training
    features = pool_patches(network, training, place, show, f"{inputs.arch} training features", inputs.block.views)
    return fit_head(features, training.store, training.labels)


def _draw_mined(inputs: "Inputs", hardness: npt.NDArray[np.float64]) -> None:
    """Draw the negatives that the last mining found hardest, each with its score."""
    from mitoscope.learning.augment import crop

    negatives = np.flatnonzero(inputs.training.labels == 0)
    hardest = negatives[np.argsort(-hardness[negatives], kind="stable")[:_SHOWN]]
    windows = inputs.training.windows(hardest)
    patches = crop(windows, 0, inputs.summary["settings"]["patch_size"]).permute(0, 2, 3, 1).numpy()
    names = [f"{hardness[index]:.2f} {sample_name(inputs.rows.iloc[index])}" for index in hardest]
    count = int((hardness >= 0.5).sum())
    synthetic = "synthetic " if inputs.summary["dataset"]["synthetic"] else ""
    title = f"hard {synthetic}negatives of {inputs.arch}: {count} score 0.5 or more, the hardest {len(hardest)}"
    draw_gallery(inputs.mined, [(title, list(zip(names, patches, strict=True)))])
