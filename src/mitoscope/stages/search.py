"""Stage `search@arch`: trials of learning rates and rotations -> results/search/<arch>.json, .csv and pictures.

The study lives outside DVC, in the database that `search.storage` names, so that a search that was killed goes on
where it was, and several processes or machines share one.
"""

import hashlib
import json
import os
import time
import warnings
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from mitoscope.errors import InputError
from mitoscope.params import Search, read_params
from mitoscope.paths import WORK, absolute_sqlite
from mitoscope.progress import console, progress
from mitoscope.stages.search_outputs import tabulate, write_outputs
from mitoscope.stages.train_inputs import Inputs, make_recipe, read_inputs, replace_settings, start_network

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

    from mitoscope.learning.scoring import Epoch, OnBatch

_HEARTBEAT, _GRACE = 5, 30  # seconds: a trial without a sign of life for so long is taken for dead, and tried again
_MOST_RETRIES = 3
_CLASSES = ("positive", "negative")  # whose rotations are searched
_LOOK_AGAIN = 2.0  # seconds, while other processes finish the last trials


class _NoTrialLeftError(Exception):
    """Another process took the last trial of the budget at the same moment."""


def search(arch: str) -> None:
    """Try settings of network `arch` as the search block of params.yaml says; write the best, all trials and pictures.

    Processes that search the same network in the same storage share its trials, and each writes the same result.

    Raises:
        InputError: bad params or inputs, a storage that cannot be opened, or no trial that ended well.
    """
    settings = read_params().search
    if not settings.trials:
        write_outputs(arch, {"settings": {}})
        return
    from mitoscope.tracking import searches

    inputs = read_inputs(arch)
    start_network(inputs)  # what cannot work ends here
    space = settings.model_dump(mode="json", exclude={"trials", "storage"})
    evidence = json.dumps({"inputs": inputs.fingerprint, "space": space}, sort_keys=True)
    name = f"{arch}-{hashlib.sha256(evidence.encode()).hexdigest()[:12]}"
    params = {"search": space, "train": inputs.block.model_dump()}
    WORK.mkdir(exist_ok=True)
    with FileLock(WORK / "search.lock"):  # the first process makes the tables, the study and its run
        study = _open(settings, name)
        tags = inputs.tags | {"study": name}
        parent = searches.open_study(study.user_attrs.get("run_id"), f"search {arch}", params, tags)
        study.set_user_attr("run_id", parent)
    console.print(f"{arch}: searches in study {name}, {_finished(study)} of {settings.trials} trials are done")
    with progress() as show:
        _run_trials(study, settings, inputs, parent, show)

    trials = tabulate(study)
    if not (trials.state == "complete").any():
        raise InputError(f"params.yaml: search.lr: no trial of {arch} came to an end; choose lower learning rates")
    best = study.best_trial
    chosen = _settings_of(best)
    result = {"study": name, "trial": best.number, "validation_f1": study.best_value, "settings": chosen}
    synthetic = ", synthetic data" if inputs.summary["dataset"]["synthetic"] else ""
    files = write_outputs(arch, result, study, title=f"search for {arch}{synthetic}")
    counts = {f"trials/{state}": float(count) for state, count in trials.state.value_counts().items()}
    searches.close_study(parent, counts | {"best/validation_f1": study.best_value}, files)
    console.print(
        f"{arch}: trial {best.number} of {len(trials)} is the best, validation F1 {study.best_value:.3f} with "
        f"{json.dumps(chosen)}"
    )


def _open(settings: Search, name: str) -> "Study":
    """The study in its storage, made where it is new."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    url = absolute_sqlite(os.environ.get("MITOSCOPE_SEARCH_STORAGE") or settings.storage)
    try:
        storage = optuna.storages.RDBStorage(
            url,
            # Two processes write to one SQLite file: wait for each other.
            engine_kwargs={"connect_args": {"timeout": 60}} if url.startswith("sqlite") else None,
            heartbeat_interval=_HEARTBEAT,
            grace_period=_GRACE,
            heartbeat_stale_trial_callback=_try_again,
        )
        return optuna.create_study(
            study_name=name,
            storage=storage,
            direction="maximize",
            load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(n_startup_trials=settings.startup_trials),
        )
    except Exception as error:  # of SQLAlchemy, of a driver that is not installed, of the server
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"search.storage: {url.partition('://')[0]} storage cannot be opened ({reason})") from error


def _try_again(study: "Study", trial: "FrozenTrial") -> None:
    """Queue a trial again whose process died, and end its run."""
    from optuna.storages import RetryHeartbeatStaleTrialCallback

    from mitoscope.tracking import searches

    if run_id := trial.user_attrs.get("run_id"):
        searches.close_trial(run_id, "lost")
    if trial.params:
        RetryHeartbeatStaleTrialCallback(max_retry=_MOST_RETRIES)(study, trial)


def _run_trials(study: "Study", settings: Search, inputs: Inputs, parent: str, show: "OnBatch") -> None:
    """Run trials until as many have ended, here or elsewhere, as the budget has."""
    import optuna

    state = optuna.trial.TrialState
    told = False

    def objective(trial: "Trial") -> float:
        return _run_trial(trial, study, settings, inputs, parent, show)

    while (finished := _finished(study)) < settings.trials:
        optuna.storages.fail_stale_trials(study)
        running = study.get_trials(deepcopy=False, states=(state.RUNNING,))
        for trial in running:  # killed before its first sign of life
            if not _has_begun(trial) and datetime.now() - (trial.datetime_start or datetime.now()) > timedelta(
                seconds=_GRACE
            ):
                study.tell(trial.number, state=state.FAIL, skip_if_finished=True)
        if finished + len(running) < settings.trials:
            study.optimize(objective, n_trials=1, catch=(_NoTrialLeftError,))
            show(f"{inputs.arch} trials", _finished(study), settings.trials)
        else:
            if not told:
                console.print(f"{inputs.arch}: waits for the last trials, which run in other processes or have died")
                told = True
            time.sleep(_LOOK_AGAIN)


def _run_trial(trial: "Trial", study: "Study", settings: Search, inputs: Inputs, parent: str, show: "OnBatch") -> float:
    """Train with some settings; the highest validation F1 of its epochs."""
    import optuna

    from mitoscope.learning.devices import join
    from mitoscope.learning.loop import fit
    from mitoscope.tracking import searches

    trial.set_user_attr("begun", trial.number)
    _claim(trial.number, study, settings.trials)
    study.sampler = _sampler(trial.number, settings, inputs)
    trial.suggest_float("lr", *settings.lr, log=True)
    for kind in _CLASSES:
        trial.suggest_categorical(kind, [_as_text(angles) for angles in getattr(settings.rotations, kind)])
    changes = _settings_of(trial) | {"epochs": settings.epochs, "samples_per_epoch": settings.samples_per_epoch}
    if settings.epochs <= inputs.block.mining.start_epoch:
        changes["mining"] = inputs.block.mining.model_dump() | {"every": 0}
    block = replace_settings(inputs.block, changes)
    run_id = searches.open_trial(parent, trial.number, trial.params)
    trial.set_user_attr("run_id", run_id)

    def report(history: "list[Epoch]") -> None:
        step = len(history)
        searches.log_epoch(run_id, history[-1], step)
        trial.report(history[-1]["validation/best_f1"], step)
        if step < settings.epochs and trial.should_prune():
            raise optuna.TrialPruned

    outcome: searches.Outcome = "failed"
    try:
        with join() as place:
            fitted = fit(
                start_network(inputs),
                inputs.training,
                inputs.validation,
                make_recipe(block),
                place=place,
                work=None,
                fingerprint="",
                on_epoch=report,
                on_batch=lambda label, done, total: show(f"{inputs.arch} trial {trial.number}, {label}", done, total),
            )
        outcome = "complete"
    except optuna.TrialPruned:
        outcome = "pruned"
        raise
    except FloatingPointError as error:
        outcome = "diverged"
        raise optuna.TrialPruned from error
    except KeyboardInterrupt:
        outcome = "interrupted"
        study.enqueue_trial(trial.params)
        raise
    finally:
        searches.close_trial(run_id, outcome)
    return fitted.history[fitted.best_epoch - 1]["validation/best_f1"]


def _claim(number: int, study: "Study", budget: int) -> None:
    """Give up trial `number` where trials that began before it have used the budget."""
    from optuna.trial import TrialState

    counted = (TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED)
    trials = study.get_trials(deepcopy=False, states=counted)
    order = [trial.number for trial in sorted(trials, key=lambda one: (one.datetime_start, one.number))]
    if order.index(number) >= budget:
        raise _NoTrialLeftError


def _sampler(number: int, settings: Search, inputs: Inputs) -> "BaseSampler":
    """TPE with chance of its own for each trial, so that a search that goes on does not repeat itself.

    The first trial takes the settings of the train block, as far as they are in the space: the search is never worse.
    """
    from optuna.samplers import PartialFixedSampler, TPESampler

    tpe = TPESampler(seed=settings.seed + number, n_startup_trials=settings.startup_trials, multivariate=False)
    if number:
        return tpe
    block, rotations = inputs.block, settings.rotations
    known: dict[str, Any] = {}
    if settings.lr[0] <= block.lr <= settings.lr[1]:
        known["lr"] = block.lr
    for kind in _CLASSES:
        angles = getattr(block.rotations, kind)
        if angles in getattr(rotations, kind):
            known[kind] = _as_text(angles)
    return PartialFixedSampler(known, tpe)


def _settings_of(trial: "Trial | FrozenTrial") -> dict[str, Any]:
    """What a trial tried, as entries of a train block."""
    rotations = {kind: [float(angle) for angle in trial.params[kind].split()] for kind in _CLASSES}
    return {"lr": trial.params["lr"], "rotations": rotations}


def _as_text(angles: Sequence[float]) -> str:
    """Angles as one choice of a search: Optuna's choices are no lists."""
    return " ".join(f"{angle:g}" for angle in angles)


def _has_begun(trial: "FrozenTrial") -> bool:
    """Whether a trial came to its own first line; one that is tried again brings the entries of its predecessor."""
    return bool(trial.user_attrs.get("begun") == trial.number)


def _finished(study: "Study") -> int:
    """How many trials count towards the budget."""
    from optuna.trial import TrialState

    return len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED)))
