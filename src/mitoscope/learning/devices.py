"""Where training runs: the processor or a GPU, in one process or in several that torchrun started."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class Place:
    """This process among those that train together.

    Attributes:
        device: where the tensors live.
        rank: number of this process; 0 writes the files and talks to the user.
        world: number of processes.
        bf16: whether the hardware multiplies bfloat16 faster than float32.
    """

    device: torch.device
    rank: int
    world: int
    bf16: bool

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0


@contextmanager
def join() -> Iterator[Place]:
    """Find this process's place; under torchrun also join the others for the length of the block."""
    world, local = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_RANK", "0"))
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", local) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        capabilities = torch.cpu.get_capabilities()
        bf16 = bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))
    if world > 1:
        dist.init_process_group("nccl" if cuda else "gloo")
    try:
        yield Place(device, int(os.environ.get("RANK", "0")), world, bf16)
    finally:
        if world > 1:
            dist.destroy_process_group()
