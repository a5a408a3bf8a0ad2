"""Scoring written out plainly, in float32 with default settings: what the project's scoring is compared with.

It is a process of its own, because the project changes how the C library keeps memory. It prints the seconds, and
writes the probabilities.

    python -m benchmarks.eager STORE NETWORK.pt COUNT OUT.npy
"""

import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.data import read_samples, repeat
from mitoscope.learning.augment import crop
from mitoscope.learning.checkpoints import load_network
from mitoscope.learning.networks import PatchNetwork

_BATCH = 256


def score(model: PatchNetwork, windows: Tensor) -> Tensor:
    """Return the (N,) probabilities of (N, 3, S, S) windows."""
    images = model.prepare(crop(windows, 0, model.patch_size))
    logits: Tensor = model.inner(images.contiguous(memory_format=torch.contiguous_format))
    return logits.softmax(dim=1)[:, 1]


def main(store: Path, network: Path, count: int, out: Path) -> None:
    """Score some windows of a store."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model, _ = load_network(network)
    model.to(device).to(memory_format=torch.contiguous_format)
    windows = repeat(read_samples(store), count).windows
    batches = [np.arange(start, min(start + _BATCH, count)) for start in range(0, count, _BATCH)]
    with torch.inference_mode():
        score(model, windows.read(batches[0][:8]).to(device))  # prepares the kernels
        started = time.perf_counter()
        found = [score(model, windows.read(batch).to(device)).cpu().numpy() for batch in batches]
        print(time.perf_counter() - started)
    np.save(out, np.concatenate(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
