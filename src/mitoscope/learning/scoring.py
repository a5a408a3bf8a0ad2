"""A network's probabilities for many patches, and the mining of hard negatives."""

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor

from mitoscope.learning.augment import crop
from mitoscope.learning.batches import Floats, PatchSet, Windows
from mitoscope.learning.devices import Device
from mitoscope.learning.networks import PatchNetwork

_BATCH = 256

OnBatch = Callable[[int, int], None]
"""Called with the number of patches done and the total."""


def score_patches(
    model: PatchNetwork, windows: Windows, device: Device, *, views: int = 1, on_batch: OnBatch | None = None
) -> Floats:
    """Return the (M,) float64 probability of a mitosis for every patch, the same in every process.

    The network runs in float32 on every machine. bfloat16 has few values near 1, where thresholds lie, and a threshold
    must mean the same on every machine.

    Args:
        model: the network, on `device`; left in evaluation mode.
        windows: (M,) windows to score; under torchrun each process scores its share.
        device: where to compute.
        views: number of views for test-time augmentation, which averages their log-odds. 1 = the patch itself; 2 = also
            its mirror image; 4 = also both rotated by 180 degrees; 8 = also these four rotated by 90 degrees; 16 = also
            these eight rotated by 45 degrees.
        on_batch: called with the number of patches done and the total.
    """
    # In float32, probabilities above 1 - 6e-8 would round to 1, and the highest ones could not be ranked.
    logits = torch.zeros(len(windows), 2, dtype=torch.float64)
    _fill(logits, model, model, windows, device, views, on_batch)
    probabilities: Floats = logits.softmax(dim=1)[:, 1].numpy()
    return probabilities


def pool_patches(
    model: PatchNetwork, windows: Windows, device: Device, *, views: int = 1, on_batch: OnBatch | None = None
) -> npt.NDArray[np.float32]:
    """Return the (M, C) input features of the pooled head for every patch, averaged over its views.

    The arguments are those of `score_patches`.

    Raises:
        ValueError: the network has another head.
    """
    features = torch.zeros(len(windows), model.channels)
    _fill(features, model, model.pool, windows, device, views, on_batch)
    pooled: npt.NDArray[np.float32] = features.numpy()
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
    """Fill `results`, (M, K) zeros on the CPU, with the output of `compute` for each patch, averaged over its views."""
    model.eval()
    with torch.inference_mode():
        for start in range(0, len(windows), _BATCH):
            done = min(start + _BATCH, len(windows))
            share = np.arange(start, done)[device.rank :: device.world]
            if len(share):
                seen = _views(windows.read(share).to(device.torch), model.patch_size, views)
                mean = torch.stack([compute(view).double() for view in seen]).mean(dim=0)
                results[share] = mean.cpu().to(results.dtype)
            if on_batch:
                on_batch(done, len(windows))
    if device.world > 1:  # each process has filled its own share
        shared = results.to(device.torch)
        dist.all_reduce(shared)
        results.copy_(shared)


def _views(windows: Tensor, patch_size: int, views: int) -> Iterator[Tensor]:
    """Yield views (N, 3, P, P) of (N, 3, S, S) windows; the first 2, 4 and 8 are each closed under mirroring.

    Therefore a mirrored field gets the same scores (with 16 views nearly the same, because of interpolation).
    """
    for angle in (0, 45) if views == 16 else (0,):
        patches = crop(windows, angle, patch_size)
        for number in range(min(views, 8)):
            turned = patches.rot90((0, 2, 1, 3)[number // 2], dims=(2, 3))
            yield turned.flip(3) if number % 2 else turned


def mine(
    model: PatchNetwork, training: PatchSet, device: Device, on_batch: OnBatch | None = None
) -> tuple[Floats, dict[str, float]]:
    """Score all negatives of the training patches to find the hard ones.

    Returns:
        The (M,) hardness of each patch, its false-positive score, with 0 for mitoses. And summary figures:
        `effective_negatives` is the number of equally hard negatives that would give draws of the same variety (Kish's
        effective sample size).
    """
    negatives = np.flatnonzero(training.labels == 0)
    scores = score_patches(model, training.windows.take(negatives), device, on_batch=on_batch)
    hardness = np.zeros(len(training))
    hardness[negatives] = scores
    return hardness, {
        "mining/false_positives": float((scores >= 0.5).sum()),
        "mining/mean_score": float(scores.mean()),
        "mining/effective_negatives": float(scores.sum() ** 2 / max((scores**2).sum(), 1e-12)),
    }
