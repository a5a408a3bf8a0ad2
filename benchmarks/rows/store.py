"""The patch store against one PNG per sample, under DVC."""

import os
import sys
from itertools import count, product
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks import capstone
from benchmarks.bench import Bench, run, timed
from benchmarks.data import EXTRACT
from benchmarks.results import Growth, Row, Table
from mitoscope.datasets.readers import read_image
from mitoscope.histology.windows import FieldWindows, rescale, resize, window_size

STORE, PNGS = "patch store", "a PNG per sample"
_WAYS = (STORE, PNGS)
_STEPS = ("add", "status", "push")
SHARES = (0.25, 0.5, 1.0)
_CAPSTONE_SAMPLES = 222_828


def measure(bench: Bench, shares: tuple[float, ...] = SHARES) -> list[Table]:
    """Measure bytes, and seconds of DVC in scratch projects of growing size."""
    seconds: dict[tuple[str, str, float], list[float]] = {}
    with bench.folder() as folder:
        bench.show("store, writing samples", 0, bench.samples)
        samples = _write(bench, Path(folder))
        disk = {way: [_disk_bytes(Path(folder) / way) / 1e6] for way in _WAYS}
        for turn in range(bench.rounds):
            for share, way in product(shares if turn == 0 else (1.0,), _WAYS):  # the parts take long and show a slope
                bench.show(f"store, {share:.0%} of the samples", turn, bench.rounds)
                for step, value in _track(bench, Path(folder) / way, share).items():
                    seconds.setdefault((step, way, share), []).append(value)
    size = f"{samples:,} samples"
    blocks = "Allocated blocks. A window serves all rotations of its patch, here the two or three of the capstone."
    rows: list[Table] = [Row(f"Disk, {size}", "MB", disk, STORE, blocks)]
    for step in _STEPS:
        rows.append(Row(f"`dvc {step}`, {size}", "s", {way: seconds[step, way, 1.0] for way in _WAYS}, STORE))
    together = {
        way: {
            share * samples: [sum(parts) for parts in zip(*(seconds[step, way, share] for step in _STEPS), strict=True)]
            for share in shares
        }
        for way in _WAYS
    }
    note = "Each in a new project with a folder as remote."
    if samples < _CAPSTONE_SAMPLES:
        ways = " and ".join(f"{way} takes {_extrapolate(points):.0f} s" for way, points in together.items())
        note += f" Continued in a straight line, {ways} for the capstone's {_CAPSTONE_SAMPLES:,} samples."
    return [*rows, Growth("`dvc add`, `status` and `push`", "s", "samples", together, note)]


def _write(bench: Bench, folder: Path) -> int:
    """Write the same samples in both ways; return their number. A field gives more than its own by shifted points."""
    store, pngs = folder / STORE, folder / PNGS
    store.mkdir()
    scale = bench.data.description.microns_per_pixel / EXTRACT.microns_per_pixel
    done = 0
    for copy in count():
        for field, rows in bench.data.by_field():
            some = rows.head(max((bench.samples - done) // 2, 1))  # most have two rotations
            image = read_image(field.image)
            # Shifted out of the field, a point comes in again on the other side.
            points = (some[["row", "col"]].to_numpy() + round(copy / scale)) % image.shape[:2]
            resized = resize(image, scale)
            windows = FieldWindows(
                resized, rescale(points, image.shape, resized.shape), window_size(EXTRACT.patch_size)
            )
            np.save(store / f"{field.name}_{copy}.npy", windows.cut())
            done += capstone.cut(field.image, points, some.label, pngs, f"{field.name}_{copy}")
            bench.show("store, writing samples", done, bench.samples)
            if done >= bench.samples:
                return done
    raise AssertionError


def _track(bench: Bench, source: Path, share: float) -> dict[str, float]:
    """Put a share of the files into a new project; return the seconds that DVC takes to add, check and push them."""
    files = sorted(path for path in source.rglob("*") if path.is_file())
    with bench.folder() as folder:
        project = Path(folder) / "project"
        for path in files[: max(1, round(share * len(files)))]:
            link = project / "patches" / path.relative_to(source)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.hardlink_to(path)
        environment = os.environ | {"DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(Path(folder) / "state")}
        dvc = [sys.executable, "-m", "dvc"]
        run(["git", "init", "--quiet"], project)
        (project / ".dvc").mkdir()
        (project / ".dvc/config").write_text(
            f"[core]\n    remote = local\n['remote \"local\"']\n    url = {folder}/remote\n"
        )
        commands = {"add": ["add", "patches"], "status": ["status"], "push": ["push"]}
        return {step: timed(run, [*dvc, *commands[step]], project, environment)() for step in _STEPS}


def _disk_bytes(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*"))


def _extrapolate(points: dict[float, list[float]]) -> float:
    """Continue the line through the points to the size of the capstone's store, and at least as high as they are."""
    seconds = [median(values) for values in points.values()]
    slope, start = np.polyfit(list(points), seconds, deg=1)
    return max(float(start + slope * _CAPSTONE_SAMPLES), *seconds)
