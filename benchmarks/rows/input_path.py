"""The input path against the step."""

from collections.abc import Iterable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from benchmarks.bench import Bench, timed
from benchmarks.networks import Case, training_step
from benchmarks.results import Row
from mitoscope.learning.batches import epoch_batches, prefetch

CASES = (Case("alexnet", 224), Case("densenet161", 64, batch_size=32))


def measure(bench: Bench, cases: tuple[Case, ...] = CASES) -> list[Row]:
    """Measure how long each takes per batch alone, and both together: in the project's loop, and with a thread."""
    return [_measure(bench, case) for case in cases]


def _measure(bench: Bench, case: Case) -> Row:
    samples = bench.data.samples
    case = case.lasting(bench.seconds, samples, bench.device)
    read = partial(
        epoch_batches,
        samples,
        case.settings.sampling,
        epoch=1,
        steps=case.batches,
        batch_size=case.batch_size,
        patch_size=case.model.patch_size,
        device=bench.device,
        hardness=None,
    )
    made = list(read())
    gpu = replace(bench.device, torch=torch.device("cuda"))  # for which batches are made in a thread
    step = training_step(case.model, bench.device)

    def take_steps(batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        for patches, labels in batches:
            step(patches, labels)

    variants = bench.in_turn(
        f"input path, {case.title}",
        {
            "input path alone": lambda: timed(lambda: list(read()))() / case.batches,
            "step alone": lambda: timed(take_steps, made)() / case.batches,
            "both, in the loop": lambda: case.batch_size / case.train_rate(samples, bench.device),
            "both, one after the other": lambda: timed(take_steps, read())() / case.batches,
            "both, prefetched in a thread": lambda: timed(take_steps, prefetch(read(), gpu))() / case.batches,
        },
    )
    note = (
        f"{case.batches} batches of {case.batch_size}, read from the store, rotated, flipped and varied in stain. The "
        "network resizes, so that is part of the step. The loop prefetches in a thread on a GPU only."
    )
    return Row(case.title, "s per batch", variants, "step alone", note)
