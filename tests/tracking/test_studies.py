"""Trials that are left at the worst moments, in a real study. Whole searches are in test_search.py."""

import shutil
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from mitoscope.params import Search
from mitoscope.tracking import studies as search_study
from mitoscope.tracking.studies import SurplusError, best, claim, counted, finished, open_study, run_trials, shown

# Trials are left here that no `optimize` looks after.
pytestmark = [
    pytest.mark.slow,  # databases, and processes that wait for each other
    pytest.mark.filterwarnings("ignore:Heartbeat of storage is supposed to be used with Study.optimize"),
]


@pytest.fixture(scope="module")
def _empty_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage with its tables: making them takes longest."""
    file = tmp_path_factory.mktemp("study") / "study.db"
    optuna.storages.RDBStorage(f"sqlite:///{file}")
    return file


@pytest.fixture
def lost() -> list[int]:
    """Numbers of the trials that were taken for dead."""
    return []


@pytest.fixture
def study(_empty_study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: list[int]) -> optuna.Study:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(search_study, "_GRACE", 1)
    monkeypatch.setattr(search_study, "_HEARTBEAT", 1)
    monkeypatch.setattr(search_study, "_LOOK_AGAIN", 0.1)
    shutil.copy(_empty_study, tmp_path / "study.db")
    settings = Search(storage="sqlite:///study.db")
    return open_study(settings, "a study", lambda trial: lost.append(trial.number))


def objective(trial: optuna.Trial) -> float:
    return trial.suggest_float("x", 0, 1)


def states(study: optuna.Study) -> list[TrialState]:
    return [trial.state for trial in study.get_trials()]


def test_it_ends_when_the_budget_is_used_and_a_larger_one_goes_on(study):
    told = []
    run_trials(study, 3, objective, lambda: told.append(finished(study)))
    assert told == [1, 2, 3]
    run_trials(study, 3, objective, lambda: told.append(finished(study)))
    assert told == [1, 2, 3]
    run_trials(study, 4, objective, lambda: None)
    assert finished(study) == 4


def test_a_trial_that_died_before_its_first_heartbeat_blocks_nobody(study, lost):
    study.enqueue_trial({"x": 0.25})
    study.ask()  # and its process is gone
    run_trials(study, 2, objective, lambda: None)
    assert states(study).count(TrialState.FAIL) == 1
    assert finished(study) == 2
    assert lost == [0]
    assert 0.25 in [trial.params["x"] for trial in study.get_trials(states=[TrialState.COMPLETE])]  # tried again


def test_a_process_that_slept_too_long_leaves_its_trial_to_the_others(study):
    slept = []

    def oversleep(trial: optuna.Trial) -> float:
        value = objective(trial)
        if not slept:
            slept.append(trial.number)
            study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)  # as another process would
            trial.report(value, 1)
        return value

    run_trials(study, 2, oversleep, lambda: None)
    assert slept == [0]
    assert states(study)[0] == TrialState.FAIL
    assert finished(study) == 2


def test_an_interrupted_trial_is_queued_again(study):
    def interrupt(trial: optuna.Trial) -> float:
        objective(trial)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_trials(study, 1, interrupt, lambda: None)
    first = study.get_trials()[0].params
    run_trials(study, 1, objective, lambda: None)
    assert study.get_trials()[-1].params == first


def test_an_error_of_the_objective_is_raised(study):
    def fail(_: optuna.Trial) -> float:
        raise ValueError("of the training")

    with pytest.raises(ValueError, match="of the training"):
        run_trials(study, 1, fail, lambda: None)


def test_the_later_of_two_trials_gives_up_where_one_is_left(study):
    first, second = study.ask(), study.ask()
    claim(first, study, 1)
    with pytest.raises(SurplusError):
        claim(second, study, 1)
    claim(second, study, 2)


class TestBudget:
    """Six trials that ended in another order than they began, and what a smaller budget would have given."""

    @pytest.fixture
    def ended(self, study: optuna.Study) -> optuna.Study:
        begun = [study.ask() for _ in range(7)]  # the last one is running
        for number, value in ((4, 0.3), (0, 0.5), (2, None), (1, 0.5), (3, "failed"), (5, 0.9)):
            if value is None:
                study.tell(begun[number], state=TrialState.PRUNED)
            elif value == "failed":
                study.tell(begun[number], state=TrialState.FAIL)
            else:
                study.tell(begun[number], value)
        return study

    @pytest.mark.parametrize(
        ("budget", "numbers", "chosen", "table"),
        [
            (1, [4], 4, [4]),
            (3, [4, 0, 2], 0, [0, 2, 4]),
            (4, [4, 0, 2, 1], 0, [0, 1, 2, 4]),  # of two that are equal the first to end; 3 failed later
            (5, [4, 0, 2, 1, 5], 5, [0, 1, 2, 3, 4, 5]),
            (9, [4, 0, 2, 1, 5], 5, [0, 1, 2, 3, 4, 5]),  # it is not used up yet
        ],
    )
    def test_the_first_that_ended_count(self, ended, budget, numbers, chosen, table):
        assert [trial.number for trial in counted(ended, budget)] == numbers
        assert best(ended, budget).number == chosen
        assert [trial.number for trial in shown(ended, budget)] == table

    def test_where_none_is_complete_none_is_the_best(self, study):
        study.tell(study.ask(), state=TrialState.PRUNED)
        assert best(study, 3) is None and len(counted(study, 3)) == 1


def test_a_smaller_budget_gives_what_that_many_trials_gave(study):
    run_trials(study, 2, objective, lambda: None)
    before = best(study, 2)
    run_trials(study, 6, lambda trial: 1 + objective(trial), lambda: None)  # better ones
    assert best(study, 2).number == before.number and best(study, 6).number > 1
