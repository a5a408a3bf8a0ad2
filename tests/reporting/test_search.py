"""The table and the pictures show the given trials, whatever else the study contains."""

from datetime import datetime, timedelta

import optuna
import pandas as pd
import pytest
from matplotlib.figure import Figure
from optuna.trial import FrozenTrial, TrialState

from mitoscope.reporting.search import tabulate, write_outputs
from tests.results import read

STARTED = datetime(2026, 1, 1)


def trial(number: int, value: float | None, state: TrialState = TrialState.COMPLETE) -> FrozenTrial:
    made = optuna.trial.create_trial(
        state=state,
        value=value,
        params={"lr": 0.001 * (number + 1), "positive": "0 45", "negative": "0"},
        distributions={
            "lr": optuna.distributions.FloatDistribution(1e-4, 1e-1, log=True),
            "positive": optuna.distributions.CategoricalDistribution(["0", "0 45"]),
            "negative": optuna.distributions.CategoricalDistribution(["0"]),
        },
        intermediate_values={1: 0.1, 2: 0.2},
        user_attrs={"run_id": f"run {number}"},
    )
    made.number, made.datetime_start, made.datetime_complete = number, STARTED, STARTED + timedelta(seconds=2.04)
    return made


def test_a_row_per_trial_with_the_network():
    row, failed = tabulate("small", [trial(0, 0.5), trial(3, None, TrialState.FAIL)]).to_dict("records")
    assert row == {
        "network": "small",
        "number": 0,
        "state": "complete",
        "validation_f1": 0.5,
        "lr": 0.001,
        "positive": "0 45",
        "negative": "0",
        "epochs": 2,
        "seconds": 2.0,
        "run_id": "run 0",
    }
    assert failed["state"] == "fail" and pd.isna(failed["validation_f1"])


@pytest.mark.slow
def test_the_files_of_a_search(tmp_path):
    trials = [trial(2, 0.4), trial(0, 0.5), trial(1, None, TrialState.PRUNED), trial(3, None, TrialState.FAIL)]
    files = write_outputs(tmp_path, "small", {"settings": {}}, trials, title="search, synthetic data")
    assert [path.relative_to(tmp_path).as_posix() for path in files] == [
        "small.csv",
        "small/history.png",
        "small/importance.png",
        "small/parallel.png",
    ]
    assert pd.read_csv(tmp_path / "small.csv").number.tolist() == [0, 1, 2, 3]
    assert read(tmp_path / "small.json") == {"settings": {}}

    files = write_outputs(tmp_path, "small", {"settings": {}}, trials[:1])
    assert [path.name for path in files] == ["small.csv", "history.png"]  # one trial has no importance


def test_every_picture_has_one_title(tmp_path, monkeypatch):
    titles = []
    monkeypatch.setattr(
        Figure,
        "savefig",
        lambda self, *_, **__: titles.append(
            "".join(self.axes[0].get_title(loc) for loc in ("left", "center", "right"))
        ),
    )
    write_outputs(tmp_path, "small", {"settings": {}}, [trial(0, 0.4), trial(1, 0.5)], title="search, synthetic data")
    assert titles == ["search, synthetic data"] * 3


@pytest.mark.parametrize("trials", [(), []])
def test_a_search_that_is_off_leaves_an_empty_table_and_folder(tmp_path, trials):
    assert write_outputs(tmp_path, "small", {"settings": {}}, trials) == [tmp_path / "small.csv"]
    assert (tmp_path / "small").is_dir() and "network" in pd.read_csv(tmp_path / "small.csv")
