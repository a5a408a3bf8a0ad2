"""From the stored windows to an epoch's samples and their batches."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PatchSet:
    """Windows of many fields as one sequence, read from disk when asked for.

    Attributes:
        stores: per field, its (N, S, S, 3) uint8 windows, usually memory-mapped.
        store: (M,) which of the stores a sample is in.
        record: (M,) which window of that store it is.
        labels: (M,) 1 = mitosis, 0 = not.
    """

    stores: Sequence[npt.NDArray[np.uint8]]
    store: Integers
    record: Integers
    labels: Integers

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: Integers) -> "PatchSet":
        """The samples `indices` alone."""
        return PatchSet(self.stores, self.store[indices], self.record[indices], self.labels[indices])

    def windows(self, indices: Integers) -> Tensor:
        """The windows `indices` as (n, 3, S, S) uint8."""
        rows = [self.stores[self.store[index]][self.record[index]] for index in indices]
        return torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class Rotations:
    """Angles in degrees per class; each (patch, angle) pair is one sample."""

    positive: Sequence[float]
    negative: Sequence[float]


def draw_epoch(
    labels: Integers,
    rotations: Rotations,
    *,
    samples: int,
    positive_fraction: float,
    rng: np.random.Generator,
    hardness: Floats | None = None,
) -> tuple[Integers, Floats]:
    """Draw the samples of one epoch, shuffled.

    Within each class every (patch, angle) pair comes once before any comes twice; but with `hardness` the negatives
    are drawn in proportion to it, with replacement.

    Args:
        labels: (M,) of the training patches; both classes must be there.
        rotations: the angles of each class.
        samples: how many to draw; at least one of each class.
        positive_fraction: share of mitoses among them.
        rng: the source of chance.
        hardness: (M,) >= 0, the network's false-positive score where the label is 0.

    Returns:
        (samples,) indices into `labels` and (samples,) angles in degrees.
    """
    positives = min(max(round(samples * positive_fraction), 1), samples - 1)
    drawn = []
    for label, angles, count in ((1, rotations.positive, positives), (0, rotations.negative, samples - positives)):
        patches = np.flatnonzero(labels == label)
        pairs = np.stack([np.repeat(patches, len(angles)), np.tile(angles, len(patches))])
        if label == 0 and hardness is not None and hardness[patches].any():
            weights = hardness[pairs[0].astype(np.int64)]
            chosen = rng.choice(pairs.shape[1], size=count, p=weights / weights.sum())
        else:
            rounds = [rng.permutation(pairs.shape[1]) for _ in range(-(-count // pairs.shape[1]))]
            chosen = np.concatenate(rounds)[:count]
        drawn.append(pairs[:, chosen])
    order = rng.permutation(samples)
    indices, angles_drawn = np.concatenate(drawn, axis=1)[:, order]
    return indices.astype(np.int64), angles_drawn
