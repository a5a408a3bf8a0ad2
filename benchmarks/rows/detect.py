"""Detection in whole fields."""

import math
import sys
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from statistics import median

import numpy as np
import torch

from benchmarks.bench import Bench, Work, run, timed
from benchmarks.data import EXTRACT
from benchmarks.networks import Case
from benchmarks.results import Row
from mitoscope.datasets.readers import Image, read_picture
from mitoscope.detection.detector import Detector
from mitoscope.detection.origin import Origin
from mitoscope.histology.windows import FieldWindows, resize, window_size
from mitoscope.learning.batches import Windows
from mitoscope.learning.scoring import score_patches
from mitoscope.params import Detection

CASE = Case("alexnet", 96)
STRIDE = 16  # px of the field
_MANY = 8  # fields that the command is given
_FOUND = 0.95  # quantile of the scores that is the threshold, so that a field has about 20 detections


def measure(bench: Bench, case: Case = CASE, slice_: int = 2048) -> list[Row]:
    """Measure the seconds per field of the detector, of its parts, of a dense window, and of the command.

    On a GPU, also those of the detector on the processor beside it.
    """
    detector, fields = make_detector(bench, case), bench.data.fields
    microns = bench.data.description.microns_per_pixel
    picture = read_picture(fields[0].image)
    dense, total = _dense_windows(picture.pixels, microns, slice_)

    def detect() -> None:
        for field in fields:
            detector.detect(read_picture(field.image).pixels, microns)

    def propose() -> None:
        for field in fields:
            detector.propose(read_picture(field.image).pixels, None, microns)

    def slide() -> None:
        score_patches(detector.model, dense, bench.device)

    def detect_on_processor() -> float:
        detector.to(torch.device("cpu"))
        seconds = timed(detect)()
        detector.to(bench.device.torch)
        return seconds / len(fields)

    works: dict[str, Work] = {
        "mitoscope": lambda: timed(detect)() / len(fields),
        "reading and candidates alone": lambda: timed(propose)() / len(fields),
        "dense window": lambda: timed(slide)() / len(dense) * total,
    }
    if bench.device.torch.type == "cuda":
        works["mitoscope, on the processor"] = detect_on_processor
    detect()  # warms up
    variants = bench.in_turn("detect", works)
    height, width = picture.pixels.shape[:2]
    candidates = len(detector.propose(picture.pixels, None, microns).points)
    area = picture.area_mm2(microns)
    note = (
        f"{case.title}, one view, {height} x {width} px ({area:.3f} mm2), in a running process, from the image file: "
        f"{median(variants['mitoscope']) / area:.2g} s per mm2. The first field has {candidates} candidates. A dense "
        f"window with a stride of {STRIDE} px of the field scores {total} patches with the same network and code, "
        f"extrapolated from {len(dense)}, and does no more."
    )
    return [Row("A field", "s", variants, "mitoscope", note), _measure_command(bench, detector)]


def _measure_command(bench: Bench, detector: Detector) -> Row:
    """Measure `mitoscope detect` with one field and with all, to tell the start from the fields."""
    start: list[float] = []
    each: list[float] = []
    with bench.folder() as folder:
        images = [Path(folder) / f"{number}.jpg" for number in range(_MANY)]
        for image, field in zip(images, cycle(bench.data.fields), strict=False):
            image.hardlink_to(field.image)
        model = Path(folder) / "detector.pt"
        detector.save(model)

        def seconds(count: int) -> float:
            command = [sys.executable, "-m", "mitoscope", "detect", "--replace", "--model", model, "--out", "found"]
            return timed(run, [*command, *images[:count]], Path(folder))()

        for turn in range(bench.rounds):
            bench.show("command detect", turn, bench.rounds)
            one, all_ = seconds(1), seconds(len(images))
            each.append((all_ - one) / (len(images) - 1))
            start.append(one - each[-1])
    note = (
        f"From calls with 1 and with {len(images)} fields. A field includes its files: CSV, GeoJSON and overlay. The "
        "start is all that does not grow with the fields."
    )
    if min(each) < 0:
        note += " It varies by more than the fields take, so a round came out negative."
    return Row("The command `mitoscope detect`", "s", {"start": start, "each field": each}, "each field", note)


def make_detector(bench: Bench, case: Case) -> Detector:
    """Return a detector with random weights, which finds some twenty mitoses in a field."""
    microns = bench.data.description.microns_per_pixel
    detector = Detector(
        case.model.to(bench.device.torch),
        EXTRACT,
        Detection(),
        head=None,
        calibration=None,
        threshold=0.5,
        patch_threshold=0.5,
        origin=Origin(case.network, "", "random", "synthetic", "", True, microns, {"train": [], "validation": []}, []),
    )
    proposed = detector.propose(read_picture(bench.data.fields[0].image).pixels, None, microns)
    scores = detector.score(proposed.windows, np.zeros(len(proposed.points), np.int64))
    return replace(detector, threshold=float(np.quantile(scores, _FOUND)))


def _dense_windows(image: Image, microns: float, slice_: int) -> tuple[Windows, int]:
    """Return some windows of a dense grid over a field, and how many the whole grid has."""
    resized = resize(image, microns / EXTRACT.microns_per_pixel)
    stride = STRIDE * microns / EXTRACT.microns_per_pixel
    height, width = (math.floor((side - EXTRACT.patch_size) / stride) + 1 for side in resized.shape[:2])
    grid = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij"), axis=-1).reshape(-1, 2)
    points = grid * stride + EXTRACT.patch_size / 2
    chosen = np.random.default_rng(0).permutation(len(points))[:slice_]
    return Windows.of(FieldWindows(resized, points[chosen], window_size(EXTRACT.patch_size))), len(points)
