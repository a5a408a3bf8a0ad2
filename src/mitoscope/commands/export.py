"""Command `export`: write a detector for programs without torch, and check that it still finds the same."""

import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from rich.table import Table

from mitoscope import __version__
from mitoscope.datasets.patches import read_summary
from mitoscope.errors import InputError
from mitoscope.evaluation.metrics import scores
from mitoscope.files import atomic_folder, hash_file, write_json
from mitoscope.params import Extract
from mitoscope.paths import DATA, PATCHES, split_path
from mitoscope.progress import console, progress
from mitoscope.tracking.models import detector_file, model_card
from mitoscope.tracking.provenance import dataset_digest

if TYPE_CHECKING:
    from mitoscope.detection.detector import Detector
    from mitoscope.detection.stored import StoredFields
    from mitoscope.exporting.onnx import Run
    from mitoscope.learning.batches import PatchSet

FORMAT = 1  # of detector.json
TORCH, FLOAT, INT8, DETECTOR = "torch", "network.onnx", "network-int8.onnx", "detector.json"
_LARGEST_DIFFERENCE = 1e-4  # of a probability, between torch and ONNX Runtime
_MOST_LOST = 0.01  # field F1 that int8 may lose and still be the default
_SAMPLED, _BATCH = 256, 32  # training patches that give the ranges of the int8 activations


class Checked(NamedTuple):
    """What a network finds in the test patients' fields.

    Attributes:
        probabilities: (N,) of all candidates.
        found: the positions of the detections, by field.
        scores: of the whole fields, at the detector's threshold.
        seconds: that the candidates took.
    """

    probabilities: npt.NDArray[np.float64]
    found: set[tuple[Any, ...]]
    scores: dict[str, float]
    seconds: float


def export(model: str, *, out: Path, replace: bool) -> None:
    """Write the network of a detector as ONNX, in float32 and in int8, and all else as detector.json.

    Both score the candidates of the test patients' fields. float32 must give torch's probabilities. What int8 loses
    there in F1 is printed and written; it becomes the default network if it loses at most 0.01.

    Args:
        model: a file detector.pt, `runs:/<run>/detector` or `models:/<name>@<alias>`.
        out: output folder.
        replace: replace `out` if it is not empty.

    Raises:
        InputError: the detector does not exist, the patch store does not fit it, it knows a test patient, the extra
            `onnx` is missing, or ONNX Runtime gives other answers than torch.
    """
    from mitoscope.detection.detector import Detector
    from mitoscope.detection.stored import StoredFields, read_samples
    from mitoscope.exporting import onnx

    with detector_file(model) as file:
        detector, sha256 = Detector.load(file), hash_file(file)
    stored = StoredFields.read(PATCHES, split_path(None), "test")
    _check_store(detector, model, stored)
    samples, _ = read_samples(PATCHES, split_path(None), "train")
    features = detector.head is not None
    with atomic_folder(out, replace=replace) as folder, progress() as show:
        show("writing float32", 0, 2)
        onnx.export_network(detector.model, folder / FLOAT, features=features)
        show("writing int8", 1, 2)
        onnx.quantise(folder / FLOAT, folder / INT8, _some_patches(samples, detector.model.patch_size))
        show("writing int8", 2, 2)
        runs = {
            TORCH: onnx.torch_network(detector.model, features=features),
            FLOAT: onnx.open_network(folder / FLOAT),
            INT8: onnx.open_network(folder / INT8),
        }
        checked = {
            name: _check(detector, run, stored, partial(show, f"test fields, {name}")) for name, run in runs.items()
        }
        difference = float(np.abs(checked[TORCH].probabilities - checked[FLOAT].probabilities).max())
        if difference > _LARGEST_DIFFERENCE:
            raise InputError(
                f"{model}: its network gives other probabilities in ONNX Runtime than in torch, by up to "
                f"{difference:.2g}; {out} was not written"
            )
        rows = {name: _describe(folder / name, found, checked[TORCH]) for name, found in checked.items()}
        default = INT8 if rows[INT8]["f1_lost"] <= _MOST_LOST else FLOAT
        content = _content(detector, default, runs, folder)
        test = {"patients": sorted(stored.images), "mitoses": len(stored.truths), "candidates": len(stored.candidates)}
        evidence = {"model": model, "detector_sha256": sha256, "card": model_card(model), "test": test | {"by": rows}}
        write_json(folder / DETECTOR, content | evidence)
    _print(rows, default, test, out, synthetic=detector.origin.synthetic)


def _check_store(detector: "Detector", model: str, stored: "StoredFields") -> None:
    """Check that the patch store has the detector's patches, and that it does not know the test patients.

    Raises:
        InputError: it has others, or it knows one.
    """
    summary = read_summary(PATCHES)
    if Extract.model_validate(summary["settings"]) != detector.extract:
        raise InputError(
            f"{PATCHES}: was extracted with other settings than those of {model}; export it from the project that "
            "trained it, or run `dvc repro extract` first"
        )
    if known := detector.origin.known(stored.images, dataset_digest(DATA, summary["digest"])):
        raise InputError(
            f"{model}: has learnt from the test patients {', '.join(known)}, who are to tell what int8 costs; export a "
            "detector of this split"
        )


def _some_patches(samples: "PatchSet", patch_size: int) -> list[npt.NDArray[np.uint8]]:
    """Draw training patches, as many mitoses as negatives while there are enough, in batches."""
    from mitoscope.learning.augment import crop

    rng = np.random.default_rng(0)
    by_label = [rng.permutation(np.flatnonzero(samples.labels == label))[: _SAMPLED // 2] for label in (0, 1)]
    chosen = rng.permutation(np.concatenate(by_label))
    parts = np.split(chosen, range(_BATCH, len(chosen), _BATCH))
    return [crop(samples.windows.read(part), 0, patch_size).contiguous().numpy() for part in parts]


def _check(detector: "Detector", run: "Run", stored: "StoredFields", on_batch: Callable[[int, int], None]) -> Checked:
    """Find the mitoses of the test patients with a network."""
    from mitoscope.exporting.detector import ExportedDetector

    started = time.perf_counter()
    probabilities = ExportedDetector.of(detector, run).score(stored.windows, stored.field, on_batch)
    seconds = time.perf_counter() - started
    objects = stored.objects(probabilities, detector.detection.suppress_um)
    found = objects[objects.probability >= detector.threshold]
    points = set(found[["patient", "field", "row", "col"]].itertuples(index=False, name=None))
    measured = scores("fields", objects.label.to_numpy(), objects.probability.to_numpy(), detector.threshold)
    return Checked(probabilities, points, measured, seconds)


def _describe(path: Path, checked: Checked, reference: Checked) -> dict[str, Any]:
    """Return what detector.json says of a network's test; `path` is missing for torch."""
    size = {"bytes": path.stat().st_size} if path.exists() else {}
    return size | {
        "fields": checked.scores,
        "f1_lost": reference.scores["f1"] - checked.scores["f1"],
        "detections_changed": len(checked.found ^ reference.found),
        "largest_difference": float(np.abs(checked.probabilities - reference.probabilities).max()),
        "candidates_per_second": len(checked.probabilities) / checked.seconds,
    }


def _content(detector: "Detector", default: str, runs: "dict[str, Run]", folder: Path) -> dict[str, Any]:
    """Return what another program needs to do as the detector does."""
    head, calibration = detector.head, detector.calibration
    return {
        "format": FORMAT,
        "version": __version__,
        "network": default,
        "files": {name: hash_file(folder / name) for name in runs if name != TORCH},
        "patch_size": detector.model.patch_size,
        "extract": detector.extract.model_dump(mode="json"),
        "detection": detector.detection.model_dump(mode="json"),
        "field_head": head and {name: np.asarray(value).tolist() for name, value in head.content().items()},
        "calibration": calibration and {"middle": calibration.middle, "upper": calibration.upper},
        "threshold": detector.threshold,
        "patch_threshold": detector.patch_threshold,
        "origin": asdict(detector.origin),
    }


def _print(rows: dict[str, Any], default: str, test: dict[str, Any], out: Path, *, synthetic: bool) -> None:
    note = ", synthetic data" if synthetic else ""
    table = Table(title=f"{test['mitoses']} mitoses of {len(test['patients'])} test patients{note}")
    table.add_column("network")
    for column in ("MB", "candidates/s", "F1", "changed"):
        table.add_column(column, justify="right")
    for name, row in rows.items():
        size = f"{row['bytes'] / 1e6:.1f}" if "bytes" in row else ""
        cells = (size, f"{row['candidates_per_second']:.0f}", f"{100 * row['fields']['f1']:.1f}")
        table.add_row(name, *cells, str(row["detections_changed"]))
    console.print(table)
    console.print("changed: detections that torch does not have, or has and the network lacks.")
    lost = 100 * rows[INT8]["f1_lost"]
    if default == FLOAT:
        console.print(f"int8 loses {lost:.1f} points of F1, so {FLOAT} is the default.", style="yellow")
    console.print(f"{out}: {FLOAT}, {INT8} and {DETECTOR}; the default network is {default}", markup=False)
