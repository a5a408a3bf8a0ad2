"""Stage `search@network`: try learning rates and rotations -> results/search/<network>.json, .csv and pictures.

The study is stored outside DVC, in the database that `search.storage` names, so that a killed search can continue, and
several processes or machines can share a study.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from mitoscope.errors import InputError
from mitoscope.params import Search, Train, read_params
from mitoscope.paths import WORK, Outputs, project
from mitoscope.progress import console, progress
from mitoscope.reporting.search import write_outputs
from mitoscope.stages.train.inputs import CODE, Inputs, read_inputs, replace_settings, start_model
from mitoscope.tracking.provenance import hash_code, hash_settings

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

    from mitoscope.learning.schedule import Epoch
    from mitoscope.tracking.searches import Outcome

_CLASSES = ("positive", "negative")  # whose rotations are searched
_FAILED = "MLflow failed ({}); run this again to continue the search"

Show = Callable[[str, int, int], None]


def search(network: str, fold: int | None = None) -> None:
    """Search settings of a network, as the block `search` of params.yaml says; write the best, all trials and pictures.

    Processes that search for the same network in the same storage share its trials; each writes the same result.

    Args:
        network: name of an entry under `train` in params.yaml.
        fold: fold of the cross-validation; None = the project's own split.

    Raises:
        InputError: bad params or inputs, the storage or the MLflow store fails, or no trial was completed.
    """
    whole, outputs = read_params(), Outputs(network, fold)
    whole.train_of(network)
    settings = whole.search
    if not settings.trials:
        write_outputs(outputs.searched, network, {"settings": {}})
        return
    import mlflow

    from mitoscope.tracking import searches, studies
    from mitoscope.tracking.store import store, telling

    inputs = read_inputs(outputs)
    start_model(inputs)  # fail early if the network cannot be trained
    base = _trial_settings(inputs.settings, settings)
    name = _name(inputs, settings, base)
    lock = FileLock(project() / WORK / "search.lock")
    Path(lock.lock_file).parent.mkdir(exist_ok=True)

    def on_lost(trial: "FrozenTrial") -> None:
        if run_id := trial.user_attrs.get("run_id"):
            searches.close_trial(run_id, "lost")

    with telling(_FAILED, store(Path()), mlflow.MlflowException):
        with lock:  # the first process creates the tables, the study and its run
            study = studies.open_study(settings, name, on_lost)
            if not study.get_trials(deepcopy=False):
                study.enqueue_trial(_known_settings(inputs.settings, settings))
            params = {"search": settings.model_dump(mode="json", exclude={"storage"}), "train": base.model_dump()}
            tags = inputs.tags() | {"study": name}
            parent = searches.open_study(study.user_attrs.get("run_id"), f"search {inputs.name}", params, tags)
            study.set_user_attr("run_id", parent)
            searches.close_leftovers(parent, {trial.user_attrs.get("run_id", "") for trial in _running(study)})
        done = studies.finished(study)
        console.print(f"{inputs.name}: study {name}, {done} of {settings.trials} trials are done")
        try:
            with progress() as show:
                studies.run_trials(
                    study,
                    settings.trials,
                    lambda trial: _run_trial(trial, study, settings, inputs, parent, show),
                    lambda: show(f"{inputs.name} trials", studies.finished(study), settings.trials),
                )
            with lock:
                _write(inputs, study, settings.trials, parent, name)
        except BaseException:
            searches.close_study(parent, "KILLED")  # until it is resumed
            raise


def _name(inputs: Inputs, settings: Search, base: Train) -> str:
    """Return the study's name; its hash of inputs, search space and code keeps trials of different ones apart."""
    evidence = {
        "inputs": inputs.sources,
        "train": base.chosen(),
        "space": {name: value for name, value in settings.chosen().items() if name not in ("trials", "storage")},
        "code": hash_code((*CODE, "stages/search.py")),
    }
    return f"{inputs.name}-{hash_settings(evidence)[:12]}"


def _trial_settings(train: Train, settings: Search) -> Train:
    """Return the train block for a trial: shorter, and without mining if that would start after the last epoch."""
    changes: dict[str, Any] = {
        "optimisation": {"epochs": settings.epochs},
        "sampling": {"samples_per_epoch": settings.samples_per_epoch},
    }
    if settings.epochs <= train.sampling.mining.start_epoch:
        changes["sampling"]["mining"] = train.sampling.mining.model_dump() | {"every": 0}
    return replace_settings(train, changes)


def _known_settings(train: Train, settings: Search) -> dict[str, Any]:
    """Return the settings of the train block that are in the search space; the first trial uses them."""
    known: dict[str, Any] = {}
    if settings.lr[0] <= train.optimisation.lr <= settings.lr[1]:
        known["lr"] = train.optimisation.lr
    for kind in _CLASSES:
        angles = getattr(train.sampling.rotations, kind)
        if angles in getattr(settings.rotations, kind):
            known[kind] = _as_text(angles)
    return known


def _run_trial(trial: "Trial", study: "Study", settings: Search, inputs: Inputs, parent: str, show: Show) -> float:
    """Train with the settings of a trial; return the validation F1 of its best epoch."""
    import optuna

    from mitoscope.evaluation.metrics import patch_scores
    from mitoscope.learning.devices import join
    from mitoscope.learning.loop import fit
    from mitoscope.tracking import searches, studies

    # A seed for each trial, so that a resumed search does not repeat its proposals.
    study.sampler = optuna.samplers.TPESampler(
        seed=settings.seed + trial.number, n_startup_trials=settings.startup_trials, multivariate=False
    )
    trial.suggest_float("lr", *settings.lr, log=True)
    for kind in _CLASSES:
        trial.suggest_categorical(kind, [_as_text(angles) for angles in getattr(settings.rotations, kind)])
    train = replace_settings(_trial_settings(inputs.settings, settings), _settings_of(trial))
    run_id = searches.open_trial(parent, trial.number)
    outcome: Outcome = "failed"

    def report(history: "list[Epoch]") -> None:
        step = len(history)
        searches.log_epoch(run_id, history[-1], step)
        trial.report(history[-1]["validation/best_f1"], step)
        if step == 1:
            studies.claim(trial, study, settings.trials)
        if step < settings.epochs and trial.should_prune():
            raise optuna.TrialPruned

    try:
        trial.set_user_attr("run_id", run_id)
        searches.log_params(run_id, trial.params)
        with join() as device:
            fitted = fit(
                start_model(inputs),
                inputs.training,
                inputs.validation,
                train,
                device=device,
                measure=patch_scores,
                work=None,
                fingerprint="",
                on_epoch=report,
                on_batch=lambda label, done, total: show(f"{inputs.name} trial {trial.number}, {label}", done, total),
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
    except studies.SurplusError:
        outcome = "surplus"
        raise
    except (studies.LostError, optuna.exceptions.UpdateFinishedTrialError):
        outcome = "lost"
        raise
    finally:
        searches.close_trial(run_id, outcome)
    return fitted.history[fitted.best_epoch - 1]["validation/best_f1"]


def _write(inputs: Inputs, study: "Study", budget: int, parent: str, name: str) -> None:
    """Write the stage's outputs and log them."""
    from mitoscope.tracking import searches, studies

    best = studies.best(study, budget)
    if best is None:
        raise InputError(
            f"params.yaml: search.lr: no trial of {inputs.network} was completed; choose lower learning rates"
        )
    chosen = _settings_of(best)
    result = {"study": name, "trial": best.number, "validation_f1": best.value, "settings": chosen}
    synthetic = ", synthetic data" if inputs.synthetic else ""
    title = f"search for {inputs.name}{synthetic}"
    shown = studies.shown(study, budget)
    files = write_outputs(inputs.outputs.searched, inputs.network, result, shown, title=title)
    states = [trial.state.name.lower() for trial in shown]
    counts = {f"trials/{state}": float(states.count(state)) for state in set(states)}
    searches.close_study(parent, "FINISHED", counts | {"best/validation_f1": float(best.value or 0)}, files)
    console.print(
        f"{inputs.name}: trial {best.number} is the best of {min(budget, studies.finished(study))}, validation F1 "
        f"{best.value:.3f} with {json.dumps(chosen)}"
    )


def _settings_of(trial: "Trial | FrozenTrial") -> dict[str, Any]:
    """Return the settings of a trial as entries of a train block."""
    rotations = {kind: [float(angle) for angle in trial.params[kind].split()] for kind in _CLASSES}
    return {"optimisation": {"lr": trial.params["lr"]}, "sampling": {"rotations": rotations}}


def _as_text(angles: Sequence[float]) -> str:
    """Return angles as text, because Optuna's choices cannot be lists."""
    return " ".join(repr(angle).removesuffix(".0") for angle in angles)


def _running(study: "Study") -> "list[FrozenTrial]":
    from optuna.trial import TrialState

    return study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
