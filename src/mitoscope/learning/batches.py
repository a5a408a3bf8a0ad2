"""Draw the samples of an epoch from the stored windows, and batch them."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mitoscope.learning.augment import crop, flip, jitter_stain
from mitoscope.learning.devices import Device
from mitoscope.params import Sampling

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
_Batch = TypeVar("_Batch")


class Store(Protocol):
    """Windows of one field: a memory-mapped (N, S, S, 3) uint8 array, or a sequence that cuts them on access."""

    def __len__(self) -> int: ...

    def __getitem__(self, record: int, /) -> npt.NDArray[np.uint8]:
        """Return window `record`, (S, S, 3) uint8."""


@dataclass(frozen=True)
class Windows:
    """Windows of many fields as one sequence, read on access.

    Attributes:
        stores: the windows of each field.
        store: (M,) index in `stores` for each window.
        record: (M,) index in its store for each window.
    """

    stores: Sequence[Store]
    store: Integers
    record: Integers

    @classmethod
    def of(cls, store: Store) -> "Windows":
        """Return all windows of one field, in order."""
        count = len(store)
        return cls([store], np.zeros(count, np.int64), np.arange(count))

    def __len__(self) -> int:
        return len(self.record)

    def take(self, indices: Integers) -> "Windows":
        """Return only the windows `indices`."""
        return Windows(self.stores, self.store[indices], self.record[indices])

    def read(self, indices: Integers) -> Tensor:
        """Read the pixels of the windows `indices`, at least one, as (n, 3, S, S) uint8."""
        rows = [self.stores[self.store[index]][int(self.record[index])] for index in indices]
        return torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class PatchSet:
    """Windows with labels.

    Attributes:
        windows: (M,) windows.
        labels: (M,) 1 = mitosis, 0 = not.
    """

    windows: Windows
    labels: Integers

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: Integers) -> "PatchSet":
        """Return only the samples `indices`."""
        return PatchSet(self.windows.take(indices), self.labels[indices])


def draw_epoch(
    labels: Integers,
    sampling: Sampling,
    *,
    samples: int,
    rng: np.random.Generator,
    hardness: Floats | None = None,
) -> tuple[Integers, Floats]:
    """Draw the samples of one epoch, shuffled.

    Within each class, every (patch, angle) pair is drawn once before any pair is drawn twice. With `hardness`, the
    negatives are instead drawn in proportion to it, with replacement.

    Args:
        labels: (M,) labels of the training patches, with both classes.
        sampling: the angles of each class and the share of mitoses.
        samples: number of samples, with at least one of each class. It may differ from `sampling.samples_per_epoch`,
            which need not be a multiple of the batch size.
        rng: random generator.
        hardness: (M,) >= 0, the network's false-positive score of each negative.

    Returns:
        (samples,) indices into `labels` and (samples,) angles in degrees.
    """
    positives = min(max(round(samples * sampling.positive_fraction), 1), samples - 1)
    rotations = sampling.rotations
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


def generators(seed: int, epoch: int, rank: int) -> tuple[np.random.Generator, np.random.Generator]:
    """Return an epoch's random generators: one for drawing samples, the same in every process, and one per process.

    The second one augments the share of the process. `default_rng([seed, epoch])` and `default_rng([seed, epoch, 0])`
    would be the same stream, so the generators are spawned.
    """
    draw, *vary = np.random.SeedSequence([seed, epoch]).spawn(2 + rank)
    return np.random.default_rng(draw), np.random.default_rng(vary[rank])


def prefetch(batches: Iterator[_Batch], device: Device) -> Iterator[_Batch]:
    """Yield the items of an iterator; on a GPU, compute each in a thread while the caller works on the one before.

    On a processor the step uses all cores, and with a thread beside it DenseNet161 takes 1.4 times as long:
    docs/explanation/speed.md.
    """
    if device.torch.type == "cpu":
        yield from batches
        return
    with ThreadPoolExecutor(max_workers=1) as thread:
        following = thread.submit(next, batches, None)
        while (batch := following.result()) is not None:
            following = thread.submit(next, batches, None)
            yield batch


def epoch_batches(
    training: PatchSet,
    sampling: Sampling,
    *,
    epoch: int,
    steps: int,
    batch_size: int,
    patch_size: int,
    device: Device,
    hardness: Floats | None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield this process's share of every batch of an epoch, cropped and augmented.

    All randomness, including that of layers like dropout, is seeded from the seed and the epoch.

    Args:
        training: patches to draw from, with both classes.
        sampling: how to draw and augment.
        epoch: number of the epoch, from 1.
        steps: number of batches.
        batch_size: batch size of all processes together.
        patch_size: side of the patches, px.
        device: where the patches are cropped.
        hardness: as in `draw_epoch`.

    Yields:
        (n, 3, patch_size, patch_size) uint8 patches and (n,) labels.
    """
    draw, vary = generators(sampling.seed, epoch, device.rank)
    torch.manual_seed(int(vary.integers(2**62)))
    indices, angles = draw_epoch(training.labels, sampling, samples=steps * batch_size, rng=draw, hardness=hardness)
    for start in range(0, len(indices), batch_size):
        share = slice(start + device.rank, start + batch_size, device.world)
        patches = crop(training.windows.read(indices[share]).to(device.torch), angles[share], patch_size)
        if sampling.flips:
            patches = flip(patches, vary)
        if sampling.stain_jitter:
            patches = jitter_stain(patches, sampling.stain_jitter, vary)
        yield patches, torch.from_numpy(training.labels[indices[share]]).to(device.torch)
