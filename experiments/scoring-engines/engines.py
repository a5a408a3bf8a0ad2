"""How fast other engines score the same patches: writes engines.csv in the current folder.

Needs the extra `onnx` and the package openvino. In the repository:

    PYTHONPATH=. python experiments/scoring-engines/engines.py
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import openvino
import pandas as pd
import torch
from benchmarks.data import Data, repeat
from benchmarks.networks import Case
from onnxruntime import InferenceSession
from sklearn.metrics import average_precision_score

from mitoscope.exporting.onnx import PATCHES, Patches, draw_patches, export_network, quantise
from mitoscope.learning.augment import crop
from mitoscope.learning.batches import Floats, Windows
from mitoscope.learning.devices import Device, join
from mitoscope.learning.scoring import score_patches

CASES = {Case("alexnet", 224): 512, Case("alexnet", 96): 2048, Case("densenet161", 64, batch_size=32): 512}
"""Networks, and how many patches each scores."""
ROUNDS, BATCH = 3, 256
Score = Callable[[], Floats]


def cut(windows: Windows, side: int) -> Iterator[Patches]:
    """Yield the patches of the windows in batches."""
    for start in range(0, len(windows), BATCH):
        batch = np.arange(start, min(start + BATCH, len(windows)))
        yield crop(windows.read(batch), 0, side).contiguous().numpy()


def score_with(run: Callable[[Patches], np.ndarray], windows: Windows, side: int) -> Floats:
    """The probabilities of the windows, from the logits of an engine."""
    logits = np.concatenate([run(patches) for patches in cut(windows, side)])
    return torch.from_numpy(logits).double().softmax(dim=1)[:, 1].numpy()


def onnx_runtime(path: Path) -> Callable[[Patches], np.ndarray]:
    """An ONNX file in ONNX Runtime, which computes in float32 unless the file has int8."""
    session = InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda patches: session.run(None, {PATCHES: patches})[0]


def open_vino(path: Path, precision: str) -> Callable[[Patches], np.ndarray]:
    """An ONNX file in OpenVINO."""
    settings = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
    request = openvino.compile_model(path, "CPU", settings).create_infer_request()
    return lambda patches: np.array(request.infer({PATCHES: patches})[0])


def engines(case: Case, data: Data, windows: Windows, device: Device, folder: Path) -> dict[str, Score]:
    """Every engine and precision, with what scores the windows."""
    case.train(data.samples, device)  # so that the scores differ from patch to patch
    side = case.model.patch_size
    exact, small = (folder / f"{case.title}{suffix}.onnx" for suffix in ("", ", int8"))
    export_network(case.model, exact, features=False)
    quantise(exact, small, draw_patches(data.samples, side))
    runs = {
        "ONNX Runtime, float32": onnx_runtime(exact),
        "ONNX Runtime, int8": onnx_runtime(small),
        "OpenVINO, float32": open_vino(exact, "f32"),
        "OpenVINO, bfloat16": open_vino(exact, "bf16"),
        "OpenVINO, int8": open_vino(small, "f32"),
    }
    return {
        "mitoscope, float32": partial(score_patches, case.model, windows, replace(device, bf16=False)),
        "mitoscope, bfloat16": partial(score_patches, case.model, windows, replace(device, bf16=True)),
    } | {name: partial(score_with, run, windows, side) for name, run in runs.items()}


def measure(case: Case, count: int, data: Data, device: Device, folder: Path) -> list[dict[str, object]]:
    """A row for every engine, measured in turn."""
    works = engines(case, data, repeat(data.samples, count).windows, device, folder)
    scores = {name: work() for name, work in works.items()}  # warms up
    rates: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(ROUNDS):
        for name, work in works.items():
            started = time.perf_counter()
            work()
            rates[name].append(count / (time.perf_counter() - started))
    labels = np.random.default_rng(0).random(count) < 0.1
    exact, base = scores["mitoscope, float32"], median(rates["mitoscope, bfloat16"])
    precision = average_precision_score(labels, exact)
    return [
        {
            "network": case.title,
            "engine": name,
            "patches_per_second": round(median(rates[name]), 1),
            "slowest": round(min(rates[name]), 1),
            "fastest": round(max(rates[name]), 1),
            "against_mitoscope_bfloat16": round(median(rates[name]) / base, 2),
            "largest_difference": f"{np.abs(found - exact).max():.2g}",
            "ap_difference": f"{abs(average_precision_score(labels, found) - precision):.2g}",
        }
        for name, found in scores.items()
    ]


if __name__ == "__main__":
    with join() as device, tempfile.TemporaryDirectory() as scratch:
        data = Data.make(Path(scratch) / "data", 4, 2084, lambda done, total: None)
        table = pd.DataFrame(
            [row for case, count in CASES.items() for row in measure(case, count, data, device, Path(scratch))]
        )
    table.to_csv("engines.csv", index=False)
    print(table.to_string(index=False))
