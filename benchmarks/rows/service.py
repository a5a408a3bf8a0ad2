"""The HTTP service under load."""

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median

import psutil

from benchmarks.bench import Bench
from benchmarks.networks import Case
from benchmarks.results import Growth
from benchmarks.rows.detect import make_detector
from mitoscope.datasets.readers import encode_image, read_image
from mitoscope.errors import InputError

CASE = Case("alexnet", 96)
SIDE = 1000  # px of a field; 0.06 mm2
_GARBAGE_EVERY = 10


def measure(bench: Bench, case: Case = CASE, requests: int = 1000, at_once: int = 20) -> list[Growth]:
    """Measure the memory of the service while it answers many requests, every tenth of them garbage."""
    field = encode_image(read_image(bench.data.fields[0].image)[:SIDE, :SIDE], ".png")
    garbage = (field[: len(field) // 2], b"no image", bytes(20_000_000), field.replace(b"IDAT", b"IXAT"), b"")
    bodies = [
        garbage[number // _GARBAGE_EVERY % len(garbage)] if number % _GARBAGE_EVERY == 0 else field
        for number in range(requests)
    ]
    statuses: Counter[str] = Counter()
    seconds: list[float] = []
    memory: dict[float, list[float]] = {}

    def ask(url: str, body: bytes) -> tuple[bool, str, float]:
        started = time.perf_counter()
        return body is field, _ask(url, body), time.perf_counter() - started

    with bench.folder() as folder, _serving(bench, case, Path(folder)) as (url, process):
        _ask(url, field)  # the first field takes more
        started = time.perf_counter()
        with ThreadPoolExecutor(at_once) as askers:
            for done, (good, status, took) in enumerate(askers.map(partial(ask, url), bodies), start=1):
                bench.show("service", done, requests)
                if status not in (("200",) if good else ("413", "422")):
                    raise InputError(f"a {'field' if good else 'piece of garbage'} got {status}")
                statuses[f"{'fields' if good else 'garbage'}: {status}"] += 1
                if good:
                    seconds.append(took)
                if done % max(1, requests // 10) == 0:
                    memory[float(done)] = [psutil.Process(process.pid).memory_info().rss / 1e6]
        total = time.perf_counter() - started
    found = ", ".join(f"{count} {what}" for what, count in sorted(statuses.items()))
    seconds.sort()
    note = (
        f"{case.title}, one view, fields of {SIDE} x {SIDE} px as PNG, {at_once} at a time over the loopback address. "
        f"Statuses: {found}. {len(seconds) / total:.1f} fields a second; a field waits and is answered within "
        f"{median(seconds):.1f} s (median), {seconds[int(0.95 * len(seconds))]:.1f} s (95 %)."
    )
    return [Growth("Memory of the service", "MB", "requests answered", {"resident": memory}, note)]


@contextmanager
def _serving(bench: Bench, case: Case, folder: Path) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """Run `mitoscope serve`; yield its address and its process."""
    make_detector(bench, case).save(folder / "detector.pt")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    words = ["-m", "mitoscope", "serve", "--model", "detector.pt", "--port", str(port), "--most-mb", "10"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, *words], cwd=folder, stdout=log, stderr=log)
    try:
        for _ in range(1000):
            try:
                urllib.request.urlopen(f"{url}/ready", timeout=5).close()
                break
            except OSError as error:
                if process.poll() is not None:
                    raise InputError(f"the service ended: {(folder / 'log').read_text()}") from error
                time.sleep(0.1)
        else:
            raise InputError("the service does not answer")
        yield url, process
    finally:
        process.terminate()
        process.wait(60)


def _ask(url: str, body: bytes) -> str:
    """Send a field; return the status, or what happened in its place."""
    try:
        with urllib.request.urlopen(f"{url}/detect", body, timeout=300) as answer:
            answer.read()
            return str(answer.status)
    except urllib.error.HTTPError as error:
        error.read()
        return str(error.code)
    except OSError as error:  # no answer
        return type(getattr(error, "reason", error)).__name__
