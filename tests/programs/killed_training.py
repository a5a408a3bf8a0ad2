"""Train a small network and die in the second epoch: `killed_training.py FOLDER`."""

import os
import signal
import sys
from pathlib import Path

import numpy as np
import torch

from mitoscope.evaluation.metrics import patch_scores
from mitoscope.learning.batches import PatchSet, Windows
from mitoscope.learning.devices import alone
from mitoscope.learning.loop import fit
from mitoscope.learning.networks import build, start_state
from mitoscope.params import Train

labels = np.arange(12) % 2
windows = np.random.default_rng(0).integers(0, 256, (12, 24, 24, 3)).astype(np.uint8)
patches = PatchSet(Windows.of(windows), labels)
settings = Train(
    sampling={"samples_per_epoch": 16, "positive_fraction": 0.5, "mining": {"start_epoch": 1, "every": 1}, "seed": 1},
    optimisation={"epochs": 2, "batch_size": 8, "lr": 1e-3, "patience": 2},
)
BACKBONE = "mobilenet_v3_small"
description = {"backbone": BACKBONE, "head": "classifier", "patch_size": 16, "input_size": 32}


def train(work: Path, *, kill: bool) -> None:
    """Train into the folder `work`; with `kill`, be killed in the second epoch, as when memory runs out."""

    def on_batch(label: str, done: int, of: int) -> None:
        if kill and (label, done) == ("epoch 2/2 train", 8):
            os.kill(os.getpid(), signal.SIGKILL)

    model = build(description, start_state(BACKBONE, None, 3, "classifier")[0])
    fit(
        model,
        patches,
        patches,
        settings,
        device=alone(),
        measure=patch_scores,
        work=work,
        fingerprint="a",
        on_batch=on_batch,
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    train(Path(sys.argv[1]), kill=True)
