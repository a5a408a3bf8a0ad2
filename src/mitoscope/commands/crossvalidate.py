"""Command `crossvalidate`: run crossvalidation/dvc.yaml, which tests every patient once.

DVC runs the folds: unchanged results come from its cache, and a killed fold continues where it was. The project's own
split and results stay as they are.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pandas as pd

from mitoscope.errors import InputError
from mitoscope.files import exclusive, read_json, write_text
from mitoscope.params import Split, read_params
from mitoscope.paths import CROSSVALIDATED, WORK, Outputs
from mitoscope.progress import console
from mitoscope.reporting.crossvalidation import NOTE, build_tables
from mitoscope.stages.split import assign, count_mitoses

PIPELINE = Path("crossvalidation/dvc.yaml")
FOLDS = Path("crossvalidation/params.yaml")
_FOLDS_TEXT = """\
# The folds that dvc.yaml runs: 0 to split.folds - 1. `mitoscope crossvalidate` writes this file.
folds: {}
"""
_ASK_AGAIN_SECONDS = 10


def crossvalidate(network: str) -> None:
    """Train and test a network in each of `split.folds` folds, pool the results of the test patients, and print them.

    Stage `pool` writes results/crossvalidate/<network>.json, .csv, -objects.csv and .png.

    Raises:
        InputError: bad params or data, a subset of some fold has no mitosis, another cross-validation of this network
            is running, or DVC failed.
        KeyboardInterrupt: interrupted; DVC and its stage have ended.
    """
    params = read_params()
    params.train_of(network)
    again = f"run `mitoscope crossvalidate {network}` again to continue where it was"
    busy = (
        f"another cross-validation of {network} is still running as process {{pid}}; wait for it, or stop it with "
        f"`kill {{pid}}` and {again}"
    )
    with exclusive(WORK / f"crossvalidate-{network}.lock", busy):
        _announce(network, plan(params.split))
        write_folds(params.split.folds)
        try:
            code = run_dvc("repro", f"{PIPELINE}:pool@{network}")
        except KeyboardInterrupt:
            console.print(f"{network}: the cross-validation was interrupted; {again}")
            raise
    if code:
        raise InputError(f"the cross-validation of {network} failed, DVC says why above; {again}")
    report = read_json(CROSSVALIDATED / f"{network}.json", again)
    # A patient may be called NA; only empty cells are missing values.
    path = CROSSVALIDATED / f"{network}.csv"
    patients = pd.read_csv(path, dtype={"patient": str}, keep_default_na=False, na_values=[""])
    for table in build_tables(report, patients):
        console.print(table)
    console.print(NOTE)
    console.print(f"More in {CROSSVALIDATED}: {network}.json, .csv, -objects.csv and .png.")


def plan(settings: Split) -> list[pd.DataFrame]:
    """Return the split of each fold, so that an invalid fold ends the command before the first fold runs.

    Raises:
        InputError: the dataset has a problem, or a subset of some fold has no mitosis.
    """
    fields = count_mitoses()
    return [assign(fields, folds=settings.folds, fold=fold, seed=settings.seed) for fold in range(settings.folds)]


def write_folds(count: int) -> None:
    """Write crossvalidation/params.yaml, which lists the folds for DVC, unless it is up to date."""
    text = _FOLDS_TEXT.format(list(range(count)))
    if not FOLDS.exists() or FOLDS.read_text(encoding="utf-8") != text:
        write_text(FOLDS, text)


def run_dvc(*arguments: str) -> int:
    """Run DVC in the project's folder; return its exit code.

    Raises:
        KeyboardInterrupt: this process got SIGINT or SIGTERM; DVC and its stage were interrupted and have ended.
    """
    interrupts: list[int] = []
    # These handlers only record the signal, so that DVC's process is known whenever it arrives.
    before = {
        number: signal.signal(number, lambda number, _: interrupts.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    # The stages run the `mitoscope` that was called, even if its environment is not active.
    program = Path(sys.argv[0] if Path(sys.argv[0]).name == "mitoscope" else sys.executable)
    path = f"{program.absolute().parent}{os.pathsep}{os.environ['PATH']}"
    try:
        # In its own process group: DVC waits for its stage, so the stage must be interrupted too, and each only once.
        process = subprocess.Popen(
            (sys.executable, "-m", "dvc", *arguments),
            env=os.environ | {"PATH": path},
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        while process.poll() is None and not interrupts:
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.1)
        while process.poll() is None:  # repeated, because DVC misses an interrupt between two stages
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(_ASK_AGAIN_SECONDS)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if interrupts:
        raise KeyboardInterrupt
    return process.returncode


def _announce(network: str, splits: Sequence[pd.DataFrame]) -> None:
    """Print which patients each fold tests, and how many folds already have results."""
    count = len(splits)
    done = sum((Outputs(network, fold).evaluated / "metrics.json").exists() for fold in range(count))
    console.print(f"{network}: {count} folds; {done} of them have results, which are kept if nothing has changed")
    for fold, split in enumerate(splits):
        tests, validates = (", ".join(split.patient[split.subset == subset]) for subset in ("test", "validation"))
        console.print(f"fold {fold}: tests {tests}; validates on {validates}")
