"""What cannot be trained ends with one line. Whole trainings are in tests/pipeline."""

from pathlib import Path

import mlflow
import pytest
from filelock import FileLock

from mitoscope.errors import InputError
from mitoscope.stages.search import search
from mitoscope.stages.train import train
from mitoscope.stages.weights import weights
from tests.conftest import NETWORK, tiny_params, write_params


def test_an_input_size_that_the_network_cannot_take_begins_no_run(ready):
    params = tiny_params()
    params["weights"]["alexnet"] = "random"
    params["train"]["alexnet"] = params["train"][NETWORK] | {"input_size": 48}  # AlexNet needs 63
    write_params(params)
    weights("alexnet")
    search("alexnet")
    before = len(mlflow.search_runs(search_all_experiments=True))
    with pytest.raises(InputError, match=r"train\.alexnet\.input_size: alexnet does not work with 48 px"):
        train("alexnet")
    assert len(mlflow.search_runs(search_all_experiments=True)) == before


def test_a_diverging_training_names_the_setting(ready):
    params = tiny_params()
    params["train"][NETWORK]["lr"] = 1e30
    write_params(params)
    with pytest.raises(InputError, match=rf"train\.{NETWORK}: training diverged in epoch 1 .*; lower lr"):
        train(NETWORK)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"settings": 3}'])
def test_a_broken_result_of_a_search_is_refused(ready, content):
    Path("results/search", f"{NETWORK}.json").write_text(content)
    with pytest.raises(InputError, match=rf"{NETWORK}\.json: is no result of a search; run `dvc repro -f search@"):
        train(NETWORK)


def test_a_second_trainer_is_kept_out(ready):
    Path(".work").mkdir(exist_ok=True)
    with (
        FileLock(f".work/train-{NETWORK}.lock"),
        pytest.raises(InputError, match=f"another training of {NETWORK} is still running"),
    ):
        train(NETWORK)
