"""Trials that are left at the worst moments, in a real study. Whole searches are in test_search.py."""

from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from mitoscope.params import Search
from mitoscope.tracking import studies as search_study
from mitoscope.tracking.studies import SurplusError, claim, finished, open_study, run_trials
from tests.conftest import tiny_params


@pytest.fixture
def lost() -> list[int]:
    """Numbers of the trials that were taken for dead."""
    return []


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: list[int]) -> optuna.Study:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(search_study, "_GRACE", 1)
    monkeypatch.setattr(search_study, "_HEARTBEAT", 1)
    monkeypatch.setattr(search_study, "_LOOK_AGAIN", 0.1)
    settings = Search(**tiny_params()["search"] | {"storage": "sqlite:///study.db"})
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
