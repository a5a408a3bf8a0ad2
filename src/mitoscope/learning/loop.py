"""The training loop, to be read from top to bottom.

One epoch draws its samples, crops and varies them, takes a step per batch, scores the validation patches and writes
the `last` checkpoint (and `best` when it is). With mining, the first epochs draw negatives evenly and the others draw
those that the network takes for mitoses, in a second one-cycle schedule. Chance is seeded anew in every epoch from the
seed and the epoch's number, so that a run that was killed and resumed equals one that never was, with no generator's
state to keep: bit for bit on the processor, while a GPU has a few operations that are not repeatable. In several
processes the `train` scores are those of the first one's share.
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from mitoscope.evaluation.metrics import Probabilities, classification
from mitoscope.learning import checkpoints
from mitoscope.learning.augment import crop, flip, jitter_stain
from mitoscope.learning.batches import PatchSet, Rotations, draw_epoch
from mitoscope.learning.devices import Place
from mitoscope.learning.networks import PatchNetwork
from mitoscope.learning.scoring import Epoch, OnBatch, mine, score_patches, validation_scores


@dataclass(frozen=True)
class Mining:
    """Hard negatives: epochs after `start_epoch` draw negatives by their score, taken anew every `every` epochs.

    `every` 0 is off. The learning rate of these epochs peaks at `lr_factor` times that of the first ones.
    """

    start_epoch: int
    every: int
    lr_factor: float


@dataclass(frozen=True)
class Recipe:
    """The settings of a training run; the same names and meanings as a `train` block of params.yaml."""

    rotations: Rotations
    flips: bool
    stain_jitter: float
    mining: Mining
    epochs: int
    samples_per_epoch: int
    positive_fraction: float
    batch_size: int
    lr: float
    weight_decay: float
    patience: int
    seed: int

    @property
    def plain_epochs(self) -> int:
        """How many epochs draw negatives evenly."""
        return self.mining.start_epoch if self.mining.every else self.epochs


@dataclass(frozen=True)
class Fitted:
    """What training gave: one entry per epoch, the number of the best (from 1), and the mined negatives.

    `hardness` is each training patch's false-positive score, as the last mining found it; None without mining.
    """

    history: list[Epoch]
    best_epoch: int
    hardness: Probabilities | None


def autocast(place: Place) -> AbstractContextManager[None]:
    """Bfloat16 where the hardware has it, float32 elsewhere."""
    return torch.autocast(place.device.type, torch.bfloat16, enabled=place.bf16)


def fit(
    network: PatchNetwork,
    training: PatchSet,
    validation: PatchSet,
    recipe: Recipe,
    *,
    place: Place,
    work: Path | None,
    fingerprint: str,
    on_epoch: Callable[[list[Epoch]], None] | None = None,
    on_batch: OnBatch | None = None,
) -> Fitted:
    """Train a network in place; resumes from `work/last.pt` when that has the same fingerprint.

    Args:
        network: holds the start weights; afterwards it holds the last epoch's. The best are in `work/best.pt`.
        training: patches to learn from; both classes must be there.
        validation: patches that choose the best epoch; a mitosis must be there.
        recipe: how to train.
        place: this process among those that train.
        work: folder of the checkpoints; None = keep none, as in the trials of a search.
        fingerprint: names everything that the result depends on.
        on_epoch: called in the first process with all epochs so far, after their checkpoint is on the disk; also
            once at a resume.
        on_batch: called in the first process with a label, the samples done and their number.

    Raises:
        ValueError: a class is missing from `training`, or mitoses from `validation`.
        FloatingPointError: the loss or the scores are no longer finite, as with too high a learning rate.
    """
    if len(np.unique(training.labels)) < 2 or not validation.labels.any():
        raise ValueError("training needs patches of both classes, and validation needs mitoses")
    if place.device.type == "cuda":
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = False
    network.to(place.device)
    # Every process takes an equal share of every batch, so that none waits for the others for ever.
    batch_size = max(min(recipe.batch_size, recipe.samples_per_epoch) // place.world, 1) * place.world
    steps = max(recipe.samples_per_epoch // batch_size, 1)
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True)

    def one_cycle(number: int) -> torch.optim.lr_scheduler.OneCycleLR:
        """The schedule that epoch `number` belongs to, from its start."""
        epochs, peak = recipe.plain_epochs, recipe.lr
        if number > epochs:
            epochs, peak = recipe.epochs - epochs, peak * recipe.mining.lr_factor
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, peak, total_steps=epochs * steps)

    model: nn.Module = DistributedDataParallel(network) if place.world > 1 else network
    history: list[Epoch] = []
    hardness: Probabilities | None = None
    schedule = one_cycle(1)
    last = None if work is None else work / "last.pt"
    if last and last.exists() and (saved := checkpoints.load(last)).get("fingerprint") == fingerprint:
        history = saved["history"]
        hardness = None if saved["hardness"] is None else saved["hardness"].numpy()
        network.network.load_state_dict(saved["state"])
        schedule = one_cycle(len(history))
        optimizer.load_state_dict(saved["optimizer"])
        schedule.load_state_dict(saved["schedule"])
        if place.first and on_epoch:
            on_epoch(history)

    while not finished(history, recipe):
        number = len(history) + 1
        started = time.perf_counter()
        mining: Epoch = {}
        mined_epochs = number - recipe.plain_epochs - 1
        if mined_epochs == 0:
            schedule = one_cycle(number)
        if mined_epochs >= 0 and mined_epochs % recipe.mining.every == 0:
            label = f"epoch {number}/{recipe.epochs} mine"
            hardness, mining = mine(network, training, place, on_batch if place.first else None, label)
        started_training = time.perf_counter()
        rng = np.random.default_rng([recipe.seed, number])
        indices, angles = draw_epoch(
            training.labels,
            recipe.rotations,
            samples=steps * batch_size,
            positive_fraction=recipe.positive_fraction,
            rng=rng,
            hardness=hardness,
        )
        # The draw is the same in every process; what follows must differ between them.
        rng = np.random.default_rng([recipe.seed, number, place.rank])
        torch.manual_seed(int(rng.integers(2**62)))
        model.train()
        losses, scores, truths = [], [], []
        for step in range(steps):
            share = slice(step * batch_size + place.rank, (step + 1) * batch_size, place.world)
            patches = crop(training.windows(indices[share]).to(place.device), angles[share], network.patch_size)
            if recipe.flips:
                patches = flip(patches, rng)
            if recipe.stain_jitter:
                patches = jitter_stain(patches, recipe.stain_jitter, rng)
            labels = torch.from_numpy(training.labels[indices[share]]).to(place.device)
            with autocast(place):
                logits: Tensor = model(patches)
                loss = F.cross_entropy(logits.float(), labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            losses.append(loss.detach())
            scores.append(logits.detach().float().softmax(dim=1)[:, 1])
            truths.append(labels)
            if on_batch and place.first:
                on_batch(f"epoch {number}/{recipe.epochs} train", (step + 1) * batch_size, steps * batch_size)
        if place.world > 1:  # running means and variances, which each process took from its own share
            for buffer in network.buffers():
                dist.broadcast(buffer, src=0)
        seconds = time.perf_counter() - started_training
        train_loss = float(torch.stack(losses).mean())
        train_scores, train_truths = torch.cat(scores).cpu().numpy(), torch.cat(truths).cpu().numpy()
        probabilities = score_patches(
            network, validation, place, on_batch if place.first else None, f"epoch {number}/{recipe.epochs} validate"
        )
        if not (np.isfinite(train_loss) and np.isfinite(probabilities).all()):
            raise FloatingPointError(f"training diverged in epoch {number} (its loss is {train_loss}); lower lr")
        epoch = {
            "train/loss": train_loss,
            **{f"train/{name}": value for name, value in classification(train_truths, train_scores, 0.5).items()},
            **validation_scores(validation.labels, probabilities),
            **mining,
            "throughput/train_patches_per_second": steps * batch_size / seconds,
            "throughput/epoch_seconds": time.perf_counter() - started,
            "train/lr": float(schedule.get_last_lr()[0]),
        }
        history.append(epoch)
        if place.first and last:
            state = network.network.state_dict()
            if best_epoch(history) == number:
                best = last.with_name("best.pt")
                checkpoints.save_network(best, network, epoch=number, threshold=epoch["validation/threshold"])
            checkpoints.save(
                last,
                {
                    "fingerprint": fingerprint,
                    "state": state,
                    "optimizer": optimizer.state_dict(),
                    "schedule": schedule.state_dict(),
                    "hardness": None if hardness is None else torch.from_numpy(hardness),
                    "history": history,
                },
            )
        if place.first and on_epoch:
            on_epoch(history)
    return Fitted(history, best_epoch(history), hardness)


def best_epoch(history: list[Epoch]) -> int:
    """Number (from 1) of the first epoch with the highest validation F1, each at its own best threshold.

    Not at 0.5: training sees far more mitoses than a field holds, so 0.5 is not where such a network is used.
    """
    return int(np.argmax([epoch["validation/best_f1"] for epoch in history])) + 1


def finished(history: list[Epoch], recipe: Recipe) -> bool:
    """Whether all epochs are done, or `patience` epochs brought no better validation F1.

    Mining gets its chance: the epochs before it do not count.
    """
    if not history:
        return False
    begins = recipe.plain_epochs if recipe.mining.every else 0
    return len(history) >= recipe.epochs or len(history) - max(best_epoch(history), begins) >= recipe.patience
