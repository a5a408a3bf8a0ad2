"""What was measured: typed tables, kept in results.json with the machine that they are from."""

import os
import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median

import torch
from pydantic import TypeAdapter, ValidationError

from mitoscope.errors import InputError, first_problem
from mitoscope.files import write_text
from mitoscope.learning.devices import Device


@dataclass(frozen=True)
class Row:
    """Several ways of one thing, measured in turn.

    Attributes:
        title: what was measured.
        unit: of the measurements.
        variants: the measurements of each way, one per round.
        baseline: the variant to which the others are compared.
        note: how it was measured.
    """

    title: str
    unit: str
    variants: dict[str, list[float]]
    baseline: str
    note: str = ""

    def ratio(self, variant: str) -> float:
        """Return a variant's median as a multiple of the baseline's."""
        return median(self.variants[variant]) / median(self.variants[self.baseline])


@dataclass(frozen=True)
class Growth:
    """How something grows.

    Attributes:
        title: what was measured.
        unit: of the measurements.
        over: what was varied.
        series: for each way and each value of `over`, the measurements, one per round.
        note: how it was measured.
    """

    title: str
    unit: str
    over: str
    series: dict[str, dict[float, list[float]]]
    note: str = ""


Table = Row | Growth


@dataclass(frozen=True)
class Measured:
    """The tables of one module in rows/.

    Attributes:
        title: their heading.
        machine: hardware and versions that they were measured with.
        tables: in the order of the page.
    """

    title: str
    machine: dict[str, str]
    tables: list[Table]


_FORMAT = TypeAdapter(dict[str, Measured])


def read(path: Path) -> dict[str, Measured]:
    """Read results.json: what was measured, by module. Empty if there is no such file.

    Raises:
        InputError: the file is damaged.
    """
    if not path.exists():
        return {}
    try:
        return _FORMAT.validate_json(path.read_bytes())
    except ValidationError as error:
        raise InputError(f"{path}: {first_problem(error)}; remove it and measure again") from error


def write(path: Path, results: dict[str, Measured]) -> None:
    """Write results.json atomically."""
    write_text(path, _FORMAT.dump_json(dict(sorted(results.items())), indent=2).decode() + "\n")


def describe_machine(device: Device) -> dict[str, str]:
    """Return the hardware and the versions that the speed depends on."""
    capabilities = torch.cpu.get_capabilities()
    units = {"avx512": "avx512_f", "bf16": "avx512_bf16", "amx": "amx_bf16"}
    cuda = device.torch.type == "cuda"
    return {
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "threads": str(torch.get_num_threads()),
        "of avx512, bf16, amx": ", ".join(name for name, flag in units.items() if capabilities.get(flag)) or "none",
        "GPU": f"{torch.cuda.get_device_name(device.torch)}, CUDA {torch.version.cuda}" if cuda else "none",
        "precision": "bf16" if device.bf16 else "fp32",
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "torchvision", "numpy")},
        "opencv": version("opencv-python-headless"),
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
