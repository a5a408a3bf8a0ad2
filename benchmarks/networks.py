"""The networks that are measured: their training with the project's loop, and what the processor could do at best."""

import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from benchmarks.data import EXTRACT, repeat
from mitoscope.evaluation.metrics import patch_scores
from mitoscope.learning.batches import PatchSet
from mitoscope.learning.devices import Device
from mitoscope.learning.loop import fit
from mitoscope.learning.networks import PatchNetwork, build
from mitoscope.learning.scoring import score_patches
from mitoscope.params import Mining, Model, Optimisation, Sampling, Train

PRODUCTS = "mitoscope, convolutions and products alone"
"""The variant in which all else that mitoscope does would take no time."""
_FEWEST = 32  # patches that are scored
_SECONDS = 1.0  # for which matrix products are computed
_QUEUED = 50  # matrix products that a GPU gets at once


@dataclass(frozen=True)
class Case:
    """A network as it is trained.

    Attributes:
        network: its name.
        input_size: side to which patches are resized, px.
        batch_size: samples per batch.
        head: classifier or pooled.
        batches: how many an epoch has.
        mined: whether a second epoch follows, which mines hard negatives first.
    """

    network: str
    input_size: int
    batch_size: int = 64
    head: str = "classifier"
    batches: int = 2
    mined: bool = False

    @property
    def title(self) -> str:
        """The network and its input."""
        return f"{self.network}, {self.input_size} px"

    @property
    def samples(self) -> int:
        """How many samples an epoch has."""
        return self.batches * self.batch_size

    @property
    def settings(self) -> Train:
        """The training block of params.yaml."""
        mining = Mining(start_epoch=1, every=1) if self.mined else Mining()
        return Train(
            model=Model.model_validate({"input_size": self.input_size, "head": self.head}),
            sampling=Sampling(samples_per_epoch=self.samples, mining=mining),
            optimisation=Optimisation(epochs=2 if self.mined else 1, batch_size=self.batch_size, lr=1e-4),
        )

    @cached_property
    def model(self) -> PatchNetwork:
        """The network with random weights, the same each time."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return build(
                {
                    "backbone": self.network,
                    "head": self.head,
                    "patch_size": EXTRACT.patch_size,
                    "input_size": self.input_size,
                }
            )

    def train(self, samples: PatchSet, device: Device) -> list[dict[str, float]]:
        """Train the network with the project's loop; return the figures of each epoch."""
        one_of_each = np.array([np.argmax(samples.labels == 1), np.argmax(samples.labels == 0)])
        fitted = fit(
            self.model,
            samples,
            samples.take(one_of_each),
            self.settings,
            device=device,
            measure=patch_scores,
            work=None,
            fingerprint="",
        )
        return fitted.history

    def train_rate(self, samples: PatchSet, device: Device) -> float:
        """Train the network and return the patches per second, without the validation."""
        return self.train(samples, device)[0]["throughput/train_patches_per_second"]

    def lasting(self, seconds: float, samples: PatchSet, device: Device) -> Self:
        """Return this case with an epoch of about so many seconds.

        The first batches only warm up, which takes a GPU seconds. Then the epoch grows until one is long enough.
        """
        replace(self, batches=2).train_rate(samples, device)
        batches, needed = 0, 2
        while needed > 2 * batches:
            batches = needed
            rate = replace(self, batches=batches).train_rate(samples, device)
            needed = max(2, round(seconds * rate / self.batch_size))
        return replace(self, batches=needed)


def scored_in(seconds: float, model: PatchNetwork, samples: PatchSet, device: Device) -> int:
    """Return how many patches are scored in about so many seconds, and warm up."""
    count, needed = 0, _FEWEST
    score_patches(model, repeat(samples, needed).windows, device)
    while needed > 2 * count:
        count = needed
        windows = repeat(samples, count).windows
        started = time.perf_counter()
        score_patches(model, windows, device)
        needed = max(_FEWEST, round(seconds * count / (time.perf_counter() - started)))
    return needed


def training_step(model: PatchNetwork, device: Device) -> Callable[[Tensor, Tensor], None]:
    """Return the loop's step, for a batch of patches and its labels."""
    model.to(device.torch).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step(patches: Tensor, labels: Tensor) -> None:
        with device.autocast():
            loss = F.cross_entropy(model(patches).float(), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def count_flops(model: PatchNetwork) -> float:
    """Return the floating-point operations of one training step, per patch."""
    model, count = deepcopy(model).cpu().train(), 2
    patches = torch.zeros(count, 3, model.patch_size, model.patch_size, dtype=torch.uint8)
    with FlopCounterMode(display=False) as counter:
        F.cross_entropy(model(patches), torch.zeros(count, dtype=torch.int64)).backward()  # type: ignore[no-untyped-call]
    return float(counter.get_total_flops() / count)


def seconds_in_products(work: Callable[[], object]) -> float:
    """Return the seconds that a call spends in what `count_flops` counts: convolutions and matrix products.

    On a processor only, because a GPU computes while the caller goes on.
    """
    products = _Products()
    with products:
        work()
    return products.seconds


class _Products(TorchDispatchMode):
    """Measures the time of the operations in torch's registry of FLOPs."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seconds = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do an operation; one that consists of others is done part by part, as `FlopCounterMode` does."""
        if func.overloadpacket not in flop_registry:
            with self:
                result = func.decompose(*args, **(kwargs or {}))
            return func(*args, **(kwargs or {})) if result is NotImplemented else result
        started = time.perf_counter()
        result = func(*args, **(kwargs or {}))
        self.seconds += time.perf_counter() - started
        return result


def product_rate(device: Device, side: int) -> float:
    """Return the floating-point operations per second of a product of square matrices, in the training's precision."""
    matrix = torch.randn(side, side, device=device.torch).to(torch.bfloat16 if device.bf16 else torch.float32)
    matrix @ matrix  # the first one prepares the kernel
    done, started = 0, time.perf_counter()
    while time.perf_counter() - started < _SECONDS:
        if device.torch.type == "cuda":
            for _ in range(_QUEUED):
                matrix @ matrix
            torch.cuda.synchronize()
            done += _QUEUED
        else:
            matrix @ matrix
            done += 1
    return float(done * 2 * side**3 / (time.perf_counter() - started))
