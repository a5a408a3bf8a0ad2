"""What a dense sliding window finds beside the candidates: writes dense.csv in the project's folder.

The same network scores a grid of windows over each field instead of the blue-ratio candidates. Everything after that is
the pipeline's own code: calibration and threshold from the validation patients' fields, suppression, and the MIDOG rule
in the test patients' fields.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from mitoscope.datasets.fields import list_fields
from mitoscope.datasets.readers import read_image
from mitoscope.detection.detector import Detector
from mitoscope.detection.fit import fit_detector
from mitoscope.detection.stored import StoredFields, read_samples
from mitoscope.detection.whole_fields import score_whole_fields
from mitoscope.histology.windows import FieldWindows, rescale, resize, window_size
from mitoscope.learning.batches import Windows
from mitoscope.learning.devices import Device, join
from mitoscope.params import Evaluate
from mitoscope.progress import progress

STRIDE = 16  # px of the field
DATA, PATCHES, SPLIT, WORK = Path("data"), Path("patches"), Path("results/split.csv"), Path(".work")
SHOWN = ["tp", "fp", "fn", "precision", "recall", "f1", "reachable"]


def dense(stored: StoredFields, detector: Detector) -> StoredFields:
    """The same fields with a grid of windows instead of their candidates."""
    windows, tables = [], []
    for field in list_fields(DATA):
        if field.name not in stored.microns_per_pixel:
            continue
        image = read_image(field.image)
        scale = stored.microns_per_pixel[field.name] / detector.extract.microns_per_pixel
        resized = resize(image, scale)
        rows, columns = (np.arange(0, side, STRIDE * scale) for side in resized.shape[:2])
        grid = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)
        windows.append(FieldWindows(resized, grid, window_size(detector.extract.patch_size)))
        points = rescale(grid, resized.shape, image.shape)
        tables.append(pd.DataFrame(points, columns=["row", "col"]).assign(patient=field.patient, field=field.field))
    counts = [len(table) for table in tables]
    records = np.concatenate([np.arange(count) for count in counts])
    return replace(
        stored,
        windows=Windows(windows, np.repeat(np.arange(len(counts)), counts), records),
        candidates=pd.concat(tables, ignore_index=True),
    )


def measure(network: str, device: Device) -> list[dict[str, object]]:
    """A row for the candidates and one for the dense window."""
    detector = Detector.load(Path("models") / network / "detector.pt").to(device.torch)
    validation, test = (StoredFields.read(PATCHES, SPLIT, subset) for subset in ("validation", "test"))
    samples, _ = read_samples(PATCHES, SPLIT, "train")
    found = []
    for name, fields in (
        ("candidates", (validation, test)),
        ("dense window", (dense(validation, detector), dense(test, detector))),
    ):
        with progress() as show:
            fitted, _ = fit_detector(
                detector.model,
                samples,
                fields[0],
                inner=None,
                extract=detector.extract,
                detection=detector.detection,
                patch_threshold=detector.patch_threshold,
                origin=detector.origin,
                device=device,
                cache=None,
                work=WORK,
                show=show,
            )
            scores = score_whole_fields(fitted.to(device.torch), fields[1], Evaluate(), partial(show, name))
        low, high = scores.intervals["f1"]
        row = {"network": network, "windows of": name, "windows": len(fields[1].windows)}
        found.append(row | {key: scores.metrics[key] for key in SHOWN} | {"f1_low": low, "f1_high": high})
    return found


if __name__ == "__main__":
    with join() as device:
        table = pd.DataFrame([row for network in ("alexnet", "densenet161") for row in measure(network, device)])
    table.round(4).to_csv("dense.csv", index=False)
    print(table.round(3).to_string(index=False))
