"""params.yaml is checked as a whole, and one line names the entry that is wrong."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from mitoscope.errors import InputError
from mitoscope.params import read_params

REPOSITORY = Path(__file__).parents[1]
MISSING = object()


def complaint(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_params(path)
    line = str(caught.value)
    assert line.startswith(f"{path}: ") and "\n" not in line
    return line.removeprefix(f"{path}: ")


def changed(entry: str, value: Any) -> dict[str, Any]:
    """The repository's settings with another value of `entry`, a dotted path."""
    params: dict[str, Any] = yaml.safe_load((REPOSITORY / "params.yaml").read_text())
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
    assert set(params.train) == set(params.weights) == {"alexnet", "densenet161"}
    block, weights = params.for_network("alexnet")
    assert block is params.train["alexnet"] and weights == params.weights["alexnet"]


ENTRIES = [
    *("launch", "split.folds", "split.fold", "split.seed", "extract.scale", "extract.exclusion_um", "weights"),
    *("train.alexnet.lr", "train.alexnet.rotations.negative", "train.densenet161.flips", "evaluate.bootstrap"),
]


@pytest.mark.parametrize("preset", sorted((REPOSITORY / "presets").iterdir()), ids=lambda path: path.stem)
def test_every_preset_can_take_the_place_of_params(preset):
    assert set(read_params(preset).train) == set(read_params(REPOSITORY / "params.yaml").train)


def test_a_pooled_head_is_for_networks_whose_levels_are_known(tmp_path):
    blocks = yaml.safe_load(Path("params.yaml").read_text())
    for section in ("train", "weights"):
        blocks[section]["resnet18"] = blocks[section]["alexnet"]
    blocks["train"]["resnet18"]["head"] = "pooled"
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(blocks))
    assert "train.resnet18.head: pooled is for alexnet and densenet161; use classifier" in complaint(path)


def test_what_is_near_a_mitosis_cannot_be_a_negative(tmp_path):
    path = written(tmp_path, "train.alexnet.near_um", 8.0)
    assert "train.alexnet.near_um: candidates farther than extract.exclusion_um are negatives" in complaint(path)


def test_a_choice_of_rotations_stands_once(tmp_path):
    path = written(tmp_path, "search.rotations.positive", [[0, 90], [0, 90]])
    assert "search.rotations: the same angles stand there twice" in complaint(path)


def test_mining_must_begin_before_the_end(tmp_path):
    path = tmp_path / "params.yaml"
    params = yaml.safe_load((REPOSITORY / "params.yaml").read_text())
    block = params["train"]["alexnet"]
    block["mining"] |= {"start_epoch": block["epochs"], "every": 1}
    path.write_text(yaml.safe_dump(params))
    assert "train.alexnet: mining.start_epoch must come before the last epoch" in complaint(path)
    block["mining"]["every"] = 0  # off
    path.write_text(yaml.safe_dump(params))
    assert read_params(path).train["alexnet"].mining.every == 0


def test_whole_fields_are_refitted_over_a_pooled_head_only(tmp_path):
    path = written(tmp_path, "train.alexnet.refit_fields", True)
    assert complaint(path) == "train.alexnet: refit_fields needs head: pooled"


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_missing_entry_is_named(tmp_path, entry):
    assert complaint(written(tmp_path, entry, MISSING)) == f"{entry}: Field required"


@pytest.mark.parametrize("entry", ["learning_rate", "split.folder", "train.alexnet.momentum", "evaluate.threshold"])
def test_an_unknown_entry_is_named(tmp_path, entry):
    assert complaint(written(tmp_path, entry, 1)) == f"{entry}: Extra inputs are not permitted"


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("split.folds", 2),
        ("split.folds", 3.5),
        ("split.fold", -1),
        ("extract.scale", 0),
        ("extract.scale", 1.01),
        ("extract.scale", "half"),
        ("extract.patch_size", 15),
        ("extract.candidates_per_mm2", float("inf")),
        ("extract.exclusion_um", -0.1),
        ("train.alexnet.head", "none"),
        ("train.alexnet.trainable", "some"),
        ("train.alexnet.views", 3),
        ("train.alexnet.rotations.positive", []),
        ("train.alexnet.rotations.negative.0", 360),
        ("train.alexnet.stain_jitter", 1),
        ("train.alexnet.positive_fraction", 0),
        ("train.alexnet.lr", 0),
        ("train.alexnet.lr", float("nan")),
        ("train.alexnet.lr", float("inf")),
        ("train.alexnet.lr", "1e-4 or so"),
        ("train.densenet161", None),
        ("weights.alexnet", None),
        ("evaluate.bootstrap", 99),
    ],
)
def test_a_value_out_of_range_is_named(tmp_path, entry, value):
    if entry.endswith(".0"):
        path = written(tmp_path, entry.removesuffix(".0"), [value])
    else:
        path = written(tmp_path, entry, value)
    assert complaint(path).startswith(f"{entry}: Input should be ") or complaint(path).startswith(f"{entry}: Tuple ")


def test_the_limits_themselves_are_in_range(tmp_path):
    assert read_params(written(tmp_path, "extract.scale", 1)).extract.scale == 1
    path = written(tmp_path, "train.alexnet.rotations", {"positive": [0], "negative": [359.9, 22.5]})
    assert read_params(path).train["alexnet"].rotations.negative == (359.9, 22.5)


def test_the_others_are_counted(tmp_path):
    line = complaint(written(tmp_path, "split", {"folds": 2, "fold": -1, "seed": 0, "more": 1}))
    assert line.startswith("split.more: ") and line.endswith("(and 2 more)")


@pytest.mark.parametrize("text", ["split: {folds: 4", "a: b: c", "\tsplit: 1", "a: !!python/object:os.system {}"])
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
    assert complaint(path).startswith("Input should be ")


def test_a_missing_file_says_where_to_run(tmp_path):
    assert complaint(tmp_path / "params.yaml").endswith("(No such file or directory); run this in the project's folder")
    assert "cannot be read" in complaint(tmp_path)


def test_a_network_without_block_is_named():
    params = read_params(REPOSITORY / "params.yaml")
    with pytest.raises(InputError, match=r"train has no entry 'vgg11'; it has alexnet, densenet161"):
        params.for_network("vgg11")
    only_weights = params.model_copy(update={"train": {**params.train, "vgg11": params.train["alexnet"]}})
    with pytest.raises(InputError, match="weights has no entry 'vgg11'"):
        only_weights.for_network("vgg11")
