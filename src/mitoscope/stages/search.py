"""Stage `search@network`: trials of learning rates and rotations -> results/search/<network>.json, .csv and pictures.

The study lives outside DVC, in the database that `search.storage` names, so that a search that was killed goes on
where it was, and several processes or machines share one.
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
_FAILED = "MLflow failed ({}); started again, the search goes on"

Show = Callable[[str, int, int], None]


def search(network: str, fold: int | None = None) -> None:
    """Try settings of a network as the search block of params.yaml says; write the best, all trials and pictures.

    Processes that search the same network in the same storage share its trials, and each writes the same result.

    Args:
        network: has a block under `train` in params.yaml.
        fold: of the cross-validation; None = the project's own split.

    Raises:
        InputError: bad params or inputs, a storage or MLflow store that fails, or no trial that ended well.
    """
    settings, outputs = read_params().search, Outputs(network, fold)
    if not settings.trials:
        write_outputs(outputs.searched, network, {"settings": {}})
        return
    import mlflow

    from mitoscope.tracking import searches, studies
    from mitoscope.tracking.store import store, telling

    inputs = read_inputs(outputs)
    start_model(inputs)  # what cannot work ends here
    base = _trial_settings(inputs.settings, settings)
    name = _name(inputs, settings, base)
    lock = FileLock(project() / WORK / "search.lock")
    Path(lock.lock_file).parent.mkdir(exist_ok=True)

    def on_lost(trial: "FrozenTrial") -> None:
        if run_id := trial.user_attrs.get("run_id"):
            searches.close_trial(run_id, "lost")

    with telling(_FAILED, store(Path()), mlflow.MlflowException):
        with lock:  # the first process makes the tables, the study and its run
            study = studies.open_study(settings, name, on_lost)
            if not study.get_trials(deepcopy=False):
                study.enqueue_trial(_known_settings(inputs.settings, settings))
            params = {"search": settings.model_dump(mode="json", exclude={"storage"}), "train": base.model_dump()}
            tags = inputs.tags() | {"study": name}
            parent = searches.open_study(study.user_attrs.get("run_id"), f"search {inputs.name}", params, tags)
            study.set_user_attr("run_id", parent)
            searches.close_leftovers(parent, {trial.user_attrs.get("run_id", "") for trial in _running(study)})
        done = studies.finished(study)
        console.print(f"{inputs.name}: searches in study {name}, {done} of {settings.trials} trials are done")
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
            searches.close_study(parent, "KILLED")  # until it goes on
            raise


def _name(inputs: Inputs, settings: Search, base: Train) -> str:
    """The study of these inputs, space and code: what trials of anything else found must not be taken for theirs."""
    evidence = {
        "inputs": inputs.sources,
        "train": base.chosen(),
        "space": {name: value for name, value in settings.chosen().items() if name not in ("trials", "storage")},
        "code": hash_code((*CODE, "stages/search.py")),
    }
    return f"{inputs.name}-{hash_settings(evidence)[:12]}"


def _trial_settings(train: Train, settings: Search) -> Train:
    """The train block as a trial uses it: shorter, and without mining where that would begin after its end."""
    changes: dict[str, Any] = {
        "optimisation": {"epochs": settings.epochs},
        "sampling": {"samples_per_epoch": settings.samples_per_epoch},
    }
    if settings.epochs <= train.sampling.mining.start_epoch:
        changes["sampling"]["mining"] = train.sampling.mining.model_dump() | {"every": 0}
    return replace_settings(train, changes)


def _known_settings(train: Train, settings: Search) -> dict[str, Any]:
    """The settings of the train block, as far as they are in the space: the ones to beat, in the first trial."""
    known: dict[str, Any] = {}
    if settings.lr[0] <= train.optimisation.lr <= settings.lr[1]:
        known["lr"] = train.optimisation.lr
    for kind in _CLASSES:
        angles = getattr(train.sampling.rotations, kind)
        if angles in getattr(settings.rotations, kind):
            known[kind] = _as_text(angles)
    return known


def _run_trial(trial: "Trial", study: "Study", settings: Search, inputs: Inputs, parent: str, show: Show) -> float:
    """Train with some settings; the highest validation F1 of its epochs."""
    import optuna

    from mitoscope.evaluation.metrics import patch_scores
    from mitoscope.learning.devices import join
    from mitoscope.learning.loop import fit
    from mitoscope.tracking import searches, studies

    # Chance of its own for each trial, so that a search that goes on does not repeat itself.
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
            f"params.yaml: search.lr: no trial of {inputs.network} came to an end; choose lower learning rates"
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
    """What a trial tried, as entries of a train block."""
    rotations = {kind: [float(angle) for angle in trial.params[kind].split()] for kind in _CLASSES}
    return {"optimisation": {"lr": trial.params["lr"]}, "sampling": {"rotations": rotations}}


def _as_text(angles: Sequence[float]) -> str:
    """Angles as one choice of a search: Optuna's choices are no lists."""
    return " ".join(repr(angle).removesuffix(".0") for angle in angles)


def _running(study: "Study") -> "list[FrozenTrial]":
    from optuna.trial import TrialState

    return study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
