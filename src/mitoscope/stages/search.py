"""Stage `search@arch`: trials of learning rates and rotations -> results/search/<arch>.json, .csv and pictures.

The study lives outside DVC, in the database that `search.storage` names, so that a search that was killed goes on
where it was, and several processes or machines share one.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from mitoscope.errors import InputError
from mitoscope.params import FIELD_SETTINGS, Search, Train, read_params
from mitoscope.paths import WORK, project
from mitoscope.progress import console, progress
from mitoscope.reporting.search import tabulate, write_outputs
from mitoscope.stages.train_inputs import Inputs, make_recipe, read_inputs, replace_settings, start_network
from mitoscope.tracking.studies import LostError, SurplusError, claim, finished, open_study, run_trials

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

    from mitoscope.learning.scoring import Epoch, OnBatch
    from mitoscope.tracking.searches import Outcome

_CLASSES = ("positive", "negative")  # whose rotations are searched
_FAILED = "MLflow failed ({}); started again, the search goes on"


def search(arch: str) -> None:
    """Try settings of network `arch` as the search block of params.yaml says; write the best, all trials and pictures.

    Processes that search the same network in the same storage share its trials, and each writes the same result.

    Raises:
        InputError: bad params or inputs, a storage or MLflow store that fails, or no trial that ended well.
    """
    settings = read_params().search
    if not settings.trials:
        write_outputs(arch, {"settings": {}})
        return
    import mlflow

    from mitoscope.tracking import searches
    from mitoscope.tracking.store import store, telling

    inputs = read_inputs(arch)
    start_network(inputs)  # what cannot work ends here
    base = _trial_block(inputs.block, settings)
    name = _name(inputs, settings, base)
    lock = FileLock(project() / WORK / "search.lock")
    Path(lock.lock_file).parent.mkdir(exist_ok=True)

    def on_lost(trial: "FrozenTrial") -> None:
        if run_id := trial.user_attrs.get("run_id"):
            searches.close_trial(run_id, "lost")

    with telling(_FAILED, store(Path()), mlflow.MlflowException):
        with lock:  # the first process makes the tables, the study and its run
            study = open_study(settings, name, on_lost)
            if not study.get_trials(deepcopy=False):
                study.enqueue_trial(_known_settings(inputs.block, settings))
            params = {"search": settings.model_dump(mode="json", exclude={"storage"}), "train": base.model_dump()}
            tags = inputs.tags | {"study": name}
            parent = searches.open_study(study.user_attrs.get("run_id"), f"search {arch}", params, tags)
            study.set_user_attr("run_id", parent)
            searches.close_leftovers(parent, {trial.user_attrs.get("run_id", "") for trial in _running(study)})
        console.print(f"{arch}: searches in study {name}, {finished(study)} of {settings.trials} trials are done")
        try:
            with progress() as show:
                run_trials(
                    study,
                    settings.trials,
                    lambda trial: _run_trial(trial, study, settings, inputs, parent, show),
                    lambda: show(f"{arch} trials", finished(study), settings.trials),
                )
            with lock:
                _write(arch, study, inputs, parent, name)
        except BaseException:
            searches.close_study(parent, "KILLED")  # until it goes on
            raise


def _name(inputs: Inputs, settings: Search, base: Train) -> str:
    """The study of these inputs, space and code: what trials of anything else found must not be taken for theirs."""
    import mitoscope.learning

    here = Path(__file__)
    modules = [*Path(mitoscope.learning.__file__).parent.glob("*.py"), here, here.with_name("train_inputs.py")]
    evidence = {
        "inputs": inputs.sources,
        "train": base.model_dump(exclude=set(FIELD_SETTINGS)),
        "space": settings.model_dump(mode="json", exclude={"trials", "storage"}),
        "code": [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(modules)],
    }
    return f"{inputs.arch}-{hashlib.sha256(json.dumps(evidence, sort_keys=True).encode()).hexdigest()[:12]}"


def _trial_block(block: Train, settings: Search) -> Train:
    """The train block as a trial uses it: shorter, and without mining where that would begin after its end."""
    changes: dict[str, Any] = {"epochs": settings.epochs, "samples_per_epoch": settings.samples_per_epoch}
    if settings.epochs <= block.mining.start_epoch:
        changes["mining"] = block.mining.model_dump() | {"every": 0}
    return replace_settings(block, changes)


def _known_settings(block: Train, settings: Search) -> dict[str, Any]:
    """The settings of the train block, as far as they are in the space: the ones to beat, in the first trial."""
    known: dict[str, Any] = {}
    if settings.lr[0] <= block.lr <= settings.lr[1]:
        known["lr"] = block.lr
    for kind in _CLASSES:
        angles = getattr(block.rotations, kind)
        if angles in getattr(settings.rotations, kind):
            known[kind] = _as_text(angles)
    return known


def _run_trial(trial: "Trial", study: "Study", settings: Search, inputs: Inputs, parent: str, show: "OnBatch") -> float:
    """Train with some settings; the highest validation F1 of its epochs."""
    import optuna

    from mitoscope.learning.devices import join
    from mitoscope.learning.loop import fit
    from mitoscope.tracking import searches

    # Chance of its own for each trial, so that a search that goes on does not repeat itself.
    study.sampler = optuna.samplers.TPESampler(
        seed=settings.seed + trial.number, n_startup_trials=settings.startup_trials, multivariate=False
    )
    trial.suggest_float("lr", *settings.lr, log=True)
    for kind in _CLASSES:
        trial.suggest_categorical(kind, [_as_text(angles) for angles in getattr(settings.rotations, kind)])
    block = replace_settings(_trial_block(inputs.block, settings), _settings_of(trial))
    run_id = searches.open_trial(parent, trial.number)
    outcome: Outcome = "failed"

    def report(history: "list[Epoch]") -> None:
        step = len(history)
        searches.log_epoch(run_id, history[-1], step)
        trial.report(history[-1]["validation/best_f1"], step)
        if step == 1:
            claim(trial, study, settings.trials)
        if step < settings.epochs and trial.should_prune():
            raise optuna.TrialPruned

    try:
        trial.set_user_attr("run_id", run_id)
        searches.log_params(run_id, trial.params)
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
        raise
    except SurplusError:
        outcome = "surplus"
        raise
    except (LostError, optuna.exceptions.UpdateFinishedTrialError):
        outcome = "lost"
        raise
    finally:
        searches.close_trial(run_id, outcome)
    return fitted.history[fitted.best_epoch - 1]["validation/best_f1"]


def _write(arch: str, study: "Study", inputs: Inputs, parent: str, name: str) -> None:
    """Write the stage's outputs and log them."""
    from mitoscope.tracking import searches

    trials = tabulate(study)
    if not (trials.state == "complete").any():
        raise InputError(f"params.yaml: search.lr: no trial of {arch} came to an end; choose lower learning rates")
    best = study.best_trial
    chosen = _settings_of(best)
    result = {"study": name, "trial": best.number, "validation_f1": study.best_value, "settings": chosen}
    synthetic = ", synthetic data" if inputs.summary["dataset"]["synthetic"] else ""
    files = write_outputs(arch, result, study, title=f"search for {arch}{synthetic}")
    counts = {f"trials/{state}": float(count) for state, count in trials.state.value_counts().items()}
    searches.close_study(parent, "FINISHED", counts | {"best/validation_f1": study.best_value}, files)
    console.print(
        f"{arch}: trial {best.number} is the best of {finished(study)}, validation F1 {study.best_value:.3f} with "
        f"{json.dumps(chosen)}"
    )


def _settings_of(trial: "Trial | FrozenTrial") -> dict[str, Any]:
    """What a trial tried, as entries of a train block."""
    rotations = {kind: [float(angle) for angle in trial.params[kind].split()] for kind in _CLASSES}
    return {"lr": trial.params["lr"], "rotations": rotations}


def _as_text(angles: Sequence[float]) -> str:
    """Angles as one choice of a search: Optuna's choices are no lists."""
    return " ".join(repr(angle).removesuffix(".0") for angle in angles)


def _running(study: "Study") -> "list[FrozenTrial]":
    from optuna.trial import TrialState

    return study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
