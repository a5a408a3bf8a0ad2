"""params.yaml as typed, validated blocks: every setting is declared here, once, with its default and its meaning.

A block is handed over whole to whatever it is for. The defaults belong to the format: a file that leaves an entry out
means the same for ever, so a better value is a preset, not another default.
"""

import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from mitoscope.errors import InputError, first_problem

Angle = Annotated[float, Field(ge=0, lt=360)]
Angles = Annotated[tuple[Angle, ...], Field(min_length=1)]
_ALL_ANGLES = tuple(45.0 * turn for turn in range(8))
_NETWORK = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def _check_start(value: str) -> str:
    if value not in ("auto", "imagenet", "random") and not re.search(r"[./]", value):
        raise ValueError(f"must be auto, imagenet, random or a path such as ./start.pt, not {json.dumps(value)}")
    return value


Start = Annotated[str, AfterValidator(_check_start)]


class Block(BaseModel):
    """What all blocks share: entries may be left out, none is unknown, and nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def chosen(self) -> dict[str, Any]:
        """The entries that differ from their defaults: two blocks that mean the same give the same."""
        return self.model_dump(mode="json", exclude_defaults=True)


class Split(Block):
    """Which patients test, which validate, which train."""

    folds: int = Field(
        4,
        ge=3,
        description="number of folds; with as many folds as patients, each fold is one patient (leave-one-patient-out)",
    )
    fold: int = Field(
        0, ge=0, description="number of the fold that tests, from 0; the next one validates, the others train"
    )
    seed: int = Field(0, ge=0, description="random seed for assigning patients to folds")

    @model_validator(mode="after")
    def _fold_exists(self) -> Self:
        if self.fold >= self.folds:
            raise ValueError(f"there is no fold {self.fold}; with folds: {self.folds} the last one is {self.folds - 1}")
        return self


class Extract(Block):
    """How fields become candidates and patches. Lengths are in um; each field's pixel size turns them into pixels."""

    stain: Literal["none", "macenko", "reinhard"] = Field(
        "none", description="method of stain normalisation, applied to the whole field; none = off"
    )
    microns_per_pixel: float = Field(
        0.5, gt=0, le=4, description="um; pixel size of the patches; every field is resized to it"
    )
    patch_um: float = Field(32.0, gt=0, description="um; side length of a patch")
    blue_ratio_microns_per_pixel: float = Field(0.5, gt=0, le=4, description="um; pixel size of the blue-ratio image")
    sigma_um: float = Field(1.0, gt=0, description="um; Gaussian smoothing of the blue-ratio image")
    peak_window_um: float = Field(
        5.5,
        gt=0,
        description="um; a candidate is the brightest point of the blue-ratio image within a square of this side",
    )
    candidates_per_mm2: float = Field(
        1500,
        gt=0,
        description="most candidates kept per mm2 of field, the strongest first; 1500 per mm2 = 400 in 0.27 mm2",
    )
    exclusion_um: float = Field(
        7.5, ge=0, description="um; candidates within this distance of a mitosis are not used as negatives"
    )

    @property
    def patch_size(self) -> int:
        """Side of a patch, px."""
        return round(self.patch_um / self.microns_per_pixel)

    @model_validator(mode="after")
    def _patch_has_pixels(self) -> Self:
        if self.patch_size < 16:
            raise ValueError(f"patch_um: patches of {self.patch_size} px are too small, 16 are needed")
        return self


class Rotations(Block):
    """Angles in degrees per class; each (patch, angle) pair is one training sample."""

    positive: Angles = Field(_ALL_ANGLES, description="degrees; rotations of mitosis patches")
    negative: Angles = Field((0.0, 45.0), description="degrees; rotations of negative patches")


class Mining(Block):
    """Hard negatives: later epochs draw those that the network takes for mitoses."""

    start_epoch: int = Field(
        1, ge=1, description="last epoch that draws all negatives equally often; mining starts after it"
    )
    every: int = Field(
        0,
        ge=0,
        description="mine every so many epochs, among twice as many negatives as an epoch has samples; 0 = never",
    )
    lr_factor: float = Field(
        0.5, gt=0, le=1, description="peak learning rate of the epochs with mining, as a fraction of lr"
    )


class Model(Block):
    """The network."""

    backbone: str | None = Field(
        None,
        description="name of a torchvision network, or timm/NAME; several joined by + share a pooled head; null = the "
        "entry's own name under `train`",
    )
    input_size: int = Field(224, ge=32, description="px; the network resizes patches to this side length")
    head: Literal["classifier", "pooled"] = Field(
        "classifier",
        description="classifier = the network's own; pooled = a linear layer on the pooled features of all levels",
    )
    trainable: Literal["all", "head"] = Field(
        "all", description="all = train every layer; head = train only the pooled head or the last layer"
    )
    seed: int = Field(0, ge=0, description="random seed of the weights that are not taken from the start weights")


class Sampling(Block):
    """What an epoch sees."""

    samples_per_epoch: int = Field(1024, ge=2, description="number of patches drawn per epoch")
    positive_fraction: float = Field(
        0.33, gt=0, lt=1, description="fraction of mitoses among the patches drawn per epoch"
    )
    rotations: Rotations = Field(Rotations(), description="angles of each class")
    flips: bool = Field(True, description="mirror patches at random")
    stain_jitter: float = Field(
        0.05, ge=0, lt=1, description="random stain variation; 0.2 = each stain varies by up to 20 %; 0 = off"
    )
    near_um: float = Field(
        0,
        ge=0,
        description="um; candidates closer to a mitosis than this are also positives; 0 = annotated centres only",
    )
    mining: Mining = Field(Mining(), description="hard negatives")
    seed: int = Field(0, ge=0, description="random seed for drawing and varying the patches")


class Optimisation(Block):
    """How the weights are optimised."""

    epochs: int = Field(5, ge=1, description="maximum number of epochs")
    batch_size: int = Field(64, ge=2, description="patches per batch, over all processes together")
    lr: float = Field(3e-4, gt=0, description="peak learning rate of the one-cycle schedule")
    weight_decay: float = Field(0.01, ge=0, description="weight decay of the AdamW optimiser")
    patience: int = Field(
        5,
        ge=1,
        description="stop after this many epochs without a better F1; with mining on, only epochs with mining count",
    )


class Train(Block):
    """How one network is trained."""

    model: Model = Field(Model(), description="the network")
    sampling: Sampling = Field(Sampling(), description="what an epoch sees")
    optimisation: Optimisation = Field(Optimisation(), description="how the weights are optimised")

    @model_validator(mode="after")
    def _mining_begins(self) -> Self:
        mining = self.sampling.mining
        if mining.every and mining.start_epoch >= self.optimisation.epochs:
            raise ValueError("sampling.mining.start_epoch must come before the last epoch (every: 0 turns mining off)")
        return self


class FieldHeadSettings(Block):
    """The regression that scores whole fields (`refit_fields`)."""

    inverse_penalty: float = Field(
        1e-3,
        gt=0,
        description="C of scikit-learn's LogisticRegression",
    )
    hard_fraction: float = Field(
        0.2,
        gt=0,
        le=1,
        description="fraction of the negatives, the hardest ones, that the second regression is fitted to",
    )
    prior_candidates: float = Field(
        50,
        ge=0,
        description="weight of the training fields' mean and variance against a field's own, as a number of candidates",
    )
    inner_folds: int = Field(
        0,
        ge=0,
        description="0 = the threshold is the best one in the validation patients' fields; 2 or more = the head is "
        "fitted to the training and validation patients, and the threshold is the best one in all their fields, scored "
        "by as many further heads (at most one per patient), each fitted without the patients that it scores; needs "
        "trainable: head",
    )

    @field_validator("inner_folds")
    @classmethod
    def _several_or_none(cls, value: int) -> int:
        if value == 1:
            raise ValueError("takes 2 folds or more, or 0 for none")
        return value


class CalibrationSettings(Block):
    """How each field's scores are brought to the spread of the validation fields, where there is no field head."""

    percentiles: tuple[Annotated[float, Field(ge=0, le=100)], Annotated[float, Field(ge=0, le=100)]] = Field(
        (50.0, 95.0),
        description="%; the two percentiles of a field's log-odds that are moved to those of the validation fields",
    )
    prior_candidates: float = Field(
        50, ge=0, description="weight of the typical spread against a field's own, as a number of candidates"
    )

    @field_validator("percentiles")
    @classmethod
    def _rise(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] >= value[1]:
            raise ValueError("the lower one comes first")
        return value


class Detection(Block):
    """How a trained network finds the mitoses of whole fields; changing it trains nothing."""

    views: Literal[1, 2, 4, 8] = Field(
        1,
        description="mirrored and turned copies of each candidate, whose scores are averaged (test-time augmentation)",
    )
    refit_fields: bool = Field(
        False,
        description="true: a field head scores fields, a regression on features standardised per field (needs head: "
        "pooled); false: the network's own head does, calibrated per field",
    )
    suppress_um: float = Field(
        7.5, gt=0, description="um; of two detections within this distance only the more probable one is kept"
    )
    field_head: FieldHeadSettings = Field(FieldHeadSettings(), description="settings of refit_fields")
    calibration: CalibrationSettings = Field(
        CalibrationSettings(), description="settings of the calibration, used where refit_fields is false"
    )

    @field_validator("views", mode="before")
    @classmethod
    def _views_are_a_number(cls, value: object) -> object:
        return json.dumps(value) if isinstance(value, bool) else value  # true is equal to 1


class RotationChoices(Block):
    """The lists of angles among which a search chooses, for each class."""

    positive: tuple[Angles, ...] = Field(
        ((0.0,), _ALL_ANGLES), min_length=1, description="degrees; lists of rotations to try for mitosis patches"
    )
    negative: tuple[Angles, ...] = Field(
        ((0.0,), (0.0, 45.0)), min_length=1, description="degrees; lists of rotations to try for negative patches"
    )


class Search(Block):
    """Which settings are tried before a training, and how."""

    trials: int = Field(
        0, ge=0, description="number of trials to finish per network, pruned ones included; 0 turns the search off"
    )
    startup_trials: int = Field(
        2,
        ge=1,
        description="trials before TPE and pruning start: the first has the train block's settings, others random ones",
    )
    epochs: int = Field(2, ge=1, description="epochs per trial")
    samples_per_epoch: int = Field(192, ge=2, description="number of patches drawn per epoch of a trial")
    lr: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = Field(
        (1e-4, 2e-3), description="lowest and highest learning rate; drawn on a logarithmic scale"
    )
    rotations: RotationChoices = Field(RotationChoices(), description="lists of angles to choose from, for each class")
    storage: str = Field(
        "sqlite:///.work/search.db",
        min_length=1,
        description="database of the trials, as an Optuna URL; the variable MITOSCOPE_SEARCH_STORAGE overrides it",
    )
    seed: int = Field(0, ge=0, description="random seed for the settings that the trials try")

    @field_validator("rotations")
    @classmethod
    def _choices_differ(cls, value: RotationChoices) -> RotationChoices:
        if any(len(set(choices)) < len(choices) for choices in (value.positive, value.negative)):
            raise ValueError("the same angles stand there twice")
        return value

    @field_validator("lr")
    @classmethod
    def _is_a_range(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] > value[1]:
            raise ValueError("the lowest comes first")
        return value

    @field_validator("storage")
    @classmethod
    def _is_a_url(cls, value: str) -> str:
        if "://" not in value:  # not shown: it may contain a password
            raise ValueError("is not a database URL such as sqlite:///.work/search.db or postgresql://USER@SERVER/NAME")
        return value


class Evaluate(Block):
    """How the test patients are scored."""

    bootstrap: int = Field(1000, ge=100, description="number of resamplings of the patients for each 95 % interval")
    seed: int = Field(0, ge=0, description="random seed for the resampling")


class Promote(Block):
    """The gate: what a detector must reach to get the alias `champion`."""

    min_recall: float = Field(0.4, ge=0, le=1, description="lowest recall in the test patients' whole fields")
    min_f1: float = Field(0.4, ge=0, le=1, description="lowest F1 in the test patients' whole fields")
    max_drop: float = Field(
        0.02, ge=0, le=1, description="largest allowed drop of F1 below the best champion so far, on the same fields"
    )


class Params(Block):
    """The whole of params.yaml."""

    launch: str = Field(
        "mitoscope", description="command that starts a training: mitoscope, or torchrun ... mitoscope for several GPUs"
    )
    split: Split = Field(Split(), description="stage split")
    extract: Extract = Field(Extract(), description="stage extract")
    weights: dict[str, Start] = Field(
        {},
        description="start weights per network: auto, imagenet, random, or the path of a file; of networks side by "
        "side the path of each, joined by +; auto by default",
    )
    train: dict[str, Train] = Field(min_length=1, description="one entry per network; stage train")
    detection: dict[str, Detection] = Field({}, description="one entry per network; stage detector")
    search: Search = Field(Search(), description="stage search")
    evaluate: Evaluate = Field(Evaluate(), description="stage evaluate")
    promote: Promote = Field(Promote(), description="command promote")

    @field_validator("launch")
    @classmethod
    def _is_a_command(cls, value: str) -> str:
        if value.split()[-1:] in ([], ["train"]):
            raise ValueError(f"must be a command to which DVC adds `train NETWORK`, not {json.dumps(value)}")
        return value

    @model_validator(mode="after")
    def _blocks_fit(self) -> Self:
        for block in ("weights", "detection"):
            if unknown := sorted(set(getattr(self, block)) - set(self.train)):
                names = ", ".join(self.train)
                raise ValueError(f"{block} has {unknown[0]}, but train has {names}; the names must be the same")
        for name, train in self.train.items():
            if not _NETWORK.fullmatch(name):  # it becomes a part of paths and commands
                raise ValueError(
                    f"train has a network {json.dumps(name)}: use letters, digits, _, - and . for its name, and write "
                    "a network of timm as model.backbone: timm/NAME"
                )
            if self.detection_of(name).refit_fields and train.model.head != "pooled":
                raise ValueError(f"detection.{name}.refit_fields needs train.{name}.model.head: pooled")
            if self.detection_of(name).field_head.inner_folds:
                if not self.detection_of(name).refit_fields:
                    raise ValueError(
                        f"detection.{name}.field_head.inner_folds needs detection.{name}.refit_fields: true"
                    )
                if train.model.trainable != "head":
                    raise ValueError(
                        f"detection.{name}.field_head.inner_folds needs train.{name}.model.trainable: head; a network "
                        "whose layers are trained knows the patients that it would be tested on"
                    )
            if train.sampling.near_um > self.extract.exclusion_um:
                raise ValueError(
                    f"train.{name}.sampling.near_um: candidates farther than extract.exclusion_um are negatives"
                )
        return self

    def train_of(self, network: str) -> Train:
        """The training block of a network.

        Raises:
            InputError: params.yaml has no such block.
        """
        if network not in self.train:
            raise InputError(f"params.yaml: train has no entry {network!r}; it has {', '.join(self.train)}")
        return self.train[network]

    def weights_of(self, network: str) -> str:
        """What a network starts from."""
        return self.weights.get(network, "auto")

    def detection_of(self, network: str) -> Detection:
        """How a network detects in whole fields."""
        return self.detection.get(network, Detection())


_TRAIN_MOVED = {
    **{name: f"train.{{}}.model.{name}" for name in ("input_size", "head", "trainable")},
    **{
        name: f"train.{{}}.sampling.{name}"
        for name in (
            "rotations",
            "flips",
            "stain_jitter",
            "near_um",
            "mining",
            "samples_per_epoch",
            "positive_fraction",
        )
    },
    **{name: f"train.{{}}.optimisation.{name}" for name in ("epochs", "batch_size", "lr", "weight_decay", "patience")},
    **{name: f"detection.{{}}.{name}" for name in ("refit_fields", "views")},
    "seed": "train.{}.model.seed and train.{}.sampling.seed",
}
_EXTRACT_MOVED = {
    "scale": "extract.microns_per_pixel, the field's um per pixel divided by the scale (0.25 / 0.5 = 0.5)",
    "patch_size": "extract.patch_um, the size in px times extract.microns_per_pixel",
    "sigma": "extract.sigma_um, the px times extract.blue_ratio_microns_per_pixel",
    "peak_window": "extract.peak_window_um, the px times extract.blue_ratio_microns_per_pixel",
}


_REMOVED = {
    "calibrate_fields": "was removed: scores are calibrated by field where refit_fields is false; delete the entry",
}


def _reject_moved(content: Any) -> None:
    """Say what became of an entry that was moved or removed.

    In version 0.1 blocks were flat and lengths were in pixels.

    Raises:
        ValueError: there is one.
    """
    if not isinstance(content, dict):
        return
    extract, train, detection = (content.get(block) for block in ("extract", "train", "detection"))
    for name in extract if isinstance(extract, dict) else ():
        if name in _EXTRACT_MOVED:
            raise ValueError(f"extract.{name} is now {_EXTRACT_MOVED[name]}")
    for kind, blocks in (("train", train), ("detection", detection)):
        for network, block in blocks.items() if isinstance(blocks, dict) else ():
            for name in block if isinstance(block, dict) else ():
                if name in _REMOVED:
                    raise ValueError(f"{kind}.{network}.{name} {_REMOVED[name]}")
                if kind == "train" and name in _TRAIN_MOVED:
                    raise ValueError(f"train.{network}.{name} is now {_TRAIN_MOVED[name].replace('{}', str(network))}")


class _Loader(yaml.SafeLoader):
    """YAML in which names are text and stand once, nothing contains itself, and 1e-4 is a number, as DVC reads it."""

    def compose_node(self, parent: Any, index: Any) -> yaml.Node | None:
        """Called by PyYAML, for which a list may be one of its own values.

        Raises:
            ValueError: an alias stands inside of what it repeats.
        """
        node: yaml.Node | None = super().compose_node(parent, index)
        if node and node.end_mark is None:  # it is still being read
            raise ValueError(
                f"the anchor in line {node.start_mark.line + 1} contains itself; write out what it repeats"
            )
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Called by PyYAML, which takes the last of two equal entries, and names that are no text.

        Raises:
            ValueError: an entry stands twice, or its name is no text.
        """
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key, _ in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode) and key.tag.rpartition(":")[2] not in ("str", "merge"):
                raise ValueError(f"the name {name} in line {line} is no text in YAML; quote it: {json.dumps(name)}")
            if name in lines:
                raise ValueError(f"{name} stands twice, in lines {lines[name]} and {line}; remove one of them")
            lines[name] = line
        return node


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def _number(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    """Return 20.0 as 20, which is right for both kinds of numbers."""
    value = loader.construct_yaml_float(node)
    return int(value) if value.is_integer() else value


_Loader.add_constructor("tag:yaml.org,2002:float", _number)


def read_params(path: Path = Path("params.yaml")) -> Params:
    """Read and check params.yaml.

    Raises:
        InputError: the file is missing, no YAML, or an entry stands twice, is unknown, moved, removed, of the wrong
            type or out of range, or its name is no text; the line names the first such entry.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
        _reject_moved(content)
        # Strict: `no` is a boolean in YAML, and no 0. As JSON, in which lists may be tuples and 1 may be a float.
        return Params.model_validate_json(json.dumps(content, default=str), strict=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); run this in the project's folder") from error
    except (yaml.YAMLError, UnicodeDecodeError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: is not valid YAML ({' '.join(str(error).split())})") from error
    except ValidationError as error:
        raise InputError(f"{path}: {first_problem(error, Params)}") from error
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error
