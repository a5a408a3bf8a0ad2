"""Batch size, in training and scoring."""

from dataclasses import replace
from functools import partial

from benchmarks.bench import Bench, timed
from benchmarks.data import repeat
from benchmarks.networks import Case
from benchmarks.results import Growth
from mitoscope.learning.scoring import score_patches

CASE = Case("alexnet", 96)
SIZES = (8, 16, 32, 64, 128, 256)


def measure(bench: Bench, case: Case = CASE, sizes: tuple[int, ...] = SIZES) -> list[Growth]:
    """Measure patches per second for each batch size."""
    samples, model = bench.data.samples, case.model.to(bench.device.torch)
    fewest = case.lasting(bench.seconds / 2, samples, bench.device).samples

    def train(size: int) -> float:
        return replace(case, batch_size=size, batches=max(2, fewest // size)).train_rate(samples, bench.device)

    def score(size: int) -> float:
        windows, calls = repeat(samples, size).windows, max(1, fewest // size)
        return calls * size / timed(lambda: [score_patches(model, windows, bench.device) for _ in range(calls)])()

    works = {"training": train, "scoring": score}
    series = bench.grow(
        "batch size", {name: {size: partial(work, size) for size in sizes} for name, work in works.items()}
    )
    return [Growth(case.title, "patches/s", "batch size", series)]
