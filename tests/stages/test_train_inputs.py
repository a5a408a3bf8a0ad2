"""What a training depends on is named by its fingerprint, and what cannot be trained ends with one line."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

from mitoscope.errors import InputError
from mitoscope.learning import checkpoints
from mitoscope.paths import SPLIT
from mitoscope.stages.train import train
from mitoscope.stages.train_inputs import make_recipe, read_inputs, start_network
from tests.conftest import NETWORK, tiny_params, write_params

START = Path("models", NETWORK, "start.pt")


def set_training(**entries: object) -> None:
    params = tiny_params()
    params["train"][NETWORK] |= entries
    write_params(params)


def other_start_weights() -> None:
    state = checkpoints.load(START)
    checkpoints.save(START, {name: tensor + 1 for name, tensor in state.items()})


def other_patches() -> None:
    summary = Path("patches/summary.json")
    summary.write_text(json.dumps(json.loads(summary.read_text()) | {"digest": "0" * 64}))


def other_split() -> None:
    SPLIT.write_text(SPLIT.read_text() + "\n")


@pytest.mark.parametrize(
    "change",
    [
        lambda: set_training(lr=0.002),
        lambda: set_training(views=4),  # the thresholds depend on it
        other_start_weights,
        other_patches,
        other_split,
    ],
    ids=["a setting", "views", "start weights", "patches", "split"],
)
def test_the_fingerprint_names_what_the_training_depends_on(ready, change: Callable[[], None]):
    before = read_inputs(NETWORK)
    change()
    after = read_inputs(NETWORK)
    assert after.fingerprint != before.fingerprint and after.work != before.work


def test_the_fingerprint_names_nothing_else(ready):
    before = read_inputs(NETWORK).fingerprint
    params = tiny_params()
    params["evaluate"]["bootstrap"] = 500
    write_params(params)
    assert read_inputs(NETWORK).fingerprint == before


def test_found_settings_take_the_place_of_the_blocks(ready):
    inputs = read_inputs(NETWORK, {"lr": 0.05, "rotations": {"positive": [0], "negative": [90]}})
    recipe = make_recipe(inputs.block)
    assert (recipe.lr, recipe.rotations.positive, recipe.rotations.negative) == (0.05, (0,), (90,))
    assert recipe.weight_decay == tiny_params()["train"][NETWORK]["weight_decay"]
    with pytest.raises(InputError, match=rf"{NETWORK}\.json: settings\.lr: Input should be greater than 0; run `dvc"):
        read_inputs(NETWORK, {"lr": -1})


def test_a_network_starts_from_its_start_weights(ready):
    network = start_network(read_inputs(NETWORK))
    start = checkpoints.load(START)
    assert all(torch.equal(tensor, start[name]) for name, tensor in network.network.state_dict().items())


def test_another_networks_start_weights_are_refused(ready):
    checkpoints.save(START, {"foreign.weight": torch.zeros(1)})
    with pytest.raises(
        InputError, match=rf"start\.pt: the weights do not fit .*; run `dvc repro -f weights@{NETWORK}`"
    ):
        start_network(read_inputs(NETWORK))


def test_start_weights_must_be_there(extracted):
    with pytest.raises(InputError, match=rf"start\.pt: no such file; run `dvc repro weights@{NETWORK}` first"):
        train(NETWORK)


def test_every_process_needs_two_patches_of_a_batch(ready, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "5")  # of a batch of 8
    with pytest.raises(InputError, match=rf"train\.{NETWORK}\.batch_size: shared by the processes it leaves fewer"):
        train(NETWORK)


def test_validation_needs_mitoses(ready):
    split = pd.read_csv(SPLIT, dtype={"patient": str})
    index = pd.read_csv("patches/index.csv", dtype={"patient": str, "field": str})
    validated = split.patient[split.subset == "validation"]
    index.loc[index.patient.isin(validated) & (index.label == 1), "edge"] = True
    index.to_csv("patches/index.csv", index=False)
    with pytest.raises(InputError, match="the validation patients lack mitoses or negatives"):
        train(NETWORK)
