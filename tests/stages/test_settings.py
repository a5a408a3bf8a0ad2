"""What a stage depends on changes with what params.yaml means, not with how it says it."""

import json
from pathlib import Path
from typing import Any

import pytest

from mitoscope.errors import InputError
from mitoscope.params import Params
from mitoscope.stages.detector import detector
from mitoscope.stages.evaluate import evaluate
from mitoscope.stages.pool import pool
from mitoscope.stages.search import search
from mitoscope.stages.settings import settings
from mitoscope.stages.train import train
from mitoscope.stages.weights import weights
from tests.conftest import tiny_params, write_params

NETWORKS = ("resnet18", "squeezenet1_1")
SHARED_FILES = {f"{name}.json" for name in ("split", "extract", "search", "evaluate")}
FILES = SHARED_FILES | {f"{network}/{name}.json" for network in NETWORKS for name in ("start", "train", "detection")}


@pytest.fixture(autouse=True)
def empty_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def written(params: dict[str, Any]) -> dict[str, str]:
    """What the stage writes: the files' contents by their paths."""
    write_params(params)
    settings()
    folder = Path("results/settings")
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_text() for path in files}


def two_networks() -> dict[str, Any]:
    """Params of NETWORKS with settings of their own."""
    block = next(iter(tiny_params()["train"].values()))
    return {
        "train": dict.fromkeys(NETWORKS, block),
        "weights": dict.fromkeys(NETWORKS, "random"),
        "detection": {network: {"views": 2} for network in NETWORKS},
    }


def changed(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
    first, second = written(before), written(after)
    assert first.keys() == second.keys() == FILES
    return {name for name in FILES if first[name] != second[name]}


def test_an_entry_at_its_default_is_as_one_left_out():
    network = NETWORKS[0]
    left_out = written({"train": {network: {}}})
    default = Params.model_validate({"train": {network: {}}, "weights": {network: "auto"}, "detection": {network: {}}})
    assert written(default.model_dump(mode="json")) == left_out
    assert {name: json.loads(text) for name, text in left_out.items()} == {
        f"{network}/start.json": {"weights": "auto"},
        f"{network}/train.json": {},
        f"{network}/detection.json": {},
        **{name: {} for name in SHARED_FILES},
    }


def test_numbers_mean_the_same_however_they_are_written():
    params = two_networks()
    rotations = params["train"][NETWORKS[0]]["sampling"]["rotations"]
    before = written(params)
    rotations["positive"] = [float(angle) for angle in rotations["positive"]]
    assert written(params) == before


@pytest.mark.parametrize(
    ("path", "value", "files"),
    [
        ("train.optimisation.lr", 0.5, {"train"}),
        ("train.sampling.seed", 7, {"train"}),
        ("train.model.seed", 7, {"train", "start"}),
        ("train.model.backbone", "resnet34", {"train", "start"}),
        ("train.model.head", "pooled", {"train", "start"}),
        ("weights", "own.pt", {"start"}),
        ("detection.views", 4, {"detection"}),
        ("detection.calibration.prior_candidates", 10, {"detection"}),
    ],
)
def test_a_change_of_one_network_changes_only_its_files(path, value, files):
    network = NETWORKS[1]
    block, *inside = path.split(".")
    after = json.loads(json.dumps(two_networks()))
    place = after[block]
    for name in [network, *inside][:-1]:
        place = place.setdefault(name, {})
    place[[network, *inside][-1]] = value
    assert changed(two_networks(), after) == {f"{network}/{name}.json" for name in files}


@pytest.mark.parametrize(
    ("block", "content", "files"),
    [
        ("split", {"folds": 9}, {"split.json"}),
        ("extract", {"patch_um": 20}, {"extract.json"}),
        ("search", {"trials": 3}, {"search.json"}),
        ("evaluate", {"bootstrap": 200}, {"evaluate.json"}),
        ("promote", {"min_f1": 0.6}, set()),
        ("launch", "torchrun mitoscope", set()),
    ],
)
def test_a_block_that_all_networks_share_has_a_file_of_its_own(block, content, files):
    assert changed(two_networks(), two_networks() | {block: content}) == files


def test_a_network_that_is_gone_leaves_no_files():
    written(two_networks())
    params = {block: {NETWORKS[0]: entries[NETWORKS[0]]} for block, entries in two_networks().items()}
    assert {name.split("/")[0] for name in set(written(params)) - SHARED_FILES} == {NETWORKS[0]}


def test_bad_params_leave_the_old_files():
    before = written(two_networks())
    write_params(
        two_networks() | {"train": {NETWORKS[0]: {"optimisation": {"lr": -1}}}, "weights": {}, "detection": {}}
    )
    with pytest.raises(InputError, match=rf"params\.yaml: train\.{NETWORKS[0]}\.optimisation\.lr must be"):
        settings()
    assert written(two_networks()) == before


@pytest.mark.parametrize("stage", [weights, search, train, detector, evaluate, pool])
def test_every_stage_of_a_network_says_that_there_is_no_such_network(stage):
    write_params(two_networks())
    with pytest.raises(InputError, match=r"params\.yaml: train has no entry 'resnet'; it has resnet18, squeezenet1_1"):
        stage("resnet")
