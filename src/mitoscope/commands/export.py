"""Command `export`: write a detector for programs without torch, and check that it still finds the same."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from rich.table import Table

from mitoscope import __version__
from mitoscope.datasets.patches import read_summary
from mitoscope.errors import InputError, require_packages
from mitoscope.evaluation.metrics import scores
from mitoscope.exporting.folder import DETECTOR, FLOAT, INT8, describe
from mitoscope.files import atomic_folder, hash_file, write_json
from mitoscope.params import Extract
from mitoscope.paths import PATCHES, split_path
from mitoscope.progress import console, progress
from mitoscope.tracking.models import detector_file, model_card

if TYPE_CHECKING:
    from mitoscope.detection.detector import Detector
    from mitoscope.detection.stored import StoredFields
    from mitoscope.exporting.onnx import Run

_LARGEST_DIFFERENCE = 1e-4  # of a probability, between torch and ONNX Runtime
_MOST_LOST = 0.01  # field F1 that int8 may lose and still be the default


class Checked(NamedTuple):
    """What a network finds in the fields of some patients.

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

    In the test patients' fields float32 must give torch's probabilities. What int8 loses in F1 is measured in the
    validation patients' fields, since it decides which network is the default.

    Args:
        model: a file detector.pt, `runs:/<run>/detector` or `models:/<name>@<alias>`.
        out: output folder.
        replace: replace an earlier export in `out`.

    Raises:
        InputError: the detector does not exist, the patch store does not fit it or has no candidates, the extra `onnx`
            is missing, ONNX Runtime gives other probabilities than torch, or `out` has other files.
    """
    require_packages("export", "onnx", "onnx", "onnxscript", "onnxruntime")
    from mitoscope.exporting import onnx

    if out.is_dir() and any(out.iterdir()) and not (out / DETECTOR).exists():
        raise InputError(f"{out}: has files, but no {DETECTOR} of an earlier export; choose another folder")
    from mitoscope.detection.detector import Detector
    from mitoscope.detection.stored import StoredFields, read_samples

    with detector_file(model) as file:
        detector, sha256, card = Detector.load(file), hash_file(file), model_card(model)
    _check_store(detector, model)
    tested = _with_candidates(StoredFields.read(PATCHES, split_path(None), "test"))
    validating = _with_candidates(StoredFields.read(PATCHES, split_path(None), "validation"))
    samples, _ = read_samples(PATCHES, split_path(None), "train")
    features = detector.head is not None
    with atomic_folder(out, replace=replace) as folder, progress() as show:
        show("writing float32", 0, 2)
        onnx.export_network(detector.model, folder / FLOAT, features=features)
        show("writing int8", 1, 2)
        onnx.quantise(folder / FLOAT, folder / INT8, onnx.draw_patches(samples, detector.model.patch_size))
        show("writing int8", 2, 2)
        exact, small = onnx.open_network(folder / FLOAT), onnx.open_network(folder / INT8)

        def check(run: "Run", fields: "StoredFields", label: str) -> Checked:
            return _check(detector, run, fields, partial(show, label))

        reference = check(
            onnx.torch_network(detector.model, features=features), tested, "candidates in test fields, torch"
        )
        test = _compare(reference, check(exact, tested, "candidates in test fields, float32"))
        if test["largest_difference"] > _LARGEST_DIFFERENCE:
            raise InputError(
                f"{model}: its network gives other probabilities in ONNX Runtime than in torch, by up to "
                f"{test['largest_difference']:.2g}; {out} was not written"
            )
        reference = check(exact, validating, "candidates in validation fields, float32")
        rows = {
            FLOAT: _compare(reference, reference),
            INT8: _compare(reference, check(small, validating, "candidates in validation fields, int8")),
        }
        for name, row in rows.items():
            row |= {"bytes": (folder / name).stat().st_size, "sha256": hash_file(folder / name)}
        worthwhile = reference.scores["f1"] > 0 and rows[INT8]["f1_lost"] <= _MOST_LOST
        content = {
            "version": __version__,
            "network": INT8 if worthwhile else FLOAT,
            "networks": rows,
            "test": test | {"mitoses": len(tested.truths)},
            "validation": {"mitoses": len(validating.truths)},
            "model": model,
            "detector_sha256": sha256,
            "card": card,
        }
        write_json(folder / DETECTOR, describe(detector) | content)
    _print(content, out, synthetic=detector.origin.synthetic)


def _check_store(detector: "Detector", model: str) -> None:
    """Check that the patch store has the patches that the detector takes.

    Raises:
        InputError: it has others.
    """
    if Extract.model_validate(read_summary(PATCHES)["settings"]) != detector.extract:
        raise InputError(
            f"{PATCHES}: was extracted with other settings than those of {model}; export it from the project that "
            "trained it, or run `dvc repro extract` first"
        )


def _with_candidates(fields: "StoredFields") -> "StoredFields":
    """Return the fields if they have candidates.

    Raises:
        InputError: they have none.
    """
    if fields.candidates.empty:
        raise InputError(f"{split_path(None)}: the fields of a subset have no candidates; choose another split.fold")
    return fields


def _check(detector: "Detector", run: "Run", fields: "StoredFields", on_batch: Callable[[int, int], None]) -> Checked:
    """Find the mitoses of fields with a network."""
    from mitoscope.exporting.scoring import score

    started = time.perf_counter()
    probabilities = score(detector, run, fields.windows, fields.field, on_batch)
    seconds = time.perf_counter() - started
    objects = fields.objects(probabilities, detector.detection.suppress_um)
    found = objects[objects.probability >= detector.threshold]
    points = set(found[["patient", "field", "row", "col"]].itertuples(index=False, name=None))
    measured = scores("fields", objects.label.to_numpy(), objects.probability.to_numpy(), detector.threshold)
    return Checked(probabilities, points, measured, seconds)


def _compare(reference: Checked, checked: Checked) -> dict[str, Any]:
    """Return what detector.json says of a network in the same fields as another."""
    return {
        "candidates": len(checked.probabilities),
        "fields": checked.scores,
        "f1_lost": reference.scores["f1"] - checked.scores["f1"],
        "detections_changed": len(checked.found ^ reference.found),
        "largest_difference": float(np.abs(checked.probabilities - reference.probabilities).max()),
        "candidates_per_second": len(checked.probabilities) / checked.seconds,
    }


def _print(content: dict[str, Any], out: Path, *, synthetic: bool) -> None:
    note, test = ", synthetic data" if synthetic else "", content["test"]
    table = Table(
        title=f"{content['validation']['mitoses']} mitoses of the validation patients{note}", title_justify="left"
    )
    table.add_column("network")
    for column in ("MB", "candidates/s", "F1 %", "other detections"):
        table.add_column(column, justify="right")
    for name, row in content["networks"].items():
        f1, speed = f"{100 * row['fields']['f1']:.1f}", f"{row['candidates_per_second']:.0f}"
        table.add_row(name, f"{row['bytes'] / 1e6:.1f}", speed, f1, str(row["detections_changed"]))
    console.print(table)
    console.print(
        f"In the test patients' fields {FLOAT} gives torch's probabilities to {test['largest_difference']:.1g}, with "
        f"{test['detections_changed']} other detections."
    )
    if content["network"] == FLOAT:
        lost = f"int8 loses {100 * content['networks'][INT8]['f1_lost']:.1f} points of F1"
        reason = lost if content["networks"][FLOAT]["fields"]["f1"] > 0 else "no mitosis is found"
        console.print(f"{reason}, so {FLOAT} is the default.", style="yellow")
    console.print(f"{out}: {FLOAT}, {INT8} and {DETECTOR}, whose network is {content['network']}", markup=False)
