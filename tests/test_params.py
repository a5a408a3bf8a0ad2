"""params.yaml is checked as a whole, and one line names the entry that is wrong."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from mitoscope.errors import InputError
from mitoscope.params import Detection, Params, Train, read_params

REPOSITORY = Path(__file__).parents[1]
MISSING = object()
# Every entry, written out, of two networks.
WHOLE = Params.model_validate(
    {
        "train": {"small": {}, "large": {}},
        "weights": {"small": "auto", "large": "auto"},
        "detection": {"small": {}, "large": {}},
    }
).model_dump(mode="json")


def complaint(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_params(path)
    line = str(caught.value)
    assert line.startswith(f"{path}: ") and "\n" not in line
    return line.removeprefix(f"{path}: ")


def changed(entry: str, value: Any) -> dict[str, Any]:
    """The settings with another value of `entry`, a dotted path."""
    params: dict[str, Any] = copy.deepcopy(WHOLE)
    *blocks, name = entry.split(".")
    place = params
    for block in blocks:
        place = place[block]
    if value is MISSING:
        del place[name]
    else:
        place[name] = value
    return params


def written(tmp_path: Path, entry: str, value: Any) -> Path:
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(changed(entry, value)))
    return path


def test_the_repositorys_own_are_valid():
    params = read_params(REPOSITORY / "params.yaml")
    assert params.split.folds >= 3
    for network in params.train:
        assert params.train_of(network) is params.train[network]
        assert params.weights_of(network) == params.weights[network]
        assert params.detection_of(network) is params.detection[network]


@pytest.mark.parametrize("preset", sorted((REPOSITORY / "presets").iterdir()), ids=lambda path: path.stem)
def test_every_preset_can_take_the_place_of_params(preset):
    assert set(read_params(preset).train) == set(read_params(REPOSITORY / "params.yaml").train)


def test_one_entry_is_enough_for_a_network(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("train: {resnet18: {}}")
    params = read_params(path)
    assert (params.weights_of("resnet18"), params.detection_of("resnet18").views) == ("auto", 1)
    assert params.train_of("resnet18").optimisation.epochs >= 1


@pytest.mark.parametrize("block", ["weights", "detection"])
def test_settings_of_a_network_that_is_not_trained_are_named(tmp_path, block):
    path = tmp_path / "params.yaml"
    value = {"weights": "random", "detection": {}}[block]
    path.write_text(yaml.safe_dump({"train": {"resnet18": {}}, block: {"resnet50": value}}))
    assert complaint(path) == f"{block} has resnet50, but train has resnet18; the names must be the same"


@pytest.mark.parametrize("name", ["timm/resnet18", "../x", "..", "res net", "$(touch f)", "-h", ""])
def test_a_network_has_a_name_for_paths_and_commands(tmp_path, name):
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump({"train": {name: {}}}))
    assert "use letters, digits, _, - and . for its name" in complaint(path)


@pytest.mark.parametrize(
    ("entry", "value", "place"),
    [
        ("extract.scale", 0.5, "extract.microns_per_pixel"),
        ("extract.patch_size", 64, "extract.patch_um"),
        ("extract.sigma", 2.0, "extract.sigma_um"),
        ("extract.peak_window", 11, "extract.peak_window_um"),
        ("train.small.lr", 1e-4, "train.small.optimisation.lr"),
        ("train.small.rotations", {}, "train.small.sampling.rotations"),
        ("train.small.head", "pooled", "train.small.model.head"),
        ("train.small.views", 8, "detection.small.views"),
        ("train.large.seed", 1, "train.large.model.seed and train.large.sampling.seed"),
    ],
)
def test_an_entry_under_its_old_place_names_the_new_one(tmp_path, entry, value, place):
    assert complaint(written(tmp_path, entry, value)).startswith(f"{entry} is now {place}")


@pytest.mark.parametrize("block", ["train", "detection"])  # where version 0.1 and where 0.2 at first had it
def test_an_entry_that_was_removed_says_what_happens_now(tmp_path, block):
    entry = f"{block}.small.calibrate_fields"
    said = complaint(written(tmp_path, entry, False))
    assert said.startswith(f"{entry} was removed: scores are calibrated by field where refit_fields is false")


def test_what_is_left_out_and_what_has_its_default_are_the_same(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump({"train": {"resnet18": {"optimisation": {"lr": 0.01}}}}))
    short = read_params(path).train_of("resnet18")
    path.write_text(yaml.safe_dump({"train": {"resnet18": short.model_dump(mode="json")}}))
    full = read_params(path).train_of("resnet18")
    assert full == short
    assert full.chosen() == short.chosen() == {"optimisation": {"lr": 0.01}}


def test_every_entry_has_a_description():
    def check(block: type[BaseModel]) -> None:
        for name, field in block.model_fields.items():
            assert field.description, f"{block.__name__}.{name}"
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
                check(field.annotation)

    for block in (Params, Train, Detection):
        check(block)


def test_lengths_become_pixels(tmp_path):
    extract = read_params(written(tmp_path, "extract", {"microns_per_pixel": 0.25, "patch_um": 16})).extract
    assert extract.patch_size == 64
    assert "patches of 8 px are too small" in complaint(written(tmp_path, "extract", {"patch_um": 4}))


def test_what_is_near_a_mitosis_cannot_be_a_negative(tmp_path):
    path = written(tmp_path, "train.small.sampling.near_um", 8.0)
    assert "train.small.sampling.near_um: candidates farther than extract.exclusion_um are negatives" in complaint(path)


def test_a_choice_of_rotations_stands_once(tmp_path):
    path = written(tmp_path, "search.rotations.positive", [[0, 90], [0, 90]])
    assert "search.rotations: the same angles stand there twice" in complaint(path)


def test_mining_must_begin_before_the_end(tmp_path):
    path = tmp_path / "params.yaml"
    params = copy.deepcopy(WHOLE)
    block = params["train"]["small"]
    mining = block["sampling"]["mining"]
    mining |= {"start_epoch": block["optimisation"]["epochs"], "every": 1}
    path.write_text(yaml.safe_dump(params))
    assert "train.small: sampling.mining.start_epoch must come before the last epoch" in complaint(path)
    mining["every"] = 0  # off
    path.write_text(yaml.safe_dump(params))
    assert read_params(path).train["small"].sampling.mining.every == 0


def test_whole_fields_are_refitted_over_a_pooled_head_only(tmp_path):
    path = written(tmp_path, "detection.small.refit_fields", True)
    assert complaint(path) == "detection.small.refit_fields needs train.small.model.head: pooled"


@pytest.mark.parametrize(
    ("refit", "trainable", "folds", "problem"),
    [
        (False, "head", 5, "detection.small.field_head.inner_folds needs detection.small.refit_fields: true"),
        (True, "all", 5, "detection.small.field_head.inner_folds needs train.small.model.trainable: head; a network"),
        (True, "head", 1, "detection.small.field_head.inner_folds: takes 2 folds or more, or 0 for none"),
    ],
)
def test_inner_folds_are_of_a_field_head_over_a_frozen_network(tmp_path, refit, trainable, folds, problem):
    params, path = copy.deepcopy(WHOLE), tmp_path / "params.yaml"
    params["train"]["small"]["model"] |= {"head": "pooled", "trainable": trainable}
    params["detection"]["small"] |= {"refit_fields": refit, "field_head": {"inner_folds": folds}}
    path.write_text(yaml.safe_dump(params))
    assert complaint(path).startswith(problem)


def test_networks_must_be_named(tmp_path):
    assert complaint(written(tmp_path, "train", MISSING)) == "train is missing"


@pytest.mark.parametrize(
    "entry", ["learning_rate", "split.where", "train.small.optimisation.momentum", "evaluate.threshold"]
)
def test_an_unknown_entry_is_named(tmp_path, entry):
    assert complaint(written(tmp_path, entry, 1)) == f"{entry} is not an entry that mitoscope knows"


@pytest.mark.parametrize(
    ("entry", "meant"),
    [
        ("extracts", "extract"),
        ("split.fodls", "folds"),
        ("train.small.sampling.rotation", "rotations"),
        ("train.small.sampling.mining.start", "start_epoch"),
        ("detection.small.view", "views"),
    ],
)
def test_a_misspelt_entry_comes_with_the_one_that_was_meant(tmp_path, entry, meant):
    said = complaint(written(tmp_path, entry, 1))
    assert said == f"{entry} is not an entry that mitoscope knows; did you mean {meant}?"


@pytest.mark.parametrize(
    ("entry", "value", "problem"),
    [
        ("split.folds", 2, "must be 3 or more, not 2"),
        ("split.folds", 3.5, "must be a whole number, not 3.5"),
        ("split.folds", 2.0, "must be 3 or more, not 2"),
        ("split.fold", -1, "must be 0 or more, not -1"),
        ("split.seed", False, "must be a whole number, not false"),  # `no` in YAML 1.1
        ("split.seed", "0", 'must be a whole number, not "0"'),
        ("extract.microns_per_pixel", 0, "must be more than 0, not 0"),
        ("extract.microns_per_pixel", "half", 'must be a number, not "half"'),
        ("extract.patch_um", 0, "must be more than 0, not 0"),
        ("extract.candidates_per_mm2", float("inf"), "must be a finite number, not Infinity"),
        ("extract.exclusion_um", -0.1, "must be 0 or more, not -0.1"),
        ("train.small.model.head", "none", "must be 'classifier' or 'pooled', not \"none\""),
        ("train.small.model.trainable", "some", "must be 'all' or 'head', not \"some\""),
        ("train.small.sampling.flips", "maybe", 'must be true or false, not "maybe"'),
        ("detection.small.views", 16, "must be 1, 2, 4 or 8, not 16"),
        ("detection.small.views", True, 'must be 1, 2, 4 or 8, not "true"'),
        ("train.small.sampling.rotations.positive", [], "needs 1 or more values"),
        ("train.small.sampling.rotations.negative", [360, 0], "must be less than 360, not 360"),
        ("train.small.sampling.stain_jitter", 1, "must be less than 1, not 1"),
        ("train.small.sampling.positive_fraction", 0, "must be more than 0, not 0"),
        ("train.small.optimisation.lr", 0, "must be more than 0, not 0"),
        ("train.small.optimisation.lr", float("nan"), "must be a finite number, not NaN"),
        ("train.small.optimisation.lr", "1e-4 or so", 'must be a number, not "1e-4 or so"'),
        ("train.small.optimisation.lr", True, "must be a number, not true"),
        ("train.small.sampling.rotations.positive", [False, 0], "must be a number, not false"),
        ("train.small.sampling.flips", 1, "must be true or false, not 1"),
        ("train.large", None, "must be a block of entries, not null"),
        ("weights.small", None, "must be text, not null"),
        ("launch", ["mitoscope"], "must be text"),
        ("search.storage", "", "must not be empty"),
        ("search.lr", 0.1, "must be a list, not 0.1"),
        ("evaluate.bootstrap", 99, "must be 100 or more, not 99"),
    ],
)
def test_a_value_out_of_range_is_named(tmp_path, entry, value, problem):
    place, _, said = complaint(written(tmp_path, entry, value)).partition(" ")
    assert place.removesuffix(".0") == entry and said == problem


@pytest.mark.parametrize(
    ("entry", "value", "said"),
    [
        ("split.fold", 4, "split: there is no fold 4; with folds: 4 the last one is 3"),
        (
            "weights.small",
            "imagnet",
            'weights.small: must be auto, imagenet, random or a path such as ./start.pt, not "imagnet"',
        ),
        (
            "launch",
            "mitoscope train",
            'launch: must be a command to which DVC adds `train NETWORK`, not "mitoscope train"',
        ),
        ("launch", "train", 'launch: must be a command to which DVC adds `train NETWORK`, not "train"'),
        ("launch", " ", 'launch: must be a command to which DVC adds `train NETWORK`, not " "'),
        (
            "search.storage",
            "postgresql:me:secret@host",  # without the password
            "search.storage: is not a database URL such as sqlite:///.work/search.db or postgresql://USER@SERVER/NAME",
        ),
    ],
)
def test_a_value_that_no_stage_could_use_is_named(tmp_path, entry, value, said):
    assert complaint(written(tmp_path, entry, value)) == said


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("weights.small", "start.pt"),
        ("weights.small", "weights/start"),
        ("launch", ".venv/bin/mitoscope"),
        ("launch", "torchrun --standalone --nproc-per-node=4 --no-python mitoscope"),
        ("launch", "./train.sh"),
        ("launch", "srun --gpus=4 slurm/train"),
        ("search.storage", "postgresql+psycopg2://me:secret@host/db"),
        ("split.fold", 3),
    ],
)
def test_a_value_that_a_stage_can_use_is_taken(tmp_path, entry, value):
    read_params(written(tmp_path, entry, value))


@pytest.mark.parametrize("rate", ["1e-4", "1.0e-4", "0.0001", ".1e-3", "1E-04"])
def test_a_number_may_be_written_in_any_way(tmp_path, rate):
    path = tmp_path / "params.yaml"
    path.write_text(f"train: {{resnet18: {{optimisation: {{lr: {rate}, weight_decay: 1}}}}}}")
    optimisation = read_params(path).train["resnet18"].optimisation
    assert (optimisation.lr, optimisation.weight_decay) == (1e-4, 1.0)


def test_a_whole_number_may_have_a_point(tmp_path):
    read = read_params(written(tmp_path, "train.small.optimisation.epochs", 20.0)).train["small"].optimisation.epochs
    assert (read, type(read)) == (20, int)


@pytest.mark.parametrize("name", ["no", "1e3", "1.0", "18", "2020-01-01", "null"])
def test_a_name_that_is_no_text_is_to_be_quoted(tmp_path, name):
    path = tmp_path / "params.yaml"
    path.write_text(f"split: {{}}\ntrain: {{{name}: {{}}}}\n")
    assert complaint(path) == f'the name {name} in line 2 is no text in YAML; quote it: "{name}"'
    path.write_text(f'train: {{"{name}": {{}}}}\n')
    assert list(read_params(path).train) == [name]


def test_anchors_may_repeat_a_block_but_not_contain_themselves(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("train:\n  vgg11: &same\n    sampling: {seed: 3}\n  vgg13: *same\n  vgg16: {<<: *same}\n")
    assert [train.sampling.seed for train in read_params(path).train.values()] == [3, 3, 3]
    for value in ("&same [*same]", "&same {model: *same}", "&same {<<: *same}"):
        path.write_text(f"train:\n  vgg11: {value}\n")
        assert complaint(path) == "the anchor in line 2 contains itself; write out what it repeats"


def test_an_entry_that_stands_twice_is_named_with_both_lines(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("split:\n  fold: 1\n  seed: 0\n  fold: 2\ntrain: {resnet18: {}}\n")
    assert complaint(path) == "fold stands twice, in lines 2 and 4; remove one of them"
    path.write_text("train: {resnet18: {}, resnet18: {}}")
    assert complaint(path) == "resnet18 stands twice, in lines 1 and 1; remove one of them"


def test_the_limits_themselves_are_in_range(tmp_path):
    path = written(tmp_path, "train.small.sampling.rotations", {"positive": [0], "negative": [359.9, 22.5]})
    assert read_params(path).train["small"].sampling.rotations.negative == (359.9, 22.5)


def test_the_others_are_counted(tmp_path):
    line = complaint(written(tmp_path, "split", {"folds": 2, "fold": -1, "seed": 0, "more": 1}))
    assert line.startswith("split.more is not an entry") and line.endswith("(and 2 more)")


@pytest.mark.parametrize(
    "text",
    ["split: {folds: 4", "a: b: c", "\tsplit: 1", "a: !!python/object:os.system {}", "? [a]\n: b", "[" * 1000],
    ids=lambda text: text[:20],
)
def test_broken_yaml_is_said_in_one_line(tmp_path, text):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    assert complaint(path).startswith("is not valid YAML (")


def test_a_binary_file_is_no_yaml(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_bytes(bytes(range(128, 256)))
    assert complaint(path).startswith("is not valid YAML (")


@pytest.mark.parametrize("text", ["", "3", "- split"])
def test_yaml_that_holds_no_settings(tmp_path, text):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    assert complaint(path).startswith("must be a block of entries")


def test_a_missing_file_says_where_to_run(tmp_path):
    assert complaint(tmp_path / "params.yaml").endswith("(No such file or directory); run this in the project's folder")
    assert "cannot be read" in complaint(tmp_path)


def test_a_network_without_block_is_named(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("train: {resnet18: {}}")
    with pytest.raises(InputError, match=r"train has no entry 'vgg11'; it has resnet18"):
        read_params(path).train_of("vgg11")
