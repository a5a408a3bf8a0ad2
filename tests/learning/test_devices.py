"""Where training runs."""

import os
import subprocess
import sys

import pytest
import torch
import torch.distributed as dist

from mitoscope.learning.devices import join


def test_a_plain_process_is_alone(monkeypatch):
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    with join() as place:
        assert (place.rank, place.world, place.first) == (0, 1, True)
        assert place.device.type == ("cuda" if torch.cuda.is_available() else "cpu")
        assert not dist.is_initialized()
        torch.zeros(1, device=place.device)


# The network has running statistics, which the processes gather from different patches.
SCRIPT = """
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from mitoscope.learning.batches import PatchSet, Rotations
from mitoscope.learning.devices import join
from mitoscope.learning.loop import Mining, Recipe, fit
from mitoscope.learning.scoring import score_patches
from mitoscope.learning.networks import build, start_state

torch.set_num_threads(1)
work = Path(sys.argv[1])
rng = np.random.default_rng(0)
labels = np.arange(21) % 2
windows = np.where(labels[:, None, None, None] == 1, 60, 160) + rng.integers(0, 90, (21, 24, 24, 3))
patches = PatchSet([windows.astype(np.uint8)], np.zeros(21, int), np.arange(21), labels)
recipe = Recipe(
    Rotations([0, 45], [0]), flips=True, stain_jitter=0.1, epochs=2, samples_per_epoch=24, positive_fraction=0.5,
    batch_size=9, lr=1e-3, weight_decay=0.01, patience=2, seed=1, mining=Mining(start_epoch=1, every=1, lr_factor=0.5),
)
ARCH = "shufflenet_v2_x0_5"
network = build({"arch": ARCH, "patch_size": 16, "input_size": 32}, start_state(ARCH, None, 3)[0])
with join() as place:
    place = replace(place, bf16=False)
    batches = []
    fitted = fit(
        network, patches, patches, recipe, place=place, work=work, fingerprint="a",
        on_batch=lambda *batch: batches.append(batch),
    )
    assert bool(batches) == place.first
    probabilities = score_patches(network, patches, place)
    assert dist.get_world_size() == 2
    torch.save(
        {"rank": place.rank, "state": network.network.state_dict(), "probabilities": torch.from_numpy(probabilities),
         "hardness": torch.from_numpy(fitted.hardness),
         "f1": [epoch["validation/best_f1"] for epoch in fitted.history],
         "loss": [epoch["validation/loss"] for epoch in fitted.history]},
        work / f"rank{place.rank}.pt",
    )
assert not dist.is_initialized()
if place.first:
    alone = score_patches(network, patches, replace(place, world=1))
    torch.save(torch.from_numpy(alone), work / "alone.pt")
"""


@pytest.mark.slow
def test_two_processes_train_one_network(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launch, str(script), str(tmp_path)], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr

    first, second = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    assert (first["rank"], second["rank"]) == (0, 1)
    different = [name for name, tensor in first["state"].items() if not torch.equal(tensor, second["state"][name])]
    assert different == []
    assert len(first["f1"]) == 2
    assert first["f1"] == second["f1"] and first["loss"] == second["loss"]  # both stop at the same epoch
    assert torch.equal(first["probabilities"], second["probabilities"])
    assert torch.equal(first["hardness"], second["hardness"]) and first["hardness"].any()
    alone = torch.load(tmp_path / "alone.pt", weights_only=True)
    torch.testing.assert_close(first["probabilities"], alone, atol=1e-5, rtol=0)
    assert alone.std() > 0
    saved = torch.load(tmp_path / "last.pt", weights_only=True)  # written once, by the first
    assert all(torch.equal(tensor, first["state"][name]) for name, tensor in saved["state"].items())
