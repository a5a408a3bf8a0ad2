"""Where training runs: the processor or a GPU, in one process or in several that torchrun started."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Device:
    """This process among those that train together, and the hardware that it computes on.

    Attributes:
        torch: where the tensors live.
        rank: number of this process; 0 writes the files and talks to the user.
        world: number of processes.
        bf16: whether the hardware multiplies bfloat16 faster than float32.
    """

    torch: torch.device
    rank: int
    world: int
    bf16: bool

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def autocast(self) -> AbstractContextManager[None]:
        """Bfloat16 where the hardware has it, float32 elsewhere."""
        return torch.autocast(self.torch.type, torch.bfloat16, enabled=self.bf16)


@contextmanager
def join() -> Iterator[Device]:
    """Find this process's device; under torchrun also join the others for the length of the block."""
    world, local = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_RANK", "0"))
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", local) if cuda else _CPU
    if cuda:
        torch.cuda.set_device(device)
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        torch.backends.cudnn.benchmark = False  # may choose another algorithm each time
        torch.use_deterministic_algorithms(True, warn_only=True)
    else:
        capabilities = torch.cpu.get_capabilities()
        bf16 = bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))
    _turn_tf32_off()
    if world > 1:
        dist.init_process_group("nccl" if cuda else "gloo")
    try:
        yield Device(device, int(os.environ.get("RANK", "0")), world, bf16)
    finally:
        if world > 1:
            dist.destroy_process_group()


def alone(device: torch.device = _CPU) -> Device:
    """This process alone, on `device`, in float32."""
    _turn_tf32_off()
    return Device(device, rank=0, world=1, bf16=False)


def _turn_tf32_off() -> None:
    """Let float32 mean float32 on every machine, for the rest of the process.

    TensorFloat-32 has 10 of float32's 23 bits of mantissa. By default torch uses it in a GPU's convolutions, and where
    any library has called `torch.set_float32_matmul_precision` in matrix products too; on a processor that is bfloat16.
    """
    backends = torch.backends
    parts: list[Any] = [backends, backends.cudnn, backends.mkldnn, backends.mkldnn.conv]  # type: ignore[attr-defined]
    for part in parts:
        part.fp32_precision = "ieee"
    torch.set_float32_matmul_precision("highest")  # the older switches too, or asking for their state is an error
    backends.cudnn.allow_tf32 = False
