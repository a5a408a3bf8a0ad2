"""Scoring against float32, eager."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from sklearn.metrics import average_precision_score

from benchmarks import eager
from benchmarks.bench import Bench, run, timed
from benchmarks.data import repeat
from benchmarks.networks import PRODUCTS, Case, scored_in, seconds_in_products
from benchmarks.results import Row
from mitoscope.learning.batches import Floats, Windows
from mitoscope.learning.checkpoints import save_network
from mitoscope.learning.devices import Device, alone
from mitoscope.learning.networks import PatchNetwork
from mitoscope.learning.scoring import score_patches

CASES = (Case("alexnet", 224), Case("alexnet", 96), Case("densenet161", 64, batch_size=32))
_COMPARED = 2048  # windows that a GPU and the processor score


def measure(bench: Bench, cases: tuple[Case, ...] = CASES) -> list[Row]:
    """Measure patches per second, and how far the probabilities differ."""
    return [_measure(bench, case) for case in cases]


def _measure(bench: Bench, case: Case) -> Row:
    samples, root = bench.data.samples, Path(__file__).parents[2]
    case = case.lasting(bench.seconds, samples, bench.device)
    case.train(samples, bench.device)  # so that the scores differ from patch to patch
    count = scored_in(bench.seconds, case.model, samples, bench.device)
    windows = repeat(samples, count).windows
    network, plain = bench.scratch / "network.pt", bench.scratch / "plain.npy"
    save_network(network, case.model)
    score = timed(score_patches, case.model, windows, bench.device)
    command = [sys.executable, "-m", eager.__name__, bench.data.store, network, count, plain]
    works = {"mitoscope": lambda: count / score(), "float32, eager": lambda: count / float(run(command, root))}
    cuda = bench.device.torch.type == "cuda"
    if not cuda:
        works[PRODUCTS] = lambda: count / seconds_in_products(score)
    variants = bench.in_turn(f"scoring, {case.title}", works)
    probabilities = score_patches(case.model, windows, bench.device), np.load(plain)
    tf32 = ", TensorFloat-32 in its convolutions (torch's default)" if cuda else ""
    note = (
        f"{count} windows from the store; float32 with NCHW tensors in batches of 256{tf32}, without its start. "
        f"{compare(*probabilities)} The network has trained on {case.samples} synthetic samples from random weights."
    )
    if cuda:
        some = windows.take(np.arange(min(count, _COMPARED)))
        note += f" Against float32 on the processor: {compare(*on_both(case.model, some, bench.device))}"
    else:
        note += " The last line counts only the time of convolutions and matrix products."
    return Row(case.title, "patches/s", variants, "float32, eager", note)


def compare(first: Floats, second: Floats) -> str:
    """Say how far (N,) probabilities of the same patches differ."""
    labels = np.random.default_rng(0).random(len(first)) < 0.1
    precisions = [average_precision_score(labels, scores) for scores in (first, second)]
    return (
        f"The largest difference of a probability is {np.abs(first - second).max():.2g}. With random labels the "
        f"average precision differs by {abs(precisions[0] - precisions[1]):.2g}."
    )


def on_both(model: PatchNetwork, windows: Windows, device: Device) -> tuple[Floats, Floats]:
    """Return the (N,) probabilities of windows on a device, and on the processor in float32; `model` is on `device`."""
    scores = score_patches(model, windows, device)
    processor = replace(alone(), bf16=False)
    reference = score_patches(model.to(processor.torch), windows, processor)
    model.to(device.torch)
    return scores, reference
