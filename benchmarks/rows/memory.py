"""Memory of an epoch, over the size of the store."""

import re
import sys
import threading
import time
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bench import Bench, run
from benchmarks.data import EXTRACT
from benchmarks.networks import Case
from benchmarks.results import Growth
from mitoscope.histology.windows import window_size
from mitoscope.learning.batches import PatchSet, Windows
from mitoscope.learning.devices import alone
from mitoscope.progress import console

CASE = Case("squeezenet1_1", 64, batches=8)
SIZES_GB = (0.25, 1.0, 5.0, 20.0)
_POLL_SECONDS = 0.01


def measure(bench: Bench, case: Case = CASE, sizes_gb: tuple[float, ...] = SIZES_GB) -> list[Growth]:
    """Measure the peak of a process's own memory."""
    if not Path("/proc/self/status").exists():
        console.print("memory: not measured, because this system has no /proc")
        return []
    side = window_size(EXTRACT.patch_size)
    with bench.folder() as folder:
        works = {}
        for size in sizes_gb:
            store = Path(folder) / f"{size}.npy"
            # Its zeros take no room on the disk, and as much memory as other pixels when they are read.
            shape = (round(size * 1e9 / side**2 / 3), side, side, 3)
            np.lib.format.open_memmap(store, mode="w+", dtype=np.uint8, shape=shape)
            works[size] = partial(_peak, store, case)
        series = replace(bench, rounds=1).grow("memory", {f"an epoch of {case.samples} samples": works})
    note = (
        "Anonymous memory (RssAnon) of a process on the CPU, without the pages of the store, which the system may drop."
    )
    return [Growth(case.title, "MB", "store, GB", series, note)]


def _peak(store: Path, case: Case) -> float:
    """Train an epoch in a process of its own; return its highest RssAnon, MB."""
    code = f"from benchmarks.rows import memory; memory.train({str(store)!r}, **{asdict(case)!r})"
    return float(run([sys.executable, "-c", code], Path(__file__).parents[2]).splitlines()[-1])


def train(store: str, **case: Any) -> None:
    """Train an epoch on the patches in `store`, and print the highest RssAnon of this process, MB.

    Args:
        store: the array, (N, S, S, 3) uint8.
        case: attributes of `Case`.
    """
    threading.Thread(target=_watch, args=(peaks := [0.0],), daemon=True).start()
    windows = Windows.of(np.load(store, mmap_mode="r"))
    Case(**case).train(PatchSet(windows, np.arange(len(windows)) % 2), alone())
    _note(peaks)
    print(max(peaks))


def _watch(peaks: list[float]) -> None:
    while True:
        _note(peaks)
        time.sleep(_POLL_SECONDS)


def _note(peaks: list[float]) -> None:
    """Append this process's RssAnon, MB."""
    found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    peaks.append(int(found[1]) * 1024 / 1e6 if found else 0.0)
