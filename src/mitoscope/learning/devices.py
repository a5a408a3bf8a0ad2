"""Devices for training: the CPU or a GPU, in one process or in several processes started by torchrun."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

_CPU = torch.device("cpu")
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # glibc's malloc.h


@dataclass(frozen=True)
class Device:
    """The hardware that this process computes on, and its rank among the processes that train together.

    Attributes:
        torch: the device of the tensors.
        rank: number of this process; process 0 writes the files and shows the progress.
        world: number of processes.
        bf16: whether the hardware multiplies bfloat16 faster than float32.
    """

    torch: torch.device
    rank: int
    world: int
    bf16: bool

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files."""
        return self.rank == 0

    def autocast(self) -> AbstractContextManager[None]:
        """Return a context that computes in bfloat16 if `bf16` is set, and in float32 otherwise."""
        return torch.autocast(self.torch.type, torch.bfloat16, enabled=self.bf16)


@contextmanager
def join(*, keep_memory: bool = True) -> Iterator[Device]:
    """Yield the device of this process; under torchrun, also join the process group for the duration of the block.

    Args:
        keep_memory: whether freed memory stays with the process, as is right for a command.
    """
    world, local = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_RANK", "0"))
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", local) if cuda else _CPU
    if cuda:
        torch.cuda.set_device(device)
        torch.backends.cudnn.benchmark = False  # it may choose a different algorithm each time
        torch.use_deterministic_algorithms(True, warn_only=True)
    _turn_tf32_off()
    if keep_memory:
        _keep_freed_memory()
    if world > 1:
        dist.init_process_group("nccl" if cuda else "gloo")
    try:
        yield Device(device, int(os.environ.get("RANK", "0")), world, _has_bf16(device))
    finally:
        if world > 1:
            dist.destroy_process_group()


def alone(device: torch.device = _CPU) -> Device:
    """Return the device for computing in this process only, on `device`."""
    _turn_tf32_off()
    return Device(device, rank=0, world=1, bf16=_has_bf16(device))


def _has_bf16(device: torch.device) -> bool:
    """Return whether `device` multiplies bfloat16 faster than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))


def _turn_tf32_off() -> None:
    """Compute float32 operations in full precision on every machine, for the rest of the process.

    TensorFloat-32 has 10 of float32's 23 mantissa bits. By default torch uses it for convolutions on a GPU, and for
    matrix products too if any library has called `torch.set_float32_matmul_precision`; on a CPU that means bfloat16.
    """
    backends = torch.backends
    parts: list[Any] = [backends, backends.cudnn, backends.mkldnn, backends.mkldnn.conv]  # type: ignore[attr-defined]
    for part in parts:
        part.fp32_precision = "ieee"
    torch.set_float32_matmul_precision("highest")  # set the older switches too, or reading them is an error
    backends.cudnn.allow_tf32 = False


def _keep_freed_memory() -> None:
    """Let glibc keep freed memory for the next batch, for the rest of the process.

    By default glibc gets every large tensor from the kernel and returns it, and the kernel clears each page again. That
    takes a sixth to a quarter of a training step on a processor with bf16. Other C libraries stay as they are. This is
    for commands: a server or a worker of a cluster would keep the memory of its largest field for ever.
    """
    with suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)
