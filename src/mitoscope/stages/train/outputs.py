"""Write the outputs of stage `train` (best weights, curves, report) and log them to MLflow."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from mitoscope.datasets.patches import read_patients, sample_name
from mitoscope.files import atomic_path, write_json
from mitoscope.progress import console
from mitoscope.reporting.galleries import draw_gallery

if TYPE_CHECKING:
    from mitoscope.learning.loop import Fitted
    from mitoscope.stages.train.inputs import Inputs

_SHOWN = 40  # hard negatives in the picture


def write_outputs(inputs: "Inputs", run_id: str, fitted: "Fitted", work: Path, fingerprint: str) -> None:
    """Write the stage's outputs from the checkpoints, and log them to the active run."""
    from mitoscope.learning import checkpoints
    from mitoscope.reporting.figures import draw_learning_curves
    from mitoscope.tracking import runs

    network, outputs, start = inputs.network, inputs.outputs, inputs.start["source"]
    best, kept = checkpoints.load_network(work / "best.pt")
    curves = pd.DataFrame(fitted.history, index=pd.RangeIndex(1, len(fitted.history) + 1, name="epoch"))
    curves.insert(0, "network", network)
    with atomic_path(outputs.trained.with_suffix(".csv")) as temporary:
        curves.rename(columns=lambda name: name.replace("/", "_")).to_csv(temporary)
    pictures = [outputs.trained.with_suffix(".png")]
    synthetic = ", synthetic data" if inputs.synthetic else ""
    title = f"{inputs.name}, {start} start weights{synthetic}"
    draw_learning_curves(pictures[0], fitted.history, title=title, best_epoch=fitted.best_epoch)
    if fitted.hardness is not None:
        pictures.append(_draw_mined(inputs, fitted.hardness, work))
    last = work / "checkpoints" / "last.pt"
    checkpoints.save(last, best.describe() | {"state": checkpoints.load(work / "last.pt")["state"]})
    threshold, best_epoch = kept["threshold"], fitted.history[fitted.best_epoch - 1]
    checkpoints.save_network(outputs.weights, best, threshold=threshold, run_id=run_id, epoch=fitted.best_epoch)
    validation = {name: value for name, value in best_epoch.items() if name.startswith("validation/")}
    runs.log_training(metrics=validation, last_checkpoint=last, pictures=pictures)
    report = {
        "run_id": run_id,
        "network": network,
        "start_weights": start,
        "trainable": inputs.settings.model.trainable,
        "epochs": len(fitted.history),
        "best_epoch": fitted.best_epoch,
        "threshold": threshold,
        "validation_f1": best_epoch["validation/best_f1"],
        "fold": inputs.split["fold"],
        "patients": {
            subset: names for subset, names in read_patients(outputs.split).items() if subset in ("train", "validation")
        },
        "fingerprint": fingerprint,
    }
    write_json(outputs.trained, report)
    console.print(
        f"{inputs.name}: epoch {fitted.best_epoch} of {len(fitted.history)} is the best, validation F1 "
        f"{report['validation_f1']:.3f} at threshold {threshold:.3f}; MLflow run {run_id}",
    )


def _draw_mined(inputs: "Inputs", hardness: npt.NDArray[np.float64], work: Path) -> Path:
    """Draw the hardest negatives of all minings with their scores; return the path of the picture."""
    from mitoscope.learning.augment import crop

    negatives = np.flatnonzero(inputs.training.labels == 0)
    hardest = negatives[np.argsort(-hardness[negatives], kind="stable")[:_SHOWN]]
    patches = crop(inputs.training.windows.read(hardest), 0, inputs.summary["patch_size"]).permute(0, 2, 3, 1).numpy()
    names = [f"{hardness[index]:.2f} {sample_name(inputs.rows.iloc[index])}" for index in hardest]
    count = int((hardness >= 0.5).sum())
    synthetic = "synthetic " if inputs.synthetic else ""
    title = f"hard {synthetic}negatives of {inputs.name}: {count} score 0.5 or more, the hardest {len(hardest)}"
    draw_gallery(work / "mined.png", [(title, list(zip(names, patches, strict=True)))])
    return work / "mined.png"
