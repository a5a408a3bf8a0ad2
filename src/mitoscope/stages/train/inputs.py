"""Read and check the inputs of a training, for stage `train` and the trials of stage `search`."""

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

# Code that the weights depend on; a training is resumed only if it has not changed.
CODE = ("learning/**/*.py", "detection/stored.py", "datasets/patches.py", "evaluation/metrics.py", "stages/train/*.py")


@dataclass(frozen=True)
class Inputs:
    """Inputs of a training, read and checked once; all trials of a search use the same.

    Attributes:
        outputs: paths of this network and split.
        settings: train block.
        split: settings of the split; `fold` is the fold that tests.
        start: start.json of the start weights.
        summary: summary.json of the patch store.
        training: training patches.
        rows: index rows of the training patches.
        validation: validation patches, which choose the best epoch.
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
        """The network and, in a cross-validation, the fold."""
        return self.network if self.outputs.fold is None else f"{self.network}-fold{self.outputs.fold}"

    @property
    def synthetic(self) -> bool:
        """Whether the data is synthetic."""
        return bool(self.summary["dataset"]["synthetic"])

    def evidence(self, device: "Device") -> dict[str, Any]:
        """Return everything that the weights depend on, by name."""
        import torch

        from mitoscope.learning.backbones import versions

        return {
            "settings": self.settings.model_dump(mode="json"),
            **self.sources,
            "code": hash_code(CODE),
            "torch": torch.__version__,  # with its build
            "numpy": version("numpy"),
            **versions(self.settings.model.backbone or self.network),
            "device": device.torch.type,
            "precision": "bf16" if device.bf16 else "fp32",
            "threads": torch.get_num_threads(),
            "processes": device.world,  # the batches of an epoch are divided among them
        }

    def tags(self) -> dict[str, str]:
        """Return the tags of the MLflow run."""
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
        outputs: paths of a network that has a block under `train` in params.yaml.
        searched: entries from a search, which replace those of the block.

    Raises:
        InputError: bad params or `searched`, a file of an earlier stage is missing, or a subset lacks a class.
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
    training, rows = read_samples(PATCHES, outputs.split, "train", near_um=settings.sampling.near_um)
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
    """Return a train block with changed entries, validated in the same way as params.yaml."""
    content = settings.model_dump()
    return Train.model_validate(content | {part: content.get(part, {}) | entries for part, entries in changes.items()})


def start_model(inputs: Inputs) -> "PatchNetwork":
    """Return the network with its start weights; test it on two patches, so that errors appear before a run starts.

    Raises:
        InputError: the start weights belong to another network, the network cannot process patches of `input_size`, or
            there are too many processes for the batch size.
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
            f"params.yaml: train.{network}.optimisation.batch_size: each process gets fewer than two patches; choose a "
            "larger batch or fewer processes"
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
