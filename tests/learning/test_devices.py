"""Where training runs."""

import os
import platform
import subprocess

import pytest
import torch
import torch.distributed as dist

from mitoscope.learning.devices import alone, join
from tests.programs import PROGRAMS


def test_a_plain_process_is_alone(monkeypatch):
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    with join() as device:
        assert (device.rank, device.world, device.first) == (0, 1, True)
        assert device.torch.type == ("cuda" if torch.cuda.is_available() else "cpu")
        assert not dist.is_initialized()
        torch.zeros(1, device=device.torch)


def test_alone_is_one_process():
    device = alone()
    assert (device.torch, device.rank, device.world) == (torch.device("cpu"), 0, 1)
    with join() as other:
        assert other.torch != device.torch or other.bf16 == device.bf16
    assert alone(torch.device("meta")).torch.type == "meta"


def old_switches():
    torch.backends.cudnn.allow_tf32 = True  # the default
    torch.set_float32_matmul_precision("medium")


def new_switches():
    torch.backends.fp32_precision = torch.backends.cudnn.fp32_precision = "tf32"
    torch.backends.mkldnn.fp32_precision = torch.backends.mkldnn.conv.fp32_precision = "bf16"
    torch.backends.cuda.matmul.fp32_precision = torch.backends.cudnn.conv.fp32_precision = "tf32"


@pytest.mark.parametrize("switch_on", [old_switches, new_switches])
@pytest.mark.parametrize("start", [alone, lambda: join().__enter__()], ids=["alone", "join"])
def test_float32_is_float32_on_every_machine(start, switch_on, monkeypatch):
    """Torch rounds the numbers to TensorFloat-32 or bfloat16 where somebody has asked for speed."""
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    backends = torch.backends
    parts = (backends.cuda.matmul, backends.cudnn.conv, backends.mkldnn.matmul, backends.mkldnn.conv)
    switch_on()
    assert "ieee" not in {part.fp32_precision for part in parts[:2]}
    start()
    assert {part.fp32_precision for part in parts} == {"ieee"}
    assert torch.get_float32_matmul_precision() == "highest"
    assert not backends.cuda.matmul.allow_tf32 and not backends.cudnn.allow_tf32


MEMORY = """
import psutil
import torch
from mitoscope.learning.devices import join

def left():  # MB, of 400 that were used and freed
    before = psutil.Process().memory_info().rss
    torch.ones(100_000_000)
    return (psutil.Process().memory_info().rss - before) / 1e6

with join(keep_memory=False):
    assert left() < 100
with join():
    assert left() > 300
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_only_a_command_keeps_freed_memory(programs):
    subprocess.run([programs / "python", "-c", MEMORY], check=True)


@pytest.mark.slow
def test_two_processes_train_one_network(tmp_path, programs):
    launch = [programs / "python", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--no-python"]
    command = [*launch, programs / "python", PROGRAMS / "parallel_training.py", tmp_path]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr

    first, second = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    assert (first["rank"], second["rank"]) == (0, 1)
    different = [name for name, tensor in first["state"].items() if not torch.equal(tensor, second["state"][name])]
    assert different == []
    # All figures are those of both processes' patches, so both stop at the same epoch; one mitosis is among the 24
    # patches of an epoch, so one process alone could not tell how well it is found.
    assert len(first["history"]) == 2 and first["history"] == second["history"]
    assert torch.equal(first["probabilities"], second["probabilities"])
    assert torch.equal(first["hardness"], second["hardness"]) and first["hardness"].any()
    alone = torch.load(tmp_path / "alone.pt", weights_only=True)
    torch.testing.assert_close(first["probabilities"], alone, atol=1e-5, rtol=0)
    assert alone.std() > 0
    saved = torch.load(tmp_path / "last.pt", weights_only=True)  # written once, by the first
    assert all(torch.equal(tensor, first["state"][name]) for name, tensor in saved["state"].items())
