"""The training loop, written to be read from top to bottom.

An epoch draws its samples, crops and augments them, takes a step per batch, scores the validation patches, and writes
the `last` checkpoint and, if it is the best so far, the `best` one. With mining, the first epochs draw all negatives
evenly; later epochs draw those that the network mistakes for mitoses, with a second one-cycle schedule. Every epoch
seeds its random generators from the seed and its number, so a resumed run equals an uninterrupted one and no generator
state has to be saved. On the CPU they are equal bit for bit; a GPU has a few nondeterministic operations.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import OneCycleLR

from mitoscope.learning import checkpoints
from mitoscope.learning.batches import Floats, Integers, PatchSet, epoch_batches, prefetch
from mitoscope.learning.devices import Device
from mitoscope.learning.networks import PatchNetwork
from mitoscope.learning.schedule import Epoch, best_epoch, finished, plain_epochs
from mitoscope.learning.scoring import OnBatch, mine, score_patches
from mitoscope.params import Train

Measure = Callable[[Integers, Floats], dict[str, float]]
"""Returns metrics of (M,) labels and (M,) probabilities: at least those below, `best_f1` and `threshold`."""
_OF_TRAINING = ("accuracy", "precision", "recall", "f1")  # at 0.5


@dataclass(frozen=True)
class Fitted:
    """The result of a training.

    Attributes:
        history: one entry per epoch.
        best_epoch: number of the best epoch, from 1.
        hardness: (M,) false-positive score of each training patch that was mined, else 0; None without mining.
    """

    history: list[Epoch]
    best_epoch: int
    hardness: Floats | None


def fit(
    model: PatchNetwork,
    training: PatchSet,
    validation: PatchSet,
    settings: Train,
    *,
    device: Device,
    measure: Measure,
    work: Path | None,
    fingerprint: str,
    on_epoch: Callable[[list[Epoch]], None] | None = None,
    on_batch: Callable[[str, int, int], None] | None = None,
) -> Fitted:
    """Train a network in place; resume from `work/last.pt` if it has the same fingerprint.

    Args:
        model: the network with its start weights; afterwards it has the weights of the last epoch. Those of the best
            epoch are in `work/best.pt`.
        training: patches to train on, with both classes.
        validation: patches for choosing the best epoch, with at least one mitosis.
        settings: how to train; `settings.model` must already be applied to `model`.
        device: the device of this process, and its rank.
        measure: computes the metrics of patches; its `best_f1` chooses the best epoch.
        work: folder of the checkpoints; None = write none, as in the trials of a search.
        fingerprint: identifies everything that the result depends on.
        on_epoch: called in the first process with all epochs so far, after their checkpoint is on disk; also
            once after resuming.
        on_batch: called in the first process with a label, the number of samples done and the total.

    Raises:
        ValueError: a class is missing from `training`, or mitoses are missing from `validation`.
        FloatingPointError: the loss or the scores are no longer finite, for example if the learning rate is too high.
    """
    if len(np.unique(training.labels)) < 2 or not validation.labels.any():
        raise ValueError("training needs patches of both classes, and validation needs mitoses")
    run = _Run(model, training, validation, settings, device, measure, on_batch)
    if work and run.resume(work, fingerprint) and device.first and on_epoch:
        on_epoch(run.history)
    while not finished(run.history, settings):
        started = time.perf_counter()
        mined = run.mine()
        epoch = run.train_one_epoch() | run.validate() | mined
        run.history.append(epoch | {"throughput/epoch_seconds": time.perf_counter() - started})
        if device.first and work:
            run.save(work, fingerprint)
        if device.first and on_epoch:
            on_epoch(run.history)
    return Fitted(run.history, best_epoch(run.history), run.hardness)


@dataclass
class _Run:
    """A training in progress: the steps of an epoch, and resuming. Attributes as in `fit` and `Fitted`."""

    model: PatchNetwork
    training: PatchSet
    validation: PatchSet
    settings: Train
    device: Device
    measure: Measure
    on_batch: Callable[[str, int, int], None] | None
    history: list[Epoch] = field(default_factory=list)
    hardness: Floats | None = None

    def __post_init__(self) -> None:
        """Create the optimizer, the schedule and the parallel model."""
        model, settings, device = self.model.to(self.device.torch), self.settings, self.device
        # Every process takes an equal share of every batch, so that no process waits forever for the others.
        samples, optimisation = settings.sampling.samples_per_epoch, settings.optimisation
        self.batch_size = max(min(optimisation.batch_size, samples) // device.world, 1) * device.world
        self.steps = max(samples // self.batch_size, 1)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(
            trained, lr=optimisation.lr, weight_decay=optimisation.weight_decay, fused=True
        )
        self.schedule = self.one_cycle(epoch=1)
        self.parallel: nn.Module = DistributedDataParallel(model) if device.world > 1 else model

    @property
    def number(self) -> int:
        """Number of the current epoch, from 1."""
        return len(self.history) + 1

    def one_cycle(self, epoch: int) -> OneCycleLR:
        """Create the schedule of an epoch, plain or mined, at its first step."""
        epochs, peak = plain_epochs(self.settings), self.settings.optimisation.lr
        if epoch > epochs:
            epochs = self.settings.optimisation.epochs - epochs
            peak *= self.settings.sampling.mining.lr_factor
        return OneCycleLR(self.optimizer, peak, total_steps=epochs * self.steps)

    def mine(self) -> Epoch:
        """Mine hard negatives if this epoch does so, and return summary figures."""
        mined_epochs = self.number - plain_epochs(self.settings) - 1
        if mined_epochs == 0:
            self.schedule = self.one_cycle(self.number)
        if mined_epochs < 0 or mined_epochs % self.settings.sampling.mining.every:
            return {}
        sampling, known, show = self.settings.sampling, self.hardness, self.show("mine")
        self.hardness, figures = mine(
            self.model, self.training, self.device, sampling=sampling, epoch=self.number, known=known, on_batch=show
        )
        return figures

    def train_one_epoch(self) -> Epoch:
        """Take a step per batch.

        Returns:
            Loss and metrics of the patches during training, the highest learning rate of the epoch's steps, and the
            throughput of all processes together.
        """
        self.parallel.train()
        started, show = time.perf_counter(), self.show("train")
        losses, scores, truths, rates = [], [], [], []
        batches = epoch_batches(
            self.training,
            self.settings.sampling,
            epoch=self.number,
            steps=self.steps,
            batch_size=self.batch_size,
            patch_size=self.model.patch_size,
            device=self.device,
            hardness=self.hardness,
        )
        for step, (patches, labels) in enumerate(prefetch(batches, self.device), start=1):
            with self.device.autocast():
                logits: Tensor = self.parallel(patches)
                batch_loss = F.cross_entropy(logits.float(), labels)
            self.optimizer.zero_grad(set_to_none=True)
            batch_loss.backward()  # type: ignore[no-untyped-call]
            rates.append(float(self.schedule.get_last_lr()[0]))  # before the schedule advances
            self.optimizer.step()
            self.schedule.step()
            losses.append(batch_loss.detach()[None])
            scores.append(logits.detach().float().softmax(dim=1)[:, 1])
            truths.append(labels)
            if show:
                show(step * self.batch_size, self.steps * self.batch_size)
        if self.device.world > 1:
            for buffer in self.model.buffers():  # running means and variances, which differ between the processes
                dist.broadcast(buffer, src=0)
        loss, seconds = float(self.gather(losses).mean()), time.perf_counter() - started
        self.expect_finite("loss", loss)
        metrics = self.measure(self.gather(truths).numpy(), self.gather(scores).double().numpy())
        return {
            "train/loss": loss,
            **{f"train/{name}": metrics[name] for name in _OF_TRAINING},
            "train/lr": max(rates),
            "throughput/train_patches_per_second": self.steps * self.batch_size / seconds,
        }

    def gather(self, parts: list[Tensor]) -> Tensor:
        """Concatenate the (n,) tensors of all processes into one tensor on the CPU, the same in every process."""
        own = torch.cat(parts)
        if self.device.world == 1:
            return own.cpu()
        shares = [torch.empty_like(own) for _ in range(self.device.world)]
        dist.all_gather(shares, own)
        return torch.cat(shares).cpu()

    def validate(self) -> Epoch:
        """Return the loss and metrics of the validation patches."""
        labels = self.validation.labels
        probabilities = score_patches(self.model, self.validation.windows, self.device, on_batch=self.show("validate"))
        truth = np.clip(np.where(labels == 1, probabilities, 1 - probabilities), 1e-7, 1)
        loss = float(-np.log(truth).mean())
        self.expect_finite("validation loss", loss)
        metrics = self.measure(labels, probabilities)
        return {"validation/loss": loss, **{f"validation/{name}": value for name, value in metrics.items()}}

    def expect_finite(self, what: str, value: float) -> None:
        """Raise FloatingPointError if the training has diverged."""
        if not np.isfinite(value):
            raise FloatingPointError(f"training diverged in epoch {self.number} (its {what} is {value}); lower lr")

    def show(self, what: str) -> OnBatch | None:
        """Return the callback for the progress of a step, or None if this process shows none."""
        if self.on_batch is None or not self.device.first:
            return None
        return partial(self.on_batch, f"epoch {self.number}/{self.settings.optimisation.epochs} {what}")

    def save(self, work: Path, fingerprint: str) -> None:
        """Write `last.pt`, and `best.pt` if this epoch is the best so far."""
        number = len(self.history)
        if best_epoch(self.history) == number:
            threshold = self.history[-1]["validation/threshold"]
            checkpoints.save_network(work / "best.pt", self.model, epoch=number, threshold=threshold)
        content = {
            "fingerprint": fingerprint,
            "state": self.model.inner.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "hardness": None if self.hardness is None else torch.from_numpy(self.hardness),
            "history": self.history,
        }
        checkpoints.save(work / "last.pt", content)

    def resume(self, work: Path, fingerprint: str) -> bool:
        """Resume from `last.pt`; return False if there is none, or it belongs to another training."""
        last = work / "last.pt"
        if not last.exists() or (saved := checkpoints.load(last)).get("fingerprint") != fingerprint:
            return False
        self.history = saved["history"]
        self.hardness = None if saved["hardness"] is None else saved["hardness"].numpy()
        self.model.inner.load_state_dict(saved["state"])
        self.schedule = self.one_cycle(len(self.history))
        self.optimizer.load_state_dict(saved["optimizer"])
        self.schedule.load_state_dict(saved["schedule"])
        return True
