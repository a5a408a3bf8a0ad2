"""Stage `train@arch`: patches + split + start weights -> models/<arch>/best.pt and results/train/<arch>.*."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import yaml
from filelock import FileLock, Timeout

from mitoscope.errors import InputError
from mitoscope.paths import DATA, SEARCHED, WORK
from mitoscope.progress import console, progress
from mitoscope.stages.train_inputs import Inputs, make_recipe, read_inputs, start_network
from mitoscope.stages.train_outputs import write_outputs

if TYPE_CHECKING:
    from mitoscope.learning.devices import Place
    from mitoscope.learning.scoring import Epoch


def train(arch: str) -> None:
    """Train network `arch` as its block in params.yaml says; a killed training goes on where it was.

    Under torchrun every process trains its share; the first one logs the run and writes the outputs.

    Raises:
        InputError: bad params or inputs, or another training of this network is under way.
    """
    from mitoscope.learning.devices import join
    from mitoscope.learning.loop import fit

    inputs = read_inputs(arch, _searched_settings(arch))
    network, recipe = start_network(inputs), make_recipe(inputs.block)

    with join() as place:
        fit_here = partial(fit, network, inputs.training, inputs.validation, recipe, place=place, work=inputs.work)
        if not place.first:
            fit_here(fingerprint=inputs.fingerprint)
            return
        with _only_trainer(arch):
            with _logged_run(inputs, place) as (run_id, log_epochs), progress() as show:
                try:
                    fitted = fit_here(fingerprint=inputs.fingerprint, on_epoch=log_epochs, on_batch=show)
                except KeyboardInterrupt:
                    console.print(f"{arch}: interrupted; started again, it goes on from its last epoch")
                    raise
                except FloatingPointError as error:
                    raise InputError(f"params.yaml: train.{arch}: {error}") from error
                # The other processes are done: what remains is computed by this one alone.
                write_outputs(inputs, run_id, fitted, replace(place, world=1), show)
            shutil.rmtree(inputs.work)


def _searched_settings(arch: str) -> dict[str, Any]:
    """What stage `search@arch` found; nothing where it is off."""
    path = SEARCHED / f"{arch}.json"
    if not path.exists():
        raise InputError(f"{path}: no such file; run `dvc repro search@{arch}` first")
    try:
        settings = dict(json.loads(path.read_text(encoding="utf-8"))["settings"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: is no result of a search; run `dvc repro -f search@{arch}`") from error
    if settings:
        console.print(f"{arch}: takes {json.dumps(settings)} from {path}")
    return settings


@contextmanager
def _only_trainer(arch: str) -> Iterator[None]:
    """Keep a second training of this network out; killing `dvc repro` leaves the first one running."""
    lock = WORK / f"train-{arch}.lock"
    lock.parent.mkdir(exist_ok=True)
    try:
        with FileLock(lock, timeout=0):
            yield
    except Timeout as error:
        raise InputError(
            f"{lock}: another training of {arch} is still running; wait for it, or stop it with "
            f"`pkill -f 'mitoscope train {arch}'` and run this again: it goes on from its last epoch"
        ) from error


@contextmanager
def _logged_run(inputs: Inputs, place: "Place") -> "Iterator[tuple[str, Any]]":
    """Open the MLflow run; yields its id and what logs the epochs so far."""
    from mitoscope.tracking import runs

    dataset, start = inputs.summary["dataset"], inputs.start
    positives = int(inputs.training.labels.sum())
    precision = "bf16" if place.bf16 else "fp32"
    params = {
        "train": inputs.block.model_dump(),
        "extract": inputs.summary["settings"],
        "split": inputs.split,
        "start": {name: start[name] for name in ("source", "file", "sha256")},
    }
    device = f"{place.world} x {place.device.type}"
    tags = inputs.tags | {"precision": precision, "device": device} | _git_state()
    console.print(
        f"{inputs.arch}: starts from {start['source']} weights, trains on {device} in {precision} with "
        f"{positives} windows of mitoses and {len(inputs.training) - positives} negatives",
    )
    with runs.training_run(inputs.arch, inputs.work / "run_id", params, tags) as run_id:
        runs.log_dataset(dataset["name"], _data_digest(inputs.summary), DATA)

        def log_epochs(history: "list[Epoch]") -> None:
            runs.log_epochs(run_id, history)
            now = history[-1]
            console.print(
                f"{inputs.arch} epoch {len(history)}/{inputs.block.epochs}: loss {now['train/loss']:.3f}, validation "
                f"loss {now['validation/loss']:.3f}, best F1 {now['validation/best_f1']:.3f}; "
                f"{now['throughput/train_patches_per_second']:.0f} patches/s",
            )

        yield run_id, log_epochs


def _data_digest(summary: dict[str, Any]) -> str:
    """DVC's hash of the raw dataset; where data/ is not under DVC, the start of the patch store's digest."""
    tracked = DATA.with_name("data.dvc")
    if tracked.exists():
        digest: str = yaml.safe_load(tracked.read_text(encoding="utf-8"))["outs"][0]["md5"]
        return digest
    return str(summary["digest"])[:36]


def _git_state() -> dict[str, str]:
    """The commit, and whether tracked files differ from it (dvc.lock does, while DVC runs); empty without git."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!dvc.lock")
        return {"mlflow.source.git.commit": git("rev-parse", "HEAD"), "git_dirty": str(bool(changed)).lower()}
    except (OSError, subprocess.CalledProcessError):
        return {}
