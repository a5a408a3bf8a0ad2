"""Outputs of stage `search@network`: the best settings, a table of the trials, and pictures of the study."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from mitoscope.files import atomic_folder, atomic_path, write_json
from mitoscope.reporting.colours import BLUE, VERMILION

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

_SETTINGS = ("lr", "positive", "negative")
_COLUMNS = ["network", "number", "state", "validation_f1", *_SETTINGS, "epochs", "seconds", "run_id"]


def write_outputs(
    folder: Path, network: str, result: dict[str, Any], trials: "Sequence[FrozenTrial]" = (), *, title: str = ""
) -> list[Path]:
    """Write <network>.json, the table <network>.csv and the pictures <network>/*.png into `folder`.

    Args:
        folder: results/search/.
        network: network whose settings were searched.
        result: content of the JSON file.
        trials: trials that count, and failed ones; without trials the table and the folder are empty.
        title: title of the pictures.

    Returns:
        The table and the pictures.
    """
    table, pictures = folder / f"{network}.csv", folder / network
    trials = sorted(trials, key=lambda trial: trial.number)
    with atomic_path(table) as temporary:
        tabulate(network, trials).to_csv(temporary, index=False)
    with atomic_folder(pictures, replace=True) as drawn:
        if trials:
            _draw(drawn, trials, title)
    write_json(folder / f"{network}.json", result)  # last, because training reads it
    return [table, *sorted(pictures.iterdir())]


def tabulate(network: str, trials: "Sequence[FrozenTrial]") -> pd.DataFrame:
    """One row per trial, with its settings and its MLflow run."""
    rows = [
        {
            "network": network,
            "number": trial.number,
            "state": trial.state.name.lower(),
            "validation_f1": trial.value,
            **{name: trial.params.get(name) for name in _SETTINGS},
            "epochs": len(trial.intermediate_values),
            "seconds": round(trial.duration.total_seconds(), 1) if trial.duration else None,
            "run_id": trial.user_attrs.get("run_id"),
        }
        for trial in trials
    ]
    return pd.DataFrame(rows, columns=_COLUMNS)


def _draw(folder: Path, trials: "Sequence[FrozenTrial]", title: str) -> None:
    """Draw the history of the search; with two or more complete trials also importances and parallel coordinates."""
    import matplotlib as mpl
    import optuna
    from matplotlib import pyplot
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator
    from optuna.trial import TrialState
    from optuna.visualization import matplotlib as pictures

    mpl.use("Agg")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize")  # only of these trials: the storage may hold more
    study.add_trials(trials)
    objective = "validation F1"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # experimental functions, and axes on which all trials agree
        drawn = {"history": pictures.plot_optimization_history(study, target_name=objective)}
        drawn["history"].xaxis.set_major_locator(MaxNLocator(integer=True))
        for dots in drawn["history"].collections:
            dots.set_color(BLUE)
        for line in drawn["history"].lines:
            line.set(color=VERMILION, alpha=1)
        drawn["history"].legend()
        if len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))) > 1:
            drawn["importance"] = pictures.plot_param_importances(study, target_name=objective)
            drawn["parallel"] = pictures.plot_parallel_coordinate(study, target_name=objective)
    for name, axes in drawn.items():
        figure = axes.figure
        assert isinstance(figure, Figure)
        axes.set_title("", loc="left")  # where Optuna has one
        axes.set_title(title)
        figure.set_size_inches(10, 5)
        for bar in figure.axes:  # the colour bar covers the labels of the last setting
            if bar.get_label() == "<colorbar>":
                bar.set_position((1.05, 0.1, 0.02, 0.8))
        figure.savefig(folder / f"{name}.png", dpi=100, bbox_inches="tight")
        pyplot.close(figure)
