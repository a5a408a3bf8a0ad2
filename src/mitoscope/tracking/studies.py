"""Run the trials of an Optuna study that several processes can share, each of which may be killed at any time.

Each trial has a heartbeat in the study's database. When it stops, another process marks the trial as failed and queues
it again. The budget counts finished trials, in whichever process they ran.
"""

import os
import time
import warnings
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

from mitoscope.errors import InputError
from mitoscope.params import Search
from mitoscope.paths import absolute_sqlite
from mitoscope.progress import console
from mitoscope.tracking.store import without_passwords

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial

_HEARTBEAT, _GRACE = 5, 30  # seconds; after the grace period a trial without a heartbeat is queued again
_MOST_RETRIES = 3
_LOOK_AGAIN = 2.0  # seconds between checks while other processes finish the last trials
_BEGUN = "begun"
_VARIABLE = "MITOSCOPE_SEARCH_STORAGE"


class SurplusError(Exception):
    """Other processes used up the budget while this trial was starting."""


class LostError(Exception):
    """Another process marked this trial as failed, for example because this process was suspended."""


def open_study(settings: Search, name: str, on_lost: "Callable[[FrozenTrial], None]") -> "Study":
    """Open a study in its storage, and create it if it is new.

    Args:
        settings: search settings, which name the storage.
        name: name of the study.
        on_lost: called with a trial whose process died, after the trial was queued again.

    Raises:
        InputError: the storage cannot be opened; the message contains no password.
    """
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    source = _VARIABLE if os.environ.get(_VARIABLE) else "params.yaml: search.storage"
    url = absolute_sqlite(os.environ.get(_VARIABLE) or settings.storage)
    retry = optuna.storages.RetryHeartbeatStaleTrialCallback(max_retry=_MOST_RETRIES)

    def queue_again(study: "Study", trial: "FrozenTrial") -> None:
        retry(study, trial)
        on_lost(trial)

    try:
        return optuna.create_study(
            study_name=name,
            storage=optuna.storages.RDBStorage(
                url,
                # Processes that write to one SQLite file wait for each other.
                engine_kwargs={"connect_args": {"timeout": 60}} if url.startswith("sqlite") else None,
                heartbeat_interval=_HEARTBEAT,
                grace_period=_GRACE,
                heartbeat_stale_trial_callback=queue_again,
            ),
            direction="maximize",
            load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(n_startup_trials=settings.startup_trials),
        )
    except (SQLAlchemyError, optuna.exceptions.OptunaError, ImportError, ValueError) as error:
        if "://" not in url:  # not shown: it may contain a password
            what = "is not a database URL such as sqlite:///.work/search.db or postgresql://USER:PASSWORD@SERVER/NAME"
            raise InputError(f"{source}: {what}") from error
        scheme, reason = url.partition("://")[0], without_passwords(str(error)).strip().partition("\n")[0]
        raise InputError(f"{source}: the {scheme} storage cannot be opened ({reason})") from error


def run_trials(
    study: "Study", budget: int, objective: "Callable[[Trial], float]", on_trial: Callable[[], None]
) -> None:
    """Run trials until `budget` trials have finished, in this process or others.

    Args:
        study: study from `open_study`.
        budget: number of trials that end complete or pruned.
        objective: trains with the settings of a trial; calls `claim` and `Trial.report`.
        on_trial: called after every trial of this process.
    """
    import optuna

    running_state = (optuna.trial.TrialState.RUNNING,)
    first_seen: dict[int, float] = {}
    told = False
    while (done := finished(study)) < budget:
        optuna.storages.fail_stale_trials(study)
        running = study.get_trials(deepcopy=False, states=running_state)
        for trial in running:  # killed before its first heartbeat: Optuna would never mark it as failed
            since = first_seen.setdefault(trial.number, time.monotonic())
            if trial.user_attrs.get(_BEGUN) != trial.number and time.monotonic() - since > _GRACE:
                study.tell(trial.number, state=optuna.trial.TrialState.FAIL, skip_if_finished=True)
                _storage(study).get_heartbeat_stale_trial_callback()(study, trial)  # type: ignore[misc]
        if done + len(running) < budget:
            _run_one(study, budget, objective)
            on_trial()
            continue
        if not told:
            console.print("waiting for the last trials, which are running in other processes or have died")
            told = True
        time.sleep(_LOOK_AGAIN)


def _run_one(study: "Study", budget: int, objective: "Callable[[Trial], float]") -> None:
    """Run one trial with a heartbeat from its start; queue it again if this process is interrupted."""
    from optuna.exceptions import UpdateFinishedTrialError

    def guarded(trial: "Trial") -> float:
        # Optuna records its first heartbeat in a thread; a trial killed before that would never be marked as failed.
        _storage(study).record_heartbeat(trial._trial_id)
        trial.set_user_attr(_BEGUN, trial.number)
        claim(trial, study, budget)
        try:
            return objective(trial)
        except UpdateFinishedTrialError as error:
            raise LostError from error
        except KeyboardInterrupt:
            study.enqueue_trial(trial.params)
            raise

    try:
        study.optimize(guarded, n_trials=1, catch=(SurplusError, LostError))
    except ValueError as error:
        # Another process marked this trial as failed and queued it again, so its result cannot be stored.
        if "Cannot tell" not in str(error):
            raise
        console.print("a trial of this process had no heartbeat for too long and was queued again")


def claim(trial: "Trial", study: "Study", budget: int) -> None:
    """Give up a trial if trials that started before it use up the budget.

    Call this at the start and again after the first epoch: trials that start at the same moment may not see each other
    at first.

    Raises:
        SurplusError: the trial exceeds the budget.
    """
    from optuna.trial import TrialState

    counted = (TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED)
    trials = study.get_trials(deepcopy=False, states=counted)
    order = [one.number for one in sorted(trials, key=lambda one: (one.datetime_start, one.number))]
    if trial.number in order[budget:]:
        raise SurplusError


def finished(study: "Study") -> int:
    """Return the number of trials that count towards the budget."""
    from optuna.trial import TrialState

    return len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED)))


def counted(study: "Study", budget: int) -> "list[FrozenTrial]":
    """Return the first `budget` trials that ended complete or pruned, in that order; these make up the search.

    More may have run, for a larger budget or in several processes at once.
    """
    from optuna.trial import TrialState

    ended = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
    return sorted(ended, key=_end)[:budget]


def best(study: "Study", budget: int) -> "FrozenTrial | None":
    """Return the counted complete trial with the highest value (of equal ones the first to end), or None."""
    from optuna.trial import TrialState

    complete = [trial for trial in counted(study, budget) if trial.state == TrialState.COMPLETE]
    return max(complete, key=lambda trial: trial.values[0], default=None)


def shown(study: "Study", budget: int) -> "list[FrozenTrial]":
    """Return the trials for a table: those counted, and those that failed before the last of them ended, by number."""
    from optuna.trial import TrialState

    trials = counted(study, budget)
    failed = study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
    if len(trials) == budget:
        failed = [trial for trial in failed if _end(trial) < _end(trials[-1])]
    return sorted([*trials, *failed], key=lambda trial: trial.number)


def _end(trial: "FrozenTrial") -> tuple[datetime, int]:
    """Return when a trial ended, and its number to break ties."""
    assert trial.datetime_complete is not None
    return trial.datetime_complete, trial.number


def _storage(study: "Study") -> "RDBStorage":
    """Return the database behind Optuna's cache; only the database has heartbeats."""
    storage: RDBStorage = study._storage  # type: ignore[assignment]
    return storage
