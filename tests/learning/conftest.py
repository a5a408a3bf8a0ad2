"""What the tests of learning share: windows that a network can learn from, and settings for small trainings."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mitoscope.learning.batches import PatchSet, Windows
from mitoscope.params import Train

PATCH, WINDOW = 32, 46  # px; the window holds a patch however it is turned


@pytest.fixture(scope="session")
def coloured() -> Callable[..., PatchSet]:
    """Make patches that colour tells apart: mitoses blue-violet, the others pink, both noisy."""

    def make(labels: list[int], seed: int = 0) -> PatchSet:
        rng = np.random.default_rng(seed)
        truth = np.array(labels, np.int64)
        tint = np.where(truth[:, None] == 1, (70, 50, 140), (220, 150, 190))
        shape = (len(truth), WINDOW, WINDOW, 3)
        pixels = (tint[:, None, None] + rng.integers(-30, 31, shape)).astype(np.uint8)
        half = len(truth) // 2
        rows = np.arange(len(truth))
        store = (rows >= half).astype(np.int64)
        return PatchSet(Windows([pixels[:half], pixels[half:]], store, np.where(store, rows - half, rows)), truth)

    return make


def small(*, mining: dict[str, Any] | None = None, seed: int = 1, **changes: Any) -> Train:
    """Settings of a training of seconds, with some entries of `sampling` and `optimisation` changed."""
    sampling = {
        "samples_per_epoch": 16,
        "positive_fraction": 0.5,
        "rotations": {"positive": [0, 45, 90], "negative": [0, 45]},
        "mining": mining or {},
        "seed": seed,
    }
    optimisation = {"epochs": 3, "batch_size": 8, "lr": 1e-3, "weight_decay": 0.01, "patience": 3}
    for name, value in changes.items():
        (sampling if name in sampling else optimisation)[name] = value
    return Train(sampling=sampling, optimisation=optimisation)
