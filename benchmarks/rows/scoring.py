"""Scoring against float32, eager."""

import sys
from pathlib import Path

import numpy as np
from sklearn.metrics import average_precision_score

from benchmarks import eager
from benchmarks.bench import Bench, run, timed
from benchmarks.data import repeat
from benchmarks.networks import Case, scored_in
from benchmarks.results import Row
from mitoscope.learning.checkpoints import save_network
from mitoscope.learning.scoring import score_patches

CASES = (Case("alexnet", 224), Case("alexnet", 96), Case("densenet161", 64, batch_size=32))


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
    variants = bench.in_turn(f"scoring, {case.title}", works)
    probabilities = score_patches(case.model, windows, bench.device), np.load(plain)
    difference = np.abs(probabilities[0] - probabilities[1]).max()
    labels = np.random.default_rng(0).random(count) < 0.1
    precisions = [average_precision_score(labels, scores) for scores in probabilities]
    note = (
        f"{count} windows from the store; float32 with NCHW tensors in batches of 256, without its start. The largest "
        f"difference of a probability is {difference:.2g}. With random labels the average precision differs by "
        f"{abs(precisions[0] - precisions[1]):.2g}. The network has trained on {case.samples} synthetic samples from "
        "random weights."
    )
    return Row(case.title, "patches/s", variants, "float32, eager", note)
