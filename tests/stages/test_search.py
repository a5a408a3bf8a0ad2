import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import optuna
import pandas as pd
import pytest
from mlflow.entities import Run

from mitoscope.errors import InputError
from mitoscope.stages.search import search
from mitoscope.stages.train import train
from mitoscope.stages.weights import weights
from mitoscope.tracking import studies as search_study
from tests.conftest import NETWORK, tiny_params, write_params

RESULT, TRIALS, PICTURES = (Path("results/search", name) for name in (f"{NETWORK}.json", f"{NETWORK}.csv", NETWORK))


def set_search(**settings):
    """Write params.yaml with these entries of the search block; the start weights are made where they are missing."""
    params = tiny_params()
    params["search"] |= settings
    write_params(params)
    if not Path("models", NETWORK, "start.pt").exists():
        weights(NETWORK)


def study_runs() -> tuple[Run, list[Run]]:
    """The run of the latest study, and those of its trials, the first one first."""
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("mitoscope search").experiment_id
    parent = client.search_runs([experiment], "tags.study != ''", order_by=["attributes.start_time DESC"])[0]
    nested = client.search_runs([experiment], f"tags.mlflow.parentRunId = '{parent.info.run_id}'")
    return parent, sorted(nested, key=lambda run: int(run.data.tags["trial"]))


def read_trials() -> pd.DataFrame:
    return pd.read_csv(TRIALS, dtype={"positive": str, "negative": str})


def angles(text: str) -> list[float]:
    return [float(angle) for angle in text.split()]


def finished_trials() -> int:
    return int(read_trials().state.isin(["complete", "pruned"]).sum())


def start() -> subprocess.Popen:
    """`mitoscope search` in a process of its own."""
    command = [Path(sys.executable).with_name("mitoscope"), "search", NETWORK]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_without_trials_nothing_is_searched_and_training_takes_the_params(extracted):
    search(NETWORK)
    assert json.loads(RESULT.read_text()) == {"settings": {}}
    assert read_trials().empty
    assert not list(PICTURES.iterdir())
    assert not Path(".work/search.db").exists()


def test_a_search_writes_its_best_trial_all_trials_and_pictures(extracted, mlflow_store):
    set_search(trials=3)
    search(NETWORK)
    trials = read_trials()
    assert finished_trials() == len(trials) == 3
    first, base = trials.iloc[0], tiny_params()["train"][NETWORK]
    assert first.lr == pytest.approx(base["lr"])  # the settings of the train block are the ones to beat
    assert angles(first.positive) == base["rotations"]["positive"]
    assert angles(first.negative) == base["rotations"]["negative"]
    assert trials.lr.between(1e-4, 1e-2).all()
    best = trials.loc[trials.validation_f1.idxmax()]
    result = json.loads(RESULT.read_text())
    assert result["trial"] == best.number
    assert result["validation_f1"] == pytest.approx(best.validation_f1)
    assert result["settings"]["lr"] == pytest.approx(best.lr)
    assert result["settings"]["rotations"]["positive"] == angles(best.positive)
    assert {path.name for path in PICTURES.iterdir()} == {"history.png", "importance.png", "parallel.png"}

    parent, nested = study_runs()
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["best/validation_f1"] == pytest.approx(result["validation_f1"])
    assert {run.info.run_id for run in nested} == set(trials.run_id)
    for run, trial in zip(nested, trials.itertuples(), strict=True):
        assert run.info.status == ("FINISHED" if trial.state == "complete" else "KILLED")
        assert run.data.tags["outcome"] == trial.state
        assert float(run.data.params["lr"]) == pytest.approx(trial.lr)
        steps = mlflow.MlflowClient().get_metric_history(run.info.run_id, "validation/best_f1")
        assert [metric.step for metric in steps] == list(range(1, trial.epochs + 1))

    train(NETWORK)
    run = mlflow.get_run(json.loads(Path(f"results/train/{NETWORK}.json").read_text())["run_id"])
    assert float(run.data.params["train.lr"]) == pytest.approx(best.lr)


def test_a_finished_search_is_not_repeated_and_a_larger_budget_goes_on(extracted, mlflow_store):
    set_search(trials=1)
    search(NETWORK)
    before = read_trials()
    search(NETWORK)
    pd.testing.assert_frame_equal(read_trials(), before)
    set_search(trials=2)
    search(NETWORK)
    after = read_trials()
    pd.testing.assert_frame_equal(after.iloc[:1], before)
    assert len(after) == 2 and after.lr[0] != after.lr[1]
    assert len(study_runs()[1]) == 2


def test_other_patches_or_another_space_begin_another_study(extracted, mlflow_store):
    set_search(trials=1)
    search(NETWORK)
    first = json.loads(RESULT.read_text())["study"]
    set_search(trials=1, lr=[1e-4, 1e-3])
    search(NETWORK)
    assert json.loads(RESULT.read_text())["study"] != first
    assert finished_trials() == 1


def test_a_pruned_trial_is_killed_not_failed_and_counts(extracted, mlflow_store, monkeypatch):
    # Prunes every trial but the first one after its first epoch.
    class AllButTheFirst(optuna.pruners.BasePruner):
        def prune(self, study, trial):
            return trial.number > 0

    monkeypatch.setattr(optuna.pruners, "MedianPruner", lambda **_: AllButTheFirst())
    set_search(trials=3)
    search(NETWORK)
    assert read_trials().state.tolist() == ["complete", "pruned", "pruned"]
    assert read_trials().epochs.tolist() == [2, 1, 1]
    _, nested = study_runs()
    assert [run.info.status for run in nested] == ["FINISHED", "KILLED", "KILLED"]
    assert [run.data.tags["outcome"] for run in nested] == ["complete", "pruned", "pruned"]


def test_trials_that_all_diverge_are_a_clear_error(extracted, mlflow_store):
    set_search(trials=2, lr=[1e30, 1e35])
    with pytest.raises(InputError, match=r"search\.lr: no trial .* lower learning rates"):
        search(NETWORK)
    assert json.loads(RESULT.read_text()) == {"settings": {}}  # as it was


def test_an_interrupted_trial_is_run_again(extracted, mlflow_store, monkeypatch):
    set_search(trials=2)

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("mitoscope.learning.loop.fit", interrupt)
        with pytest.raises(KeyboardInterrupt):
            search(NETWORK)
    search(NETWORK)
    trials = read_trials()
    assert trials.state.tolist() == ["fail", "complete", "complete"]
    assert trials.lr[0] == trials.lr[1]
    assert [run.info.status for run in study_runs()[1]] == ["KILLED", "FINISHED", "FINISHED"]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql:someone:secret@server", "MITOSCOPE_SEARCH_STORAGE: is no database's URL"),
        (
            "postgresql://someone:secret@127.0.0.1:1/none",
            "MITOSCOPE_SEARCH_STORAGE: postgresql storage cannot be opened",
        ),
    ],
)
def test_a_bad_storage_is_one_line_without_the_password(extracted, mlflow_store, monkeypatch, url, said):
    set_search(trials=1)
    monkeypatch.setenv("MITOSCOPE_SEARCH_STORAGE", url)
    with pytest.raises(InputError) as error:
        search(NETWORK)
    assert said in str(error.value) and "\n" not in str(error.value) and "secret" not in str(error.value)


@pytest.mark.slow
def test_a_killed_search_goes_on_and_tries_the_lost_trial_again(extracted, mlflow_store, monkeypatch):
    set_search(trials=3, samples_per_epoch=64, epochs=5)
    running = start()
    deadline = time.monotonic() + 240
    client = mlflow.MlflowClient()

    def trials() -> list[Run]:
        experiment = client.get_experiment_by_name("mitoscope search")
        ids = [experiment.experiment_id] if experiment else []
        return client.search_runs(ids, "tags.trial != ''", order_by=["attributes.start_time DESC"]) if ids else []

    while time.monotonic() < deadline and running.poll() is None:
        mine = [run for run in trials() if run.data.tags["outcome"] == "running" and run.data.tags["trial"] == "1"]
        if mine and "validation/best_f1" in mine[0].data.metrics:
            break
        time.sleep(0.05)
    running.send_signal(signal.SIGKILL)
    running.wait()
    (lost,) = mine
    assert Path(".work/search.db").exists()

    monkeypatch.setattr(search_study, "_GRACE", 6)
    search(NETWORK)
    table = read_trials()
    assert finished_trials() == 3
    assert table.state.tolist()[:2] == ["complete", "fail"]
    retried = table[table.number > 1]
    assert table.lr[1] in retried.lr.tolist()
    assert table.run_id[1] == lost.info.run_id
    assert client.get_run(lost.info.run_id).info.status == "KILLED"
    assert client.get_run(lost.info.run_id).data.tags["outcome"] == "lost"
    assert finished_trials() == len([run for run in study_runs()[1] if run.data.tags["outcome"] != "lost"])


def share_a_budget(trials: int) -> None:
    """Two processes at once; the trials must be exactly as many as the budget, each counted once."""
    processes = [start() for _ in range(2)]
    for process in processes:
        said, _ = process.communicate(timeout=300)
        assert process.returncode == 0, said
    assert finished_trials() == trials
    # Of two trials that begin at the same moment, one may find out after its first epoch that it is one too many.
    nested = [run for run in study_runs()[1] if run.data.tags["outcome"] != "surplus"]
    assert len(nested) == trials
    assert set(read_trials().run_id) == {run.info.run_id for run in nested}
    assert read_trials().lr.is_unique


@pytest.mark.slow
def test_two_processes_share_the_budget(extracted, mlflow_store):
    set_search(trials=5)
    share_a_budget(5)


@pytest.mark.slow
def test_two_processes_share_the_budget_on_postgresql(extracted, mlflow_store, postgresql, monkeypatch):
    set_search(trials=5)
    monkeypatch.setenv("MITOSCOPE_SEARCH_STORAGE", postgresql)
    share_a_budget(5)
    assert not Path(".work/search.db").exists()
    (study,) = optuna.get_all_study_summaries(postgresql)
    assert study.study_name == json.loads(RESULT.read_text())["study"]
