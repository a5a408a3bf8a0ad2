"""How fast patches are trained on and scored here, and what the loop's settings bring over a plain loop.

Both are timed in turn in this one process, so that their ratio means something on a busy machine too.
"""

import time
from collections.abc import Callable

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.nn import functional as F

from mitoscope.histology.windows import window_size
from mitoscope.learning.augment import crop, flip, jitter_stain
from mitoscope.learning.devices import Device, join
from mitoscope.learning.networks import build
from mitoscope.params import Train, read_params

ROUNDS, SECONDS = 3, 1.5


def main() -> None:
    params = read_params()
    patch_size = params.extract.patch_size
    table = Table("network", "input", "batch", "plain train/s", "train/s", "ratio", "score/s")
    with join() as device:
        for network, settings in params.train.items():
            Console().print(f"measuring {network} for about {round(3.5 * ROUNDS * SECONDS)} seconds")
            plain, ours, score = measure(network, settings, patch_size, device)
            row = (
                settings.model.input_size,
                settings.optimisation.batch_size,
                f"{plain:.0f}",
                f"{ours:.0f}",
                f"{ours / plain:.2f}",
                f"{score:.0f}",
            )
            table.add_row(network, *map(str, row))
    Console().print(
        f"{device.torch.type}, {torch.get_num_threads()} threads, {'bf16' if device.bf16 else 'fp32'}; patches of "
        f"{patch_size} px; plain = float32, unfused AdamW, default memory format, the same augmentation"
    )
    Console().print(table)


def measure(network: str, settings: Train, patch_size: int, device: Device) -> tuple[float, float, float]:
    """Patches a second: a plain training loop, the project's, and scoring. The best of ROUNDS each."""
    description = {
        "backbone": settings.model.backbone or network,
        "head": settings.model.head,
        "patch_size": patch_size,
        "input_size": settings.model.input_size,
    }
    batch_size, jitter = settings.optimisation.batch_size, settings.sampling.stain_jitter
    rng = np.random.default_rng(0)
    side = window_size(patch_size)
    windows = torch.from_numpy(rng.integers(0, 256, (batch_size, 3, side, side), dtype=np.uint8))
    angles = rng.choice(settings.sampling.rotations.positive, batch_size)
    labels = torch.from_numpy(rng.integers(0, 2, batch_size)).to(device.torch)

    def step_of(
        model: nn.Module, optimizer: torch.optim.Optimizer, precision: Callable[[], object]
    ) -> Callable[[], None]:
        def step() -> None:
            patches = flip(crop(windows.to(device.torch), angles, patch_size), rng)
            patches = jitter_stain(patches, jitter, rng) if jitter else patches
            with precision():  # type: ignore[attr-defined]
                loss = F.cross_entropy(model(patches).float(), labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

        return step

    plain = build(description).to(device.torch).to(memory_format=torch.contiguous_format)
    ours = build(description).to(device.torch)
    steps = [
        step_of(plain, torch.optim.AdamW(plain.parameters()), lambda: torch.autocast(device.torch.type, enabled=False)),
        step_of(ours, torch.optim.AdamW(ours.parameters(), fused=True), device.autocast),
    ]
    scored = build(description).to(device.torch).eval()

    def score() -> None:
        with torch.inference_mode():  # in float32, as the scores are everywhere
            scored(crop(windows.to(device.torch), 0, patch_size)).sum().item()

    best = [0.0, 0.0, 0.0]
    for _ in range(ROUNDS):
        for number, work in enumerate((*steps, score)):
            best[number] = max(best[number], batch_size * rate(work))
    return best[0], best[1], best[2]


def rate(work: Callable[[], None]) -> float:
    """How often a second `work` runs."""
    work()
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < SECONDS:
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        count += 1
    return count / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
