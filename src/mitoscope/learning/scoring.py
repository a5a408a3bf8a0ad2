"""A network's probabilities for many patches, and what training takes from them."""

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor

from mitoscope.evaluation.metrics import Labels, Probabilities, best_threshold, classification, ranking
from mitoscope.learning.augment import crop
from mitoscope.learning.batches import PatchSet
from mitoscope.learning.devices import Place
from mitoscope.learning.networks import PatchNetwork

_BATCH = 256

Epoch = dict[str, float]
OnBatch = Callable[[str, int, int], None]


def score_patches(
    network: PatchNetwork,
    patches: PatchSet,
    place: Place,
    on_batch: OnBatch | None = None,
    label: str = "score",
    views: int = 1,
) -> Probabilities:
    """Probability of a mitosis for every patch; (M,) float64, the same in every process.

    In float32 on every machine: near 1, where thresholds lie, bfloat16 has few numbers, and a threshold must mean the
    same wherever the network is used.

    Args:
        network: is left in evaluation mode.
        patches: what to score; under torchrun each process scores its share.
        place: where to compute.
        on_batch: called with `label`, the patches done and their number.
        label: what a progress bar calls this.
        views: test-time augmentation, the mean log-odds of so many views of a patch: 1 = as it is, 2 = and its mirror
            image, 4 = and both turned by 180 degrees, 8 = and these four turned by 90 degrees, 16 = and these eight
            turned by 45 degrees.
    """
    # In float32 whatever scores above 1 - 6e-8 would be 1, and the surest ones could not be ranked.
    logits = torch.zeros(len(patches), 2, dtype=torch.float64)
    _ask(network, network, logits, patches, place, on_batch, label, views)
    probabilities: Probabilities = logits.softmax(dim=1)[:, 1].numpy()
    return probabilities


def pool_patches(
    network: PatchNetwork,
    patches: PatchSet,
    place: Place,
    on_batch: OnBatch | None = None,
    label: str = "pool",
    views: int = 1,
) -> npt.NDArray[np.float32]:
    """What the pooled head of `network` sees of every patch; (M, C), the mean over its views.

    Arguments as for `score_patches`.

    Raises:
        ValueError: the network's head is another.
    """
    features = torch.zeros(len(patches), network.channels)
    _ask(network, network.pool, features, patches, place, on_batch, label, views)
    pooled: npt.NDArray[np.float32] = features.numpy()
    return pooled


def _ask(
    network: PatchNetwork,
    question: Callable[[Tensor], Tensor],
    answers: Tensor,
    patches: PatchSet,
    place: Place,
    on_batch: OnBatch | None,
    label: str,
    views: int,
) -> None:
    """Fill (M, K) zeros on the CPU with what `question` gives of each patch, the mean over its views."""
    network.eval()
    with torch.inference_mode():
        for start in range(0, len(patches), _BATCH):
            chosen = np.arange(start, min(start + _BATCH, len(patches)))[place.rank :: place.world]
            if len(chosen):
                windows = patches.windows(chosen).to(place.device)
                seen = _views(windows, network.patch_size, views)
                mean = torch.stack([question(view).double() for view in seen]).mean(dim=0)
                answers[chosen] = mean.cpu().to(answers.dtype)
            if on_batch:
                on_batch(label, min(start + _BATCH, len(patches)), len(patches))
    if place.world > 1:  # each process has filled its own share
        shared = answers.to(place.device)
        dist.all_reduce(shared)
        answers.copy_(shared)


def _views(windows: Tensor, patch_size: int, views: int) -> Iterator[Tensor]:
    """Views (N, 3, P, P) of (N, 3, S, S) windows, in an order whose first 2, 4 and 8 mirror one another.

    So a mirrored field gets the same scores (with 16 nearly: the turned ones are interpolated).
    """
    for angle in (0, 45) if views == 16 else (0,):
        patches = crop(windows, angle, patch_size)
        for number in range(min(views, 8)):
            turned = patches.rot90((0, 2, 1, 3)[number // 2], dims=(2, 3))
            yield turned.flip(3) if number % 2 else turned


def validation_scores(labels: Labels, probabilities: Probabilities) -> Epoch:
    """Loss, classification at 0.5, the threshold with the best F1, that F1, and ranking scores of the patches."""
    threshold, best_f1 = best_threshold(labels, probabilities)
    truth = np.clip(np.where(labels == 1, probabilities, 1 - probabilities), 1e-7, 1)
    return {
        "validation/loss": float(-np.log(truth).mean()),
        **{f"validation/{name}": value for name, value in classification(labels, probabilities, 0.5).items()},
        "validation/best_f1": best_f1,
        "validation/threshold": threshold,
        **{f"validation/{name}": value for name, value in ranking(labels, probabilities).items()},
    }


def mine(
    network: PatchNetwork, training: PatchSet, place: Place, on_batch: OnBatch | None, label: str
) -> tuple[Probabilities, Epoch]:
    """Score all negatives of the training patches: how hard each is, (M,) with 0 for the mitoses, and figures of them.

    `effective_negatives` is the number of equally hard ones that would be drawn as variedly (Kish's effective size).
    """
    negatives = np.flatnonzero(training.labels == 0)
    scores = score_patches(network, training.take(negatives), place, on_batch, label)
    hardness = np.zeros(len(training))
    hardness[negatives] = scores
    return hardness, {
        "mining/false_positives": float((scores >= 0.5).sum()),
        "mining/mean_score": float(scores.mean()),
        "mining/effective_negatives": float(scores.sum() ** 2 / max((scores**2).sum(), 1e-12)),
    }
