"""What a training depends on, read and checked once: for stage `train`, and for every trial of stage `search`."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pydantic import ValidationError

from mitoscope.datasets.patches import read_summary
from mitoscope.errors import InputError, first_problem
from mitoscope.files import hash_file, read_json
from mitoscope.params import Train, read_params
from mitoscope.paths import MODELS, PATCHES, Outputs
from mitoscope.tracking.provenance import hash_code

if TYPE_CHECKING:
    from mitoscope.learning.batches import PatchSet
    from mitoscope.learning.devices import Device
    from mitoscope.learning.networks import PatchNetwork

# What the weights depend on besides the settings and the files: epochs of two versions are never mixed.
CODE = ("learning/**/*.py", "detection/stored.py", "datasets/patches.py", "evaluation/metrics.py", "stages/train/*.py")


@dataclass(frozen=True)
class Inputs:
    """Everything that a training depends on, read and checked once: also for the trials of stage `search`.

    Attributes:
        outputs: where the stages of this network and split read and write.
        settings: the training block.
        split: the settings of the split, `fold` being the one that tests.
        start: start.json of the weights.
        summary: summary.json of the patch store.
        training: patches to learn from.
        rows: index rows of the training patches.
        validation: patches that choose the best epoch.
        sources: hashes of the files of earlier stages.
    """

    outputs: Outputs
    settings: Train
    split: dict[str, Any]
    start: dict[str, Any]
    summary: dict[str, Any]
    training: "PatchSet"
    rows: pd.DataFrame
    validation: "PatchSet"
    sources: dict[str, str]

    @property
    def network(self) -> str:
        """The entry under `train` in params.yaml."""
        return self.outputs.network

    @property
    def name(self) -> str:
        """The network, and the fold where it is one of the cross-validation's."""
        return self.network if self.outputs.fold is None else f"{self.network}-fold{self.outputs.fold}"

    @property
    def synthetic(self) -> bool:
        """Whether the data were drawn."""
        return bool(self.summary["dataset"]["synthetic"])

    def evidence(self, device: "Device") -> dict[str, Any]:
        """Everything that the weights depend on, by name."""
        import torch

        packages = ["torch", "torchvision", "numpy"]
        if (self.settings.model.backbone or "").startswith("timm/"):
            packages.append("timm")
        return {
            "settings": self.settings.model_dump(mode="json"),
            **self.sources,
            "code": hash_code(CODE),
            **{package: version(package) for package in packages},
            "device": device.torch.type,
            "precision": "bf16" if device.bf16 else "fp32",
            "threads": torch.get_num_threads(),
            "processes": device.world,  # an epoch's batches are shared out among them
        }

    def tags(self) -> dict[str, str]:
        """What a run in MLflow is found by."""
        dataset = self.summary["dataset"]
        return {
            "network": self.network,
            "start_weights": self.start["source"],
            "dataset": dataset["name"],
            "synthetic": str(dataset["synthetic"]).lower(),
            "patches": self.summary["digest"],
            "fold": str(self.split["fold"]),
            "crossvalidation": str(self.outputs.fold is not None).lower(),
        }


def read_inputs(outputs: Outputs, searched: Mapping[str, Any] | None = None) -> Inputs:
    """Read the inputs of a training.

    Args:
        outputs: of a network that has a block under `train` in params.yaml.
        searched: entries that take the place of the block's, as a search found them.

    Raises:
        InputError: bad params or `searched`, or a file of an earlier stage is missing or lacks a class.
    """
    from mitoscope.detection.stored import read_samples

    params, network = read_params(), outputs.network
    try:
        settings = replace_settings(params.train_of(network), searched or {})
    except ValidationError as error:
        found = outputs.searched / f"{network}.json"
        raise InputError(f"{found}: settings.{first_problem(error)}; run {outputs.repro('search')} with -f") from error
    start_file = MODELS / network / "start.pt"
    for path in (outputs.split, start_file):
        if not path.exists():
            raise InputError(f"{path}: no such file; run {outputs.repro('search')} first")
    summary = read_summary(PATCHES)
    training, rows = read_samples(PATCHES, outputs.split, "train", settings.sampling.near_um)
    validation, _ = read_samples(PATCHES, outputs.split, "validation")
    for name, patches in (("train", training), ("validation", validation)):
        if len(np.unique(patches.labels)) < 2:
            raise InputError(f"{outputs.split}: the {name} patients lack mitoses or negatives away from the edges")
    fold = params.split.fold if outputs.fold is None else outputs.fold
    return Inputs(
        outputs=outputs,
        settings=settings,
        split=params.split.model_dump() | {"fold": fold},
        start=read_json(start_file.with_suffix(".json"), f"run {outputs.repro('weights')} first"),
        summary=summary,
        training=training,
        rows=rows,
        validation=validation,
        sources={
            "patches": summary["digest"],
            "split": hash_file(outputs.split),
            "start": hash_file(start_file),
        },
    )


def replace_settings(settings: Train, changes: Mapping[str, Any]) -> Train:
    """A training block with other values for some entries of its parts, checked as those of params.yaml are."""
    content = settings.model_dump()
    return Train.model_validate(content | {part: content.get(part, {}) | entries for part, entries in changes.items()})


def start_model(inputs: Inputs) -> "PatchNetwork":
    """The network with its start weights, tried on two patches so that what cannot work ends before a run begins.

    Raises:
        InputError: the start weights are another network's, the network cannot take patches of `input_size`, or there
            are too many processes for the batch size.
    """
    from mitoscope.learning import checkpoints
    from mitoscope.learning.networks import build, check_forward

    network, settings = inputs.network, inputs.settings
    start_file = MODELS / network / "start.pt"
    description = {
        "backbone": settings.model.backbone or network,
        "head": settings.model.head,
        "patch_size": inputs.summary["patch_size"],
        "input_size": settings.model.input_size,
    }
    try:
        model = build(description, checkpoints.load(start_file))
    except ValueError as error:
        raise InputError(f"{start_file}: {error}; run `dvc repro -f weights@{network}`") from error
    batch = min(settings.optimisation.batch_size, settings.sampling.samples_per_epoch)
    if batch // int(os.environ.get("WORLD_SIZE", "1")) < 2:
        raise InputError(
            f"params.yaml: train.{network}.optimisation.batch_size: fewer than two patches are left for each process"
        )
    if settings.model.trainable == "head":
        model.freeze_all_but_head()
    try:
        check_forward(model)
    except ValueError as error:
        raise InputError(
            f"params.yaml: train.{network}.model: {description['backbone']} fails with input_size "
            f"{settings.model.input_size}: {error}"
        ) from error
    return model
