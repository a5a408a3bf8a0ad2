"""How fast other engines score the same patches: writes engines.csv in the current folder.

Needs the extra `onnx` and the package openvino. In the repository:

    PYTHONPATH=. python experiments/scoring-engines/engines.py
"""

import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import openvino
import pandas as pd
from benchmarks.bench import Bench, timed
from benchmarks.data import repeat
from benchmarks.networks import Case
from benchmarks.rows.detect import make_detector
from sklearn.metrics import average_precision_score

from mitoscope.exporting.onnx import LOGITS, PATCHES, Run, draw_patches, export_network, open_network, quantise
from mitoscope.exporting.scoring import score
from mitoscope.learning.devices import join
from mitoscope.learning.scoring import score_patches
from mitoscope.progress import progress

CASES = {Case("alexnet", 224): 512, Case("alexnet", 96): 2048, Case("densenet161", 64, batch_size=32): 512}
"""Networks, and how many patches each scores."""
ROUNDS = 3


def open_vino(path: Path, precision: str) -> Run:
    """An ONNX file in OpenVINO."""
    settings = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
    request = openvino.compile_model(path, "CPU", settings).create_infer_request()
    return lambda patches: {LOGITS: np.array(request.infer({PATCHES: patches})[0])}


def engines(bench: Bench, case: Case) -> dict[str, Run]:
    """Every other engine and precision; ONNX Runtime computes in float32 unless the file has int8."""
    exact, small = (bench.scratch / f"{case.title}{suffix}.onnx" for suffix in ("", ", int8"))
    export_network(case.model, exact, features=False)
    quantise(exact, small, draw_patches(bench.data.samples, case.model.patch_size))
    return {
        "ONNX Runtime, float32": open_network(exact),
        "ONNX Runtime, int8": open_network(small),
        "OpenVINO, float32": open_vino(exact, "f32"),
        "OpenVINO, bfloat16": open_vino(exact, "bf16"),
        "OpenVINO, int8": open_vino(small, "f32"),
    }


def measure(bench: Bench, case: Case, count: int) -> list[dict[str, object]]:
    """A row for every engine, measured in turn."""
    case.train(bench.data.samples, bench.device)  # so that the scores differ from patch to patch
    windows, field = repeat(bench.data.samples, count).windows, np.zeros(count, np.int64)
    works = {
        f"mitoscope, {name}": partial(score_patches, case.model, windows, replace(bench.device, bf16=bf16))
        for name, bf16 in (("float32", False), ("bfloat16", True))
    }
    detector = make_detector(bench, case)  # one view, no head and no calibration of its own
    works |= {name: partial(score, detector, run, windows, field) for name, run in engines(bench, case).items()}
    scores = {name: work() for name, work in works.items()}  # warms up
    seconds = bench.in_turn(case.title, {name: timed(work) for name, work in works.items()})
    labels = np.random.default_rng(0).random(count) < 0.1
    exact, base = scores["mitoscope, float32"], median(seconds["mitoscope, bfloat16"])
    precision = average_precision_score(labels, exact)
    return [
        {
            "network": case.title,
            "engine": name,
            "patches_per_second": round(count / median(seconds[name]), 1),
            "slowest": round(count / max(seconds[name]), 1),
            "fastest": round(count / min(seconds[name]), 1),
            "against_mitoscope_bfloat16": round(base / median(seconds[name]), 2),
            "largest_difference": f"{np.abs(found - exact).max():.2g}",
            "ap_difference": f"{abs(average_precision_score(labels, found) - precision):.2g}",
        }
        for name, found in scores.items()
    ]


if __name__ == "__main__":
    with join() as device, tempfile.TemporaryDirectory() as scratch, progress() as show:
        bench = Bench(ROUNDS, device, Path(scratch), show)
        table = pd.DataFrame([row for case, count in CASES.items() for row in measure(bench, case, count)])
    table.to_csv("engines.csv", index=False)
    print(table.to_string(index=False))
