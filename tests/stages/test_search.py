"""A search leaves its best trial, goes on where it was, and stops at its budget."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
import optuna
import pandas as pd
import pytest
from mlflow.entities import Run

from mitoscope.errors import InputError
from mitoscope.params import Train
from mitoscope.paths import Outputs
from mitoscope.stages.search import search
from mitoscope.stages.split import split
from mitoscope.stages.train.inputs import read_inputs
from mitoscope.tracking import studies
from tests.conftest import NETWORK, tiny_params, write_params
from tests.stages.conftest import in_project

pytestmark = [
    pytest.mark.slow,
    # Of Optuna's picture, where two trials this small reach the same F1.
    pytest.mark.filterwarnings("ignore:Attempting to set identical low and high ylims:UserWarning"),
]

OUTPUTS = Outputs(NETWORK)
RESULT, TRIALS, PICTURES = (OUTPUTS.searched / name for name in (f"{NETWORK}.json", f"{NETWORK}.csv", NETWORK))


def set_search(**settings: Any) -> None:
    """Write params.yaml with these entries of the search block."""
    params = tiny_params()
    params["search"] |= {"epochs": 1} | settings
    write_params(params)


@pytest.fixture(scope="module")
def _searched(_ready: Path, _store_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("searched")
    shutil.copytree(_ready, folder, dirs_exist_ok=True)
    with in_project(folder, _store_folder):
        set_search(trials=2)
        search(NETWORK)
    return folder


@pytest.fixture
def searched(_searched: Path, mlflow_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: the small project after a search of two trials."""
    shutil.copytree(_searched, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def open_study() -> optuna.Study:
    """The study that the result comes from."""
    storage = os.environ.get("MITOSCOPE_SEARCH_STORAGE", "sqlite:///.work/search.db")
    return optuna.load_study(study_name=read_result()["study"], storage=storage)


def study_runs() -> tuple[Run, list[Run]]:
    """The run of the study, and those of its trials, the first one first; copies of a project share them."""
    client = mlflow.MlflowClient()
    parent = client.get_run(open_study().user_attrs["run_id"])
    nested = client.search_runs([parent.info.experiment_id], f"tags.mlflow.parentRunId = '{parent.info.run_id}'")
    return parent, sorted(nested, key=lambda run: int(run.data.tags["trial"]))


def read_result() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(RESULT.read_text())
    return content


def read_trials() -> pd.DataFrame:
    return pd.read_csv(TRIALS, dtype={"positive": str, "negative": str})


def angles(text: str) -> list[float]:
    return [float(angle) for angle in text.split()]


def finished_trials() -> int:
    return int(read_trials().state.isin(["complete", "pruned"]).sum())


def written() -> dict[str, bytes]:
    paths = (path for path in OUTPUTS.searched.rglob("*") if path.is_file())
    return {path.as_posix(): path.read_bytes() for path in paths}


def start(programs: Path) -> "subprocess.Popen[str]":
    """`mitoscope search` in a process of its own."""
    command = [programs / "mitoscope", "search", NETWORK]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@contextmanager
def interrupted() -> Iterator[None]:
    """Ctrl-C at the start of a trial's training."""

    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("mitoscope.learning.loop.fit", interrupt)
        yield


def test_without_trials_nothing_is_searched(extracted):
    search(NETWORK)
    assert json.loads(RESULT.read_text()) == {"settings": {}}
    assert read_trials().empty
    assert not list(PICTURES.iterdir())
    assert not Path(".work/search.db").exists()


def test_a_search_writes_its_best_trial_all_trials_and_pictures(searched):
    trials, result = read_trials(), read_result()
    assert finished_trials() == len(trials) == 2 and set(trials.network) == {NETWORK}
    first, base = trials.iloc[0], tiny_params()["train"][NETWORK]
    assert first.lr == pytest.approx(base["optimisation"]["lr"])  # the settings of the train block are the ones to beat
    assert angles(first.positive) == base["sampling"]["rotations"]["positive"]
    assert angles(first.negative) == base["sampling"]["rotations"]["negative"]
    assert trials.lr.between(1e-4, 1e-2).all() and trials.lr.is_unique
    best = trials.loc[trials.validation_f1.idxmax()]
    assert result["trial"] == best.number and result["validation_f1"] == pytest.approx(best.validation_f1)
    assert result["settings"] == {
        "optimisation": {"lr": pytest.approx(best.lr)},
        "sampling": {"rotations": {"positive": angles(best.positive), "negative": angles(best.negative)}},
    }
    assert read_inputs(OUTPUTS, result["settings"]).settings.optimisation.lr == pytest.approx(best.lr)
    assert {path.name for path in PICTURES.iterdir()} == {"history.png", "importance.png", "parallel.png"}

    parent, nested = study_runs()
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["best/validation_f1"] == pytest.approx(result["validation_f1"])
    assert set(trials.run_id) <= {run.info.run_id for run in nested}
    for trial in trials.itertuples():
        run = mlflow.get_run(str(trial.run_id))
        assert run.info.status == ("FINISHED" if trial.state == "complete" else "KILLED")
        assert run.data.tags["outcome"] == trial.state
        assert float(run.data.params["lr"]) == pytest.approx(trial.lr)
        steps = mlflow.MlflowClient().get_metric_history(run.info.run_id, "validation/best_f1")
        assert [metric.step for metric in steps] == list(range(1, trial.epochs + 1))


def test_a_finished_search_is_not_repeated(searched):
    before = written()
    params = tiny_params()
    params["search"] |= {"epochs": 1, "trials": 2}
    params["train"][NETWORK] = Train.model_validate(params["train"][NETWORK]).model_dump(mode="json")  # written out
    write_params(params)
    search(NETWORK)
    assert written() == before


def test_a_larger_budget_goes_on_and_runs_an_interrupted_trial_again(searched):
    before = read_trials()
    set_search(trials=3)
    with interrupted():
        search(NETWORK)
    search(NETWORK)
    after = read_trials()
    pd.testing.assert_frame_equal(after.iloc[:2], before, check_dtype=False)
    assert after.state.tolist() == ["complete", "complete", "fail", "complete"]
    assert after.lr[2] == after.lr[3] and after.lr[:3].is_unique
    runs = [mlflow.get_run(run_id) for run_id in after.run_id[2:]]
    assert [run.info.status for run in runs] == ["KILLED", "FINISHED"]
    assert [run.data.tags["outcome"] for run in runs] == ["interrupted", "complete"]


def test_a_smaller_budget_gives_what_so_many_trials_gave(searched):
    before, study = written(), open_study()
    last = study.trials[-1]
    for value in (0.96, 0.97, 0.98, 0.99):  # the later ones of six, each better than all before
        study.add_trial(
            optuna.trial.create_trial(
                params=last.params, distributions=last.distributions, value=value, user_attrs=last.user_attrs
            )
        )
    set_search(trials=2)
    search(NETWORK)
    assert written() == before


def test_other_patches_or_another_space_begin_another_study(searched, capsys):
    def study_with_nothing_done() -> str:
        with interrupted():
            search(NETWORK)
        said = capsys.readouterr().out
        assert ", 0 of 1 trials are done" in said
        return said.partition(": study ")[2].partition(",")[0]

    set_search(trials=1, lr=[1e-4, 1e-3])
    names = {read_result()["study"], study_with_nothing_done()}
    summary = Path("patches/summary.json")
    summary.write_text(json.dumps(json.loads(summary.read_text()) | {"digest": "0" * 64}))
    set_search(trials=1)
    names.add(study_with_nothing_done())
    assert len(names) == 3 and all(name.startswith(f"{NETWORK}-") for name in names)


def test_a_fold_has_a_study_of_its_own(searched):
    own, fold = written(), Outputs(NETWORK, 1)
    split(fold=1)
    set_search(trials=1)
    search(NETWORK, fold=1)
    assert written() == own
    result = json.loads((fold.searched / f"{NETWORK}.json").read_text())
    assert result["study"].startswith(f"{NETWORK}-fold1-") and result["trial"] == 0
    assert len(pd.read_csv(fold.searched / f"{NETWORK}.csv")) == 1


def test_a_pruned_trial_is_killed_not_failed_and_counts(ready, mlflow_store, monkeypatch):
    # Prunes every trial but the first one after its first epoch.
    class AllButTheFirst(optuna.pruners.BasePruner):
        def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
            return trial.number > 0

    monkeypatch.setattr(optuna.pruners, "MedianPruner", lambda **_: AllButTheFirst())
    set_search(trials=2, epochs=2)
    search(NETWORK)
    assert read_trials().state.tolist() == ["complete", "pruned"]
    assert read_trials().epochs.tolist() == [2, 1]
    _, nested = study_runs()
    assert [run.info.status for run in nested] == ["FINISHED", "KILLED"]
    assert [run.data.tags["outcome"] for run in nested] == ["complete", "pruned"]


def test_trials_that_all_diverge_are_a_clear_error(ready, mlflow_store):
    set_search(trials=1, lr=[1e30, 1e35])
    with pytest.raises(InputError, match=r"search\.lr: no trial .* lower learning rates"):
        search(NETWORK)
    assert json.loads(RESULT.read_text()) == {"settings": {}}  # as it was


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql:someone:secret@server", "MITOSCOPE_SEARCH_STORAGE: is not a database URL"),
        (
            "postgresql://someone:secret@127.0.0.1:1/none",
            "MITOSCOPE_SEARCH_STORAGE: the postgresql storage cannot be opened",
        ),
    ],
)
def test_a_bad_storage_is_one_line_without_the_password(ready, mlflow_store, monkeypatch, url, said):
    set_search(trials=1)
    monkeypatch.setenv("MITOSCOPE_SEARCH_STORAGE", url)
    with pytest.raises(InputError) as error:
        search(NETWORK)
    assert said in str(error.value) and "\n" not in str(error.value) and "secret" not in str(error.value)


def test_a_killed_search_goes_on_and_tries_the_lost_trial_again(ready, mlflow_store, monkeypatch, programs):
    set_search(trials=3, samples_per_epoch=64, epochs=10)  # long enough to be killed on a fast machine
    running = start(programs)
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

    monkeypatch.setattr(studies, "_GRACE", 6)
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


def share_a_budget(trials: int, programs: Path) -> None:
    """Two processes at once; the trials must be exactly as many as the budget, each counted once."""
    processes = [start(programs) for _ in range(2)]
    for process in processes:
        said, _ = process.communicate(timeout=300)
        assert process.returncode == 0, said
    assert finished_trials() == trials
    # Of two trials that begin at the same moment, one may find out after its first epoch that it is one too many.
    nested = [run for run in study_runs()[1] if run.data.tags["outcome"] != "surplus"]
    assert len(nested) == trials
    # One that is too many from its start has no run.
    assert set(read_trials().run_id.dropna()) == {run.info.run_id for run in nested}
    assert read_trials().lr.is_unique


def test_two_processes_share_the_budget(ready, mlflow_store, programs):
    set_search(trials=3)
    share_a_budget(3, programs)


def test_two_processes_share_the_budget_on_postgresql(ready, mlflow_store, programs, postgresql, monkeypatch):
    set_search(trials=3)
    monkeypatch.setenv("MITOSCOPE_SEARCH_STORAGE", postgresql)
    share_a_budget(3, programs)
    assert not Path(".work/search.db").exists()
    (study,) = optuna.get_all_study_summaries(postgresql)
    assert study.study_name == json.loads(RESULT.read_text())["study"]
