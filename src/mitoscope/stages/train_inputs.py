"""What a training depends on, read and checked once: for stage `train@arch`, and for every trial of `search@arch`."""

import hashlib
import json
import os
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pydantic import ValidationError

from mitoscope.datasets.patches import read_summary
from mitoscope.errors import InputError
from mitoscope.params import FIELD_SETTINGS, Train, first_line, read_params
from mitoscope.paths import MODELS, PATCHES, SEARCHED, SPLIT, WORK
from mitoscope.stages.subsets import read_samples

if TYPE_CHECKING:
    from mitoscope.learning.batches import PatchSet
    from mitoscope.learning.loop import Recipe
    from mitoscope.learning.networks import PatchNetwork


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
    sources: dict[str, str]  # hashes of the files of earlier stages

    @property
    def fingerprint(self) -> str:
        """Names everything that the training depends on."""
        # An epoch's batches are shared out among the processes.
        evidence = {"train": self.block.model_dump(), "processes": os.environ.get("WORLD_SIZE", "1"), **self.sources}
        return hashlib.sha256(json.dumps(evidence, sort_keys=True).encode()).hexdigest()

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

    @property
    def tags(self) -> dict[str, str]:
        """What a run in MLflow is found by."""
        dataset = self.summary["dataset"]
        return {
            "architecture": self.arch,
            "start_weights": self.start["source"],
            "dataset": dataset["name"],
            "synthetic": str(dataset["synthetic"]).lower(),
            "patches": self.summary["digest"],
            "fingerprint": self.fingerprint,
        }


def read_inputs(arch: str, settings: Mapping[str, Any] | None = None) -> Inputs:
    """Read the inputs of a training of network `arch`.

    Args:
        arch: has a block under `train` in params.yaml.
        settings: entries that take the place of the block's, as a search found them.

    Raises:
        InputError: bad params or `settings`, or a file of an earlier stage is missing or lacks a class.
    """
    params = read_params()
    block, _ = params.for_network(arch)
    try:
        block = replace_settings(block, settings or {})
    except ValidationError as error:
        found = SEARCHED / f"{arch}.json"
        raise InputError(f"{found}: settings.{first_line(error)}; run `dvc repro -f search@{arch}`") from error
    start_file = MODELS / arch / "start.pt"
    for path, stage in (
        (SPLIT, "split"),
        (start_file, f"weights@{arch}"),
        (start_file.with_suffix(".json"), "weights"),
    ):
        if not path.exists():
            raise InputError(f"{path}: no such file; run `dvc repro {stage}` first")
    summary = read_summary(PATCHES)
    sources = {
        "patches": summary["digest"],
        "split": hashlib.sha256(SPLIT.read_bytes()).hexdigest(),
        "start": hashlib.sha256(start_file.read_bytes()).hexdigest(),
    }
    training, rows = read_samples("train", block.near_um)
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
        sources=sources,
    )


def replace_settings(block: Train, settings: Mapping[str, Any]) -> Train:
    """A training block with other values for some of its entries, checked as those of params.yaml are."""
    return Train.model_validate(block.model_dump() | dict(settings))


def make_recipe(block: Train) -> "Recipe":
    """The loop's settings of a training block."""
    from mitoscope.learning.batches import Rotations
    from mitoscope.learning.loop import Mining, Recipe

    settings = block.model_dump(exclude={"head", "input_size", "trainable", "near_um", *FIELD_SETTINGS})
    nested = {"rotations": Rotations(**settings["rotations"]), "mining": Mining(**settings["mining"])}
    return Recipe(**settings | nested)


def start_network(inputs: Inputs) -> "PatchNetwork":
    """The network with its start weights, tried on two patches so that what cannot work ends before a run begins.

    Raises:
        InputError: the start weights are another network's, the network cannot take patches of `input_size`, or there
            are too many processes for the batch size.
    """
    import torch

    from mitoscope.learning import checkpoints
    from mitoscope.learning.networks import build

    arch, start_file = inputs.arch, inputs.models / "start.pt"
    size = inputs.summary["settings"]["patch_size"]
    description = {"arch": arch, "head": inputs.block.head, "patch_size": size, "input_size": inputs.block.input_size}
    try:
        network = build(description, checkpoints.load(start_file))
    except ValueError as error:
        raise InputError(f"{start_file}: {error}; run `dvc repro -f weights@{arch}`") from error
    share = min(inputs.block.batch_size, inputs.block.samples_per_epoch) // int(os.environ.get("WORLD_SIZE", "1"))
    if share < 2:
        raise InputError(f"params.yaml: train.{arch}.batch_size: shared by the processes it leaves fewer than two each")
    if inputs.block.trainable == "head":
        network.freeze_all_but_head()
    try:
        answer = deepcopy(network).train()(torch.zeros(2, 3, size, size, dtype=torch.uint8))
        fits = isinstance(answer, torch.Tensor) and answer.shape == (2, 2)
    except (AssertionError, RuntimeError, ValueError):
        fits = False
    if not fits:
        raise InputError(
            f"params.yaml: train.{arch}.input_size: {arch} does not work with {inputs.block.input_size} "
            "px; try 224 (networks with more than one output, as GoogLeNet's, are not supported)"
        )
    return network
