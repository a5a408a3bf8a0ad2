"""What each option of the preset is worth on ten patients: writes options.csv in the project's folder.

By the protocol of ideas.py, which lies beside it. All sets of views come from one pass over the same sixteen.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from functools import cache
from pathlib import Path

import ideas
import numpy as np
import pandas as pd
import torch
from ideas import FIELDS, PATCHES, PATIENTS, ROWS, SAMPLES, SETTINGS, SPLIT, SUBSETS, TESTED

from mitoscope.detection.calibration import Calibration
from mitoscope.detection.stored import read_samples
from mitoscope.learning.augment import crop
from mitoscope.learning.batches import Windows
from mitoscope.learning.devices import Device, join
from mitoscope.learning.networks import PatchNetwork, build, start_state
from mitoscope.progress import progress

TURNS = [(0, 0), (0, 2), (0, 1), (0, 3), (45, 0), (45, 3), (45, 1), (45, 2)]  # degrees, and then quarters
VIEWS = {  # of the views: each turn, as it is and mirrored
    "1 view": [0],
    "2 views": [0, 1],
    "4 views": [0, 1, 2, 3],
    "8 views": [0, 1, 2, 3, 8, 9, 10, 11],
    "8 views without 45 degrees": list(range(8)),
    "16 views": list(range(16)),
}
BATCH = 256
Features = tuple[np.ndarray, np.ndarray]


@cache
def features() -> dict[str, Features]:
    """The preset's features of the samples and of the candidates, by the set of views; kept in .work/ideas."""
    source = torch.load("models/imagenet/alexnet-imagenet1k-features-only.pth", weights_only=True)
    state, _ = start_state("alexnet", source, 0, "pooled")
    model = build({"backbone": "alexnet", "head": "pooled", "patch_size": 60, "input_size": 128}, state).eval()
    folder = Path(".work/ideas/views")
    folder.mkdir(parents=True, exist_ok=True)
    shape = (len(SAMPLES.windows), len(FIELDS.windows))
    found = {views: tuple(np.zeros((count, model.pooled.channels), np.float32) for count in shape) for views in VIEWS}
    with join() as device, progress() as show, torch.inference_mode():
        for done, store in enumerate(FIELDS.windows.stores):
            path = folder / Path(store.filename).name
            if not path.exists():
                np.save(path, _means(model, Windows.of(store), device))
            means = np.load(path)
            for part, windows in enumerate((SAMPLES.windows, FIELDS.windows)):
                number = next(n for n, one in enumerate(windows.stores) if one.filename == store.filename)
                inside = windows.store == number
                for views, mean in zip(VIEWS, means, strict=True):
                    found[views][part][inside] = mean[windows.record[inside]]
            show("features", done + 1, len(FIELDS.windows.stores))
    return found


def _means(model: PatchNetwork, windows: Windows, device: Device) -> np.ndarray:
    """The features of all windows of a field, averaged over each set of VIEWS."""
    result = np.zeros((len(VIEWS), len(windows), model.pooled.channels), np.float32)
    for start in range(0, len(windows), BATCH):
        part = np.arange(start, min(start + BATCH, len(windows)))
        images = {angle: model.prepare(crop(windows.read(part), angle, 60)) for angle in (0, 45)}
        seen = []
        for angle, quarters in TURNS:
            turned = images[angle].rot90(quarters, dims=(2, 3))
            for view in (turned, turned.flip(3)):
                with device.autocast() if device.bf16 else nullcontext():
                    seen.append(model.pooled.pool(view.contiguous(memory_format=torch.channels_last)).double())
        for number, chosen in enumerate(VIEWS.values()):
            result[number, part] = torch.stack([seen[view] for view in chosen]).mean(dim=0).float().numpy()
    return result


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
    preset = ideas.held_out(*by_views["4 views"])
    yield "the preset: 4 views, near_um 7.5", preset
    for views in VIEWS:
        if views != "4 views":
            yield views, ideas.held_out(*by_views[views])
    yield "calibrated", calibrated(preset)
    yield "near_um 0", ideas.held_out(*by_views["4 views"], kept=annotated())


def annotated() -> np.ndarray:
    """Which samples `near_um: 0` keeps, (M,)."""
    near = (ROWS.source == "candidate") & (ROWS.label == 1)
    assert (~near).sum() == len(read_samples(PATCHES, SPLIT, *SUBSETS)[1])
    return ~near.to_numpy()


if __name__ == "__main__":
    tables = []
    for name, probabilities in options():
        tables.append(ideas.score(name, probabilities, ideas.best_of_others))
        tp, fp, fn = tables[-1][["tp", "fp", "fn"]].sum()
        print(f"{name}: F1 {200 * tp / (2 * tp + fp + fn):.1f}", flush=True)
        pd.concat(tables).round(4).to_csv("options.csv", index=False)
