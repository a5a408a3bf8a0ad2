"""What every row of the benchmarks gets: the device, the data, and the turns of its variants."""

import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import torch

from benchmarks.data import Data
from mitoscope.errors import InputError
from mitoscope.learning.devices import Device

_Name = TypeVar("_Name")
Work = Callable[[], float]
"""Does one variant once, and returns the measurement."""


@dataclass(frozen=True)
class Bench:
    """A run of the benchmarks.

    Attributes:
        rounds: how often each variant is measured.
        device: where to compute.
        scratch: an existing folder for temporary files.
        show: called with a label, the number of measurements done and the total.
        project: a project whose pipeline has run; None = none is given.
        tiatoolbox: the Python of an environment with TIAToolbox; None = none is given.
        seconds: about how long a measurement of a network takes.
        samples: size of the largest store that DVC tracks.
        patients: number of synthetic fields, one per patient.
        field_size: side of these fields, px.
    """

    rounds: int
    device: Device
    scratch: Path
    show: Callable[[str, int, int], None]
    project: Path | None = None
    tiatoolbox: Path | None = None
    seconds: float = 3.0
    samples: int = 20_000
    patients: int = 4
    field_size: int = 2084

    @cached_property
    def data(self) -> Data:
        """Synthetic fields and their patch store, made at the first use."""
        return Data.make(self.scratch / "data", self.patients, self.field_size, partial(self.show, "painting fields"))

    def folder(self) -> AbstractContextManager[str]:
        """Return a context that yields the path of a new folder, and removes the folder afterwards."""
        return TemporaryDirectory(dir=self.scratch)

    def in_turn(self, label: str, works: Mapping[_Name, Work]) -> dict[_Name, list[float]]:
        """Measure each variant once per round, one after the other."""
        found: dict[_Name, list[float]] = {name: [] for name in works}
        total = self.rounds * len(works)
        for turn in range(self.rounds):
            for place, (name, work) in enumerate(works.items()):
                self.show(label, turn * len(works) + place, total)
                found[name].append(work())
        self.show(label, total, total)
        return found

    def grow(self, label: str, series: Mapping[str, Mapping[float, Work]]) -> dict[str, dict[float, list[float]]]:
        """Measure each point of each series once per round, one after the other."""
        works = {(name, value): work for name, points in series.items() for value, work in points.items()}
        found = self.in_turn(label, works)
        return {name: {value: found[name, value] for value in points} for name, points in series.items()}


def timed(work: Callable[..., object], *arguments: object) -> Work:
    """Return a `Work` that calls a function with these arguments and measures the seconds."""

    def measure() -> float:
        started = time.perf_counter()
        work(*arguments)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter() - started

    return measure


def run(command: Sequence[object], folder: Path, environment: Mapping[str, str] | None = None) -> str:
    """Run a program in a folder and return what it prints.

    Raises:
        InputError: it fails; the message has its last line.
    """
    done = subprocess.run([str(part) for part in command], cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise InputError(f"{folder}: `{' '.join(map(str, command))}` failed ({' '.join(last)})")
    return done.stdout
