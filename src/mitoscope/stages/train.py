"""Stage `train@arch`: patches + split + start weights -> models/<arch>/best.pt and results/train/<arch>.*."""

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import yaml
from filelock import FileLock, Timeout

from mitoscope.errors import InputError
from mitoscope.histology.patches import read_summary
from mitoscope.params import Train, read_params
from mitoscope.paths import DATA, MODELS, PATCHES, SPLIT, WORK
from mitoscope.progress import console, progress
from mitoscope.stages.subsets import read_samples
from mitoscope.stages.train_outputs import write_outputs

if TYPE_CHECKING:
    from mitoscope.learning.batches import PatchSet
    from mitoscope.learning.devices import Place
    from mitoscope.learning.networks import PatchNetwork
    from mitoscope.learning.scoring import Epoch


@dataclass(frozen=True)
class Inputs:
    """Everything that a training depends on."""

    arch: str
    block: Train
    split: dict[str, Any]
    start: dict[str, Any]
    summary: dict[str, Any]
    training: "PatchSet"
    rows: pd.DataFrame  # of the index, one per training patch
    validation: "PatchSet"
    fingerprint: str

    @property
    def models(self) -> Path:
        """Folder of the start weights and of the trained network."""
        return MODELS / self.arch

    @property
    def fields(self) -> dict[str, Any]:
        """How the fields became patches: what detection in a new field has to do likewise."""
        names = ("stain", "scale", "sigma", "peak_window", "candidates_per_mm2")
        settings = {name: self.summary["settings"][name] for name in names}
        dataset = {name: self.summary["dataset"][name] for name in ("microns_per_pixel", "synthetic")}
        return settings | dataset

    @property
    def mined(self) -> Path:
        """Picture of the mined negatives, on its way to MLflow."""
        return self.work / "mined.png"

    @property
    def work(self) -> Path:
        """Folder of the checkpoints. Outside DVC: another fingerprint must never find them as its own output."""
        return WORK / f"train-{self.arch}-{self.fingerprint[:12]}"


def train(arch: str) -> None:
    """Train network `arch` as its block in params.yaml says; a killed training goes on where it was.

    Under torchrun every process trains its share; the first one logs the run and writes the outputs.

    Raises:
        InputError: bad params or inputs, or another training of this network is under way.
    """
    from mitoscope.learning import checkpoints
    from mitoscope.learning.batches import Rotations
    from mitoscope.learning.devices import join
    from mitoscope.learning.loop import Mining, Recipe, fit
    from mitoscope.learning.networks import build

    inputs = _read_inputs(arch)
    settings = inputs.block.model_dump(exclude={"input_size", "trainable"})
    nested = {"rotations": Rotations(**settings["rotations"]), "mining": Mining(**settings["mining"])}
    recipe = Recipe(**settings | nested)
    description = {"arch": arch, "input_size": inputs.block.input_size}
    description["patch_size"] = inputs.summary["settings"]["patch_size"]
    try:
        network = build(description, checkpoints.load(inputs.models / "start.pt"))
    except ValueError as error:
        raise InputError(f"{inputs.models / 'start.pt'}: {error}; run `dvc repro -f weights@{arch}`") from error
    if inputs.block.trainable == "head":
        network.freeze_all_but_head()
    _try_out(network, inputs)

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


def _try_out(network: "PatchNetwork", inputs: Inputs) -> None:
    """Send two patches through the network as training will, so that what cannot work ends before a run begins."""
    import torch

    size = network.patch_size
    try:
        answer = deepcopy(network).train()(torch.zeros(2, 3, size, size, dtype=torch.uint8))
        fits = isinstance(answer, torch.Tensor) and answer.shape == (2, 2)
    except (AssertionError, RuntimeError, ValueError):
        fits = False
    if not fits:
        raise InputError(
            f"params.yaml: train.{inputs.arch}.input_size: {inputs.arch} does not work with {inputs.block.input_size} "
            "px; try 224 (networks with more than one output, as GoogLeNet's, are not supported)"
        )


def _read_inputs(arch: str) -> Inputs:
    params = read_params()
    block, _ = params.for_network(arch)
    start_file = MODELS / arch / "start.pt"
    for path, stage in (
        (SPLIT, "split"),
        (start_file, f"weights@{arch}"),
        (start_file.with_suffix(".json"), "weights"),
    ):
        if not path.exists():
            raise InputError(f"{path}: no such file; run `dvc repro {stage}` first")
    summary = read_summary(PATCHES)
    evidence = {
        "train": block.model_dump(),
        "patches": summary["digest"],
        "split": hashlib.sha256(SPLIT.read_bytes()).hexdigest(),
        "start": hashlib.sha256(start_file.read_bytes()).hexdigest(),
        "processes": os.environ.get("WORLD_SIZE", "1"),  # an epoch's batches are shared out among them
    }
    training, rows = read_samples("train")
    validation, _ = read_samples("validation")
    for name, patches in (("train", training), ("validation", validation)):
        if len(np.unique(patches.labels)) < 2:
            raise InputError(f"{SPLIT}: the {name} patients lack mitoses or negatives away from the fields' edges")
    return Inputs(
        arch=arch,
        block=block,
        split=params.split.model_dump(),
        start=json.loads(start_file.with_suffix(".json").read_text(encoding="utf-8")),
        summary=summary,
        training=training,
        rows=rows,
        validation=validation,
        fingerprint=hashlib.sha256(json.dumps(evidence, sort_keys=True).encode()).hexdigest(),
    )


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
    tags = {
        "architecture": inputs.arch,
        "start_weights": start["source"],
        "dataset": dataset["name"],
        "synthetic": str(dataset["synthetic"]).lower(),
        "precision": precision,
        "device": f"{place.world} x {place.device.type}",
        "patches": inputs.summary["digest"],
        "fingerprint": inputs.fingerprint,
        **_git_state(),
    }
    console.print(
        f"{inputs.arch}: starts from {start['source']} weights, trains on {tags['device']} in {precision} with "
        f"{positives} mitoses and {len(inputs.training) - positives} negatives",
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
