"""A network's probabilities for many patches, and the negatives that it takes for mitoses."""

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
"""Called with the patches done and their number."""


def score_patches(
    model: PatchNetwork, windows: Windows, device: Device, *, views: int = 1, on_batch: OnBatch | None = None
) -> Floats:
    """Probability of a mitosis for every patch; (M,) float64, the same in every process.

    In float32 on every machine: near 1, where thresholds lie, bfloat16 has few numbers, and a threshold must mean the
    same wherever the network is used.

    Args:
        model: is on `device` and is left in evaluation mode.
        windows: (M,) what to score; under torchrun each process scores its share.
        device: where to compute.
        views: test-time augmentation, the mean log-odds of so many views of a patch: 1 = as it is, 2 = and its mirror
            image, 4 = and both turned by 180 degrees, 8 = and these four turned by 90 degrees, 16 = and these eight
            turned by 45 degrees.
        on_batch: called with the patches done and their number.
    """
    # In float32 whatever scores above 1 - 6e-8 would be 1, and the surest ones could not be ranked.
    logits = torch.zeros(len(windows), 2, dtype=torch.float64)
    _fill(logits, model, model, windows, device, views, on_batch)
    probabilities: Floats = logits.softmax(dim=1)[:, 1].numpy()
    return probabilities


def pool_patches(
    model: PatchNetwork, windows: Windows, device: Device, *, views: int = 1, on_batch: OnBatch | None = None
) -> npt.NDArray[np.float32]:
    """What the pooled head of `model` sees of every patch; (M, C), the mean over its views.

    Arguments as for `score_patches`.

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
    """Fill (M, K) zeros on the CPU with what `compute` gives of each patch, the mean over its views."""
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
    """Views (N, 3, P, P) of (N, 3, S, S) windows, in an order whose first 2, 4 and 8 mirror one another.

    So a mirrored field gets the same scores (with 16 nearly: the turned ones are interpolated).
    """
    for angle in (0, 45) if views == 16 else (0,):
        patches = crop(windows, angle, patch_size)
        for number in range(min(views, 8)):
            turned = patches.rot90((0, 2, 1, 3)[number // 2], dims=(2, 3))
            yield turned.flip(3) if number % 2 else turned


def mine(
    model: PatchNetwork, training: PatchSet, device: Device, on_batch: OnBatch | None = None
) -> tuple[Floats, dict[str, float]]:
    """Score all negatives of the training patches: how hard each is, (M,) with 0 for the mitoses, and figures of them.

    `effective_negatives` is the number of equally hard ones that would be drawn as variedly (Kish's effective size).
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
