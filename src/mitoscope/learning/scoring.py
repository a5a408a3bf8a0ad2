"""A network's probabilities for many patches, and the mining of hard negatives."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor

from mitoscope.learning.augment import crop
from mitoscope.learning.batches import Floats, PatchSet, Windows
from mitoscope.learning.devices import Device
from mitoscope.learning.merging import merge_repeats
from mitoscope.learning.networks import PatchNetwork
from mitoscope.params import Sampling

_BATCH = 256
_MINED_PER_SAMPLE = 2
_SAMPLE = 1  # tells the random numbers of a mining's sample from those of its epoch

OnBatch = Callable[[int, int], None]
"""Called with the number of patches done and the total."""


def score_patches(
    model: PatchNetwork, windows: Windows, device: Device, *, views: int = 1, on_batch: OnBatch | None = None
) -> Floats:
    """Return the (M,) float64 probability of a mitosis for every patch, the same in every process.

    On a processor that is faster in bfloat16, all layers but the last compute in it; the last one and the softmax
    compute in float32 everywhere. docs/explanation/determinism.md says what that changes in the scores.

    Args:
        model: the network, on `device`; left in evaluation mode.
        windows: (M,) windows to score; under torchrun each process scores its share.
        device: where to compute.
        views: number of views for test-time augmentation, which averages their log-odds. 1 = the patch itself; 2 = also
            its mirror image; 4 = also both rotated by 180 degrees; 8 = also rotated by 45 and 315 degrees, with mirror
            images.
        on_batch: called with the number of patches done and the total.
    """
    # In float32, probabilities above 1 - 6e-8 would round to 1, and the highest ones could not be ranked.
    logits = torch.zeros(len(windows), 2, dtype=torch.float64)
    model.eval()
    _fill(logits, model, merge_repeats(model.inner, model.input_size), windows, device, views, on_batch)
    probabilities: Floats = logits.softmax(dim=1)[:, 1].numpy()
    return probabilities


def pool_patches(
    model: PatchNetwork,
    windows: Windows,
    device: Device,
    *,
    views: int = 1,
    out: npt.NDArray[np.float32] | None = None,
    on_batch: OnBatch | None = None,
) -> npt.NDArray[np.float32]:
    """Return the (M, C) input features of the pooled head for every patch, averaged over its views.

    Args:
        model: the network, on `device`; left in evaluation mode.
        windows: (M,) windows; under torchrun each process computes its share.
        device: where to compute.
        views: as in `score_patches`.
        out: array of zeros for the features, such as a memory-mapped one; None = a new array.
        on_batch: called with the number of patches done and the total.

    Raises:
        ValueError: the network has another head.
    """
    pooled = np.zeros((len(windows), model.pooled.channels), np.float32) if out is None else out
    model.eval()
    _fill(torch.from_numpy(pooled), model, model.pooled.pool, windows, device, views, on_batch)
    return pooled


def _fill(
    results: Tensor,
    model: PatchNetwork,
    compute: Callable[[Tensor], Tensor],
    windows: Windows,
    device: Device,
    views: int,
    on_batch: OnBatch | None,
) -> None:
    """Fill `results`, (M, K) zeros on the CPU, with the output of `compute` for each patch, averaged over its views.

    `compute` takes the images that `model.prepare` returns.
    """
    # A GPU scores thousands of patches a second in float32, too.
    in_bf16 = model.in_bfloat16 and device.torch.type == "cpu"
    precision = device.autocast() if in_bf16 else nullcontext()
    # In inference mode, every batch would convert all weights to bfloat16 again.
    with torch.no_grad(), precision:
        for start in range(0, len(windows), _BATCH):
            done = min(start + _BATCH, len(windows))
            share = np.arange(start, done)[device.rank :: device.world]
            if len(share):
                pixels = windows.read(share).to(device.torch)
                seen = (
                    view.contiguous(memory_format=torch.channels_last)
                    for view in cut_views(pixels, model.patch_size, views, model.prepare)
                )
                mean = torch.stack([compute(view).double() for view in seen]).mean(dim=0)
                results[share] = mean.cpu().to(results.dtype)
            if on_batch:
                on_batch(done, len(windows))
    if device.world > 1:  # each process has filled its own share
        shared = results.to(device.torch)
        dist.all_reduce(shared)
        results.copy_(shared)


def cut_views(
    windows: Tensor, patch_size: int, count: int, prepare: Callable[[Tensor], Tensor] | None = None
) -> Iterator[Tensor]:
    """Yield views of the patches in the middle of windows: rotated, and mirrored.

    The first 2, 4 and 8 are each closed under mirroring. Therefore a mirrored field gets the same scores (with 8 views
    nearly the same, because of interpolation). Rotations by 45 degrees tell more than those by 90 degrees:
    docs/explanation/accuracy.md has the figures.

    Args:
        windows: (N, 3, S, S) uint8.
        patch_size: side of the patches, px.
        count: number of views: 1, 2, 4 or 8.
        prepare: applied to (N, 3, P, P) uint8 patches before they are mirrored, once for four views; None = nothing.
    """
    for number in range(count):
        if number % 4 == 0:
            patches = crop(windows, (0, 45)[number // 4], patch_size)
            images = patches if prepare is None else prepare(patches)
        quarters = (0, 2, 0, 3)[number // 2]
        view = images.rot90(quarters, dims=(2, 3)) if quarters else images
        yield view.flip(3) if number % 2 else view


def mine(
    model: PatchNetwork,
    training: PatchSet,
    device: Device,
    *,
    sampling: Sampling,
    epoch: int,
    known: Floats | None,
    on_batch: OnBatch | None = None,
) -> tuple[Floats, dict[str, float]]:
    """Score negatives of the training patches to find the hard ones.

    Only a random sample is scored, of twice as many as an epoch has samples: a mining then takes about half of the time
    of an epoch at most. The other negatives keep the score of an earlier mining.

    Args:
        model: the network, on `device`; left in evaluation mode.
        training: the training patches.
        device: where to compute.
        sampling: the size of an epoch, and the seed of the sample.
        epoch: number of the epoch that begins, from 1.
        known: (M,) hardness from earlier minings; None = this is the first.
        on_batch: called with the number of patches done and the total.

    Returns:
        The (M,) hardness of each patch, its false-positive score, with 0 for mitoses and for negatives that no mining
        has scored. And summary figures of the sample: `effective_negatives` is the number of equally hard negatives
        that would give draws of the same variety (Kish's effective sample size).
    """
    negatives = np.flatnonzero(training.labels == 0)
    if len(negatives) > (count := _MINED_PER_SAMPLE * sampling.samples_per_epoch):
        rng = np.random.default_rng([sampling.seed, epoch, _SAMPLE])
        negatives = np.sort(rng.choice(negatives, count, replace=False))
    scores = score_patches(model, training.windows.take(negatives), device, on_batch=on_batch)
    hardness = np.zeros(len(training)) if known is None else known.copy()
    hardness[negatives] = scores
    return hardness, {
        "mining/false_positives": float((scores >= 0.5).sum()),
        "mining/mean_score": float(scores.mean()),
        "mining/effective_negatives": float(scores.sum() ** 2 / max((scores**2).sum(), 1e-12)),
    }
