"""What each option of the preset is worth on ten patients: writes options.csv in the project's folder.

By the protocol of ideas.py, which lies beside it. All numbers of views come from one pass: 1, 2, 4 and 8 views are the
first of the same eight.
"""

from collections.abc import Iterator
from contextlib import nullcontext

import ideas
import numpy as np
import pandas as pd
import torch
from ideas import FIELDS, PATCHES, PATIENTS, ROWS, SAMPLES, SETTINGS, SPLIT, SUBSETS, TESTED

from mitoscope.detection.calibration import Calibration
from mitoscope.detection.stored import read_samples
from mitoscope.learning.devices import join
from mitoscope.learning.networks import build, start_state
from mitoscope.learning.scoring import _views
from mitoscope.progress import progress

VIEWS, BATCH = (1, 2, 4, 8), 256
Features = tuple[np.ndarray, np.ndarray]


def features() -> dict[int, Features]:
    """The preset's features of the samples and of the candidates, by the number of views."""
    source = torch.load("models/imagenet/alexnet-imagenet1k-features-only.pth", weights_only=True)
    state, _ = start_state("alexnet", source, 0, "pooled")
    model = build({"backbone": "alexnet", "head": "pooled", "patch_size": 60, "input_size": 128}, state).eval()
    found = []
    with join() as device, progress() as show, torch.inference_mode():
        for windows in (SAMPLES.windows, FIELDS.windows):
            out = {views: np.zeros((len(windows), model.pooled.channels), np.float32) for views in VIEWS}
            for start in range(0, len(windows), BATCH):
                part = np.arange(start, min(start + BATCH, len(windows)))
                total = torch.zeros(len(part), model.pooled.channels, dtype=torch.float64)
                for number, view in enumerate(_views(model, windows.read(part), max(VIEWS)), start=1):
                    with device.autocast() if device.bf16 else nullcontext():
                        total += model.pooled.pool(view).double()
                    if number in VIEWS:
                        out[number][part] = (total / number).float().numpy()
                show("features", int(part[-1]) + 1, len(windows))
            found.append(out)
    return {views: (found[0][views], found[1][views]) for views in VIEWS}


def calibrated(probabilities: np.ndarray) -> np.ndarray:
    """Calibrated by field, with the typical spread of the other patients' fields."""
    result = probabilities.copy()
    for patient in PATIENTS:
        mine = patient == TESTED
        numbers = np.unique(FIELDS.field[~mine])
        others = [probabilities[FIELDS.field == number] for number in numbers]
        calibration = Calibration.fit(others, SETTINGS.calibration)
        result[mine] = calibration.apply_by_field(probabilities[mine], FIELDS.field[mine])
    return result


def options() -> Iterator[tuple[str, np.ndarray]]:
    """Yield each change of the preset with its probabilities."""
    by_views = features()
    preset = ideas.held_out(*by_views[4])
    yield "the preset: 4 views, near_um 7.5", preset
    for views in (1, 2, 8):
        yield f"{views} views", ideas.held_out(*by_views[views])
    yield "calibrate_fields", calibrated(preset)
    annotated, rows = read_samples(PATCHES, SPLIT, *SUBSETS)  # near_um 0
    place = {key: number for number, key in enumerate(zip(*(ROWS[name] for name in KEY), strict=True))}
    kept = np.array([place[key] for key in zip(*(rows[name] for name in KEY), strict=True)])
    ideas.LEARNT, ideas.SAMPLES = rows.patient.to_numpy(), annotated
    ideas.SAMPLE_FIELDS = annotated.windows.store
    learnt, tested = by_views[4]
    yield "near_um 0", ideas.held_out(learnt[kept], tested)


KEY = ("patient", "field", "row", "col", "source")

if __name__ == "__main__":
    tables = []
    for name, probabilities in options():
        tables.append(ideas.score(name, probabilities, ideas.best_of_others))
        tp, fp, fn = tables[-1][["tp", "fp", "fn"]].sum()
        print(f"{name}: F1 {200 * tp / (2 * tp + fp + fn):.1f}", flush=True)
        pd.concat(tables).round(4).to_csv("options.csv", index=False)
