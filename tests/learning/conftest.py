"""What the tests of learning share: windows that a network can learn from."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from mitoscope.histology.windows import window_size
from mitoscope.learning.batches import PatchSet

PATCH = 32


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Tensors this small gain nothing from threads, and on a busy machine threads wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def coloured() -> Callable[..., PatchSet]:
    """Make patches that colour tells apart: mitoses blue-violet, the others pink, both noisy."""

    def make(labels: list[int], seed: int = 0) -> PatchSet:
        rng = np.random.default_rng(seed)
        truth = np.array(labels, np.int64)
        tint = np.where(truth[:, None] == 1, (70, 50, 140), (220, 150, 190))
        shape = (len(truth), window_size(PATCH), window_size(PATCH), 3)
        pixels = (tint[:, None, None] + rng.integers(-30, 31, shape)).astype(np.uint8)
        half = len(truth) // 2
        rows = np.arange(len(truth))
        store = (rows >= half).astype(np.int64)
        return PatchSet([pixels[:half], pixels[half:]], store, np.where(store, rows - half, rows), truth)

    return make
