"""Train a network in each process that torchrun starts, and leave what each has: `parallel_training.py FOLDER`.

The network has running statistics, which the processes gather from different patches.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from mitoscope.evaluation.metrics import patch_scores
from mitoscope.learning.batches import PatchSet, Windows
from mitoscope.learning.devices import join
from mitoscope.learning.loop import fit
from mitoscope.learning.networks import build, start_state
from mitoscope.learning.scoring import score_patches
from mitoscope.params import Train

torch.set_num_threads(1)
work = Path(sys.argv[1])
rng = np.random.default_rng(0)
labels = np.arange(21) % 2
windows = np.where(labels[:, None, None, None] == 1, 60, 160) + rng.integers(0, 90, (21, 24, 24, 3))
patches = PatchSet(Windows.of(windows.astype(np.uint8)), labels)
settings = Train(
    sampling={"samples_per_epoch": 24, "positive_fraction": 0.05, "mining": {"start_epoch": 1, "every": 1}, "seed": 1},
    optimisation={"epochs": 2, "batch_size": 9, "lr": 1e-3, "patience": 2},
)
BACKBONE = "shufflenet_v2_x0_5"
description = {"backbone": BACKBONE, "head": "classifier", "patch_size": 16, "input_size": 32}
model = build(description, start_state(BACKBONE, None, 3, "classifier")[0])
with join() as device:
    device = replace(device, bf16=False)
    batches = []
    fitted = fit(
        model,
        patches,
        patches,
        settings,
        device=device,
        measure=patch_scores,
        work=work,
        fingerprint="a",
        on_batch=lambda *batch: batches.append(batch),
    )
    assert bool(batches) == device.first
    probabilities = score_patches(model, patches.windows, device)
    assert dist.get_world_size() == 2
    lasting = [{name: value for name, value in epoch.items() if "throughput" not in name} for epoch in fitted.history]
    torch.save(
        {
            "rank": device.rank,
            "state": model.inner.state_dict(),
            "probabilities": torch.from_numpy(probabilities),
            "hardness": torch.from_numpy(fitted.hardness),
            "history": lasting,
        },
        work / f"rank{device.rank}.pt",
    )
assert not dist.is_initialized()
if device.first:
    alone = score_patches(model, patches.windows, replace(device, world=1))
    torch.save(torch.from_numpy(alone), work / "alone.pt")
