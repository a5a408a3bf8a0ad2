"""params.yaml as typed, validated objects: one block per stage, one model per block."""

from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from mitoscope.errors import InputError

Angle = Annotated[float, Field(ge=0, lt=360)]
POOLED_NETWORKS = ("alexnet", "densenet161")  # whose levels learning.networks knows


class Block(BaseModel):
    """What all blocks share: every entry is in the file (no hidden defaults) and none is unknown."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Split(Block):
    """Which patients test, which validate, which train."""

    folds: int = Field(ge=3, description="number of folds; as many as patients = leave one patient out")
    fold: int = Field(ge=0, description="the fold that tests; the next one validates, the others train")
    seed: int = Field(ge=0)


class Extract(Block):
    """How fields become patches."""

    stain: Literal["none", "macenko", "reinhard"] = Field(description="stain normalisation of the whole field")
    scale: float = Field(gt=0, le=1, description="fields are reduced to this size first; 0.5 is about 0.5 um/px")
    patch_size: int = Field(ge=16, description="side of a patch, px after scaling")
    sigma: float = Field(gt=0, description="smoothing of the blue-ratio image, px at half resolution")
    peak_window: int = Field(ge=3, description="a candidate is the maximum of this many px at half resolution, odd")
    candidates_per_mm2: float = Field(gt=0, description="the strongest are kept; 1500 are 400 in a 0.26 mm2 field")
    exclusion_um: float = Field(ge=0, description="a candidate this close to a mitosis is no negative")

    @field_validator("peak_window")
    @classmethod
    def _is_odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError("must be odd")
        return value


class Rotations(Block):
    """Angles in degrees; each (patch, angle) pair is one training sample."""

    positive: tuple[Angle, ...] = Field(min_length=1)
    negative: tuple[Angle, ...] = Field(min_length=1)


class Mining(Block):
    """Hard negatives: later epochs draw those that the network takes for mitoses."""

    start_epoch: int = Field(ge=1, description="the epochs up to this one draw negatives evenly")
    every: int = Field(ge=0, description="score the negatives anew after so many epochs; 0 turns mining off")
    lr_factor: float = Field(gt=0, le=1, description="the mined epochs' learning rate peaks at this share of lr")


# Entries of a `train` block that say how whole fields are scored: thresholds depend on them, the weights do not.
FIELD_SETTINGS = frozenset({"refit_fields", "views", "calibrate_fields"})


class Train(Block):
    """How one network is trained."""

    input_size: int = Field(ge=32, description="the network resizes its patches to this side, px")
    head: Literal["classifier", "pooled"] = Field(
        description="classifier = torchvision's own; pooled = a linear layer over the features of every level"
    )
    trainable: Literal["all", "head"]
    rotations: Rotations
    flips: bool
    stain_jitter: float = Field(ge=0, lt=1, description="0.2 varies each stain by up to 20 %; 0 is off")
    near_um: float = Field(ge=0, description="candidates this close to a mitosis are positives too; 0 is off")
    mining: Mining
    epochs: int = Field(ge=1)
    samples_per_epoch: int = Field(ge=2)
    positive_fraction: float = Field(gt=0, lt=1, description="share of mitoses among an epoch's samples")
    batch_size: int = Field(ge=2)
    lr: float = Field(gt=0, description="peak of the one-cycle schedule")
    weight_decay: float = Field(ge=0)
    patience: int = Field(ge=1, description="stop after so many epochs, plain or mined, without a better F1")
    refit_fields: bool = Field(
        description="score whole fields by a logistic regression over the pooled features, standardised by field"
    )
    views: Literal[1, 2, 4, 8, 16] = Field(description="of each candidate in whole fields: test-time augmentation")
    calibrate_fields: bool = Field(description="bring each field's scores to the spread of the validation fields")
    seed: int = Field(ge=0)

    @model_validator(mode="after")
    def _mining_begins(self) -> Self:
        if self.mining.every and self.mining.start_epoch >= self.epochs:
            raise ValueError("mining.start_epoch must come before the last epoch (mining.every: 0 turns mining off)")
        return self

    @model_validator(mode="after")
    def _refit_has_features(self) -> Self:
        if self.refit_fields and self.head != "pooled":
            raise ValueError("refit_fields needs head: pooled")
        return self


class RotationChoices(Block):
    """The lists of angles among which a search chooses, for each class."""

    positive: tuple[Annotated[tuple[Angle, ...], Field(min_length=1)], ...] = Field(min_length=1)
    negative: tuple[Annotated[tuple[Angle, ...], Field(min_length=1)], ...] = Field(min_length=1)


class Search(Block):
    """Which settings are tried before a training, and how."""

    trials: int = Field(ge=0, description="finished ones (pruned ones too) per network; 0 turns the search off")
    startup_trials: int = Field(ge=1, description="so many draw at random and are not pruned")
    epochs: int = Field(ge=1, description="of a trial")
    samples_per_epoch: int = Field(ge=2, description="of a trial")
    lr: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = Field(
        description="lowest and highest; drawn on a logarithmic scale"
    )
    rotations: RotationChoices
    storage: str = Field(min_length=1, description="an Optuna URL; MITOSCOPE_SEARCH_STORAGE takes its place")
    seed: int = Field(ge=0)

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


class Evaluate(Block):
    """How the test patients are scored."""

    bootstrap: int = Field(ge=100, description="resamples of the patients behind each 95 % interval")
    seed: int = Field(ge=0)


class Promote(Block):
    """The gate before the alias `champion`."""

    min_recall: float = Field(ge=0, le=1, description="in the test patients' whole fields")
    min_f1: float = Field(ge=0, le=1, description="likewise")
    max_drop: float = Field(ge=0, le=1, description="how far F1 may lie below the champion's on the same fields")


class Params(Block):
    """The whole of params.yaml."""

    launch: str
    split: Split
    extract: Extract
    weights: dict[str, str]
    train: dict[str, Train]
    search: Search
    evaluate: Evaluate
    promote: Promote

    @model_validator(mode="after")
    def _head_fits(self) -> Self:
        for arch, block in self.train.items():
            if block.head == "pooled" and arch not in POOLED_NETWORKS:
                raise ValueError(f"train.{arch}.head: pooled is for {' and '.join(POOLED_NETWORKS)}; use classifier")
        return self

    @model_validator(mode="after")
    def _near_is_no_negative(self) -> Self:
        for arch, block in self.train.items():
            if block.near_um > self.extract.exclusion_um:
                raise ValueError(f"train.{arch}.near_um: candidates farther than extract.exclusion_um are negatives")
        return self

    def for_network(self, arch: str) -> tuple[Train, str]:
        """The training block and the start weights of network `arch`.

        Raises:
            InputError: params.yaml has no such block.
        """
        for name, block in (("train", self.train), ("weights", self.weights)):
            if arch not in block:
                raise InputError(f"params.yaml: {name} has no entry {arch!r}; it has {', '.join(block)}")
        return self.train[arch], self.weights[arch]


def read_params(path: Path = Path("params.yaml")) -> Params:
    """Read and check params.yaml.

    Raises:
        InputError: the file is missing, no YAML, or an entry is missing, unknown or out of range; the line names
            the first such entry.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); run this in the project's folder") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: is not valid YAML ({' '.join(str(error).split())})") from error
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        raise InputError(f"{path}: {first_line(error)}") from error


def first_line(error: ValidationError) -> str:
    """What is wrong with settings in one line: the place of the first wrong entry, and why."""
    # A misspelt entry is unknown and another one missing: the unknown one is what to look at.
    errors = sorted(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
    first, more = errors[0], len(errors) - 1
    place = ".".join(str(part) for part in first["loc"])
    rest = f" (and {more} more)" if more else ""
    message = first["msg"].removeprefix("Value error, ")
    return ": ".join(filter(None, (place, message))) + rest
