"""What stage `search@arch` leaves: the best settings, a table of all trials, and pictures of the study."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from mitoscope.files import atomic_folder, atomic_path, write_json
from mitoscope.paths import SEARCHED

if TYPE_CHECKING:
    from optuna import Study

_COLUMNS = ["number", "state", "validation_f1", "lr", "positive", "negative", "epochs", "seconds", "run_id"]


def write_outputs(arch: str, result: dict[str, Any], study: "Study | None" = None, *, title: str = "") -> list[Path]:
    """Write `result` and the table and pictures of a study; without one the table and the folder are empty.

    Returns:
        The table and the pictures.
    """
    table = SEARCHED / f"{arch}.csv"
    with atomic_path(table) as temporary:
        (pd.DataFrame(columns=_COLUMNS) if study is None else tabulate(study)).to_csv(temporary, index=False)
    with atomic_folder(SEARCHED / arch, replace=True) as folder:
        if study is not None:
            _draw(folder, study, title)
    write_json(SEARCHED / f"{arch}.json", result)  # last, because training looks for it
    return [table, *sorted((SEARCHED / arch).iterdir())]


def tabulate(study: "Study") -> pd.DataFrame:
    """One row per trial that came to an end, whatever end, with its settings and its run in MLflow."""
    rows = [
        {
            "number": trial.number,
            "state": trial.state.name.lower(),
            "validation_f1": trial.value,
            **{name: trial.params.get(name) for name in ("lr", "positive", "negative")},
            "epochs": len(trial.intermediate_values),
            "seconds": round(trial.duration.total_seconds(), 1) if trial.duration else None,
            "run_id": trial.user_attrs.get("run_id"),
        }
        for trial in study.get_trials(deepcopy=False)
        if trial.state.is_finished() and trial.params
    ]
    return pd.DataFrame(rows, columns=_COLUMNS)


def _draw(folder: Path, study: "Study", title: str) -> None:
    """Draw how the search went; with two complete trials or more also which setting matters, and all trials at once."""
    import matplotlib as mpl
    from matplotlib import pyplot
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator
    from optuna.trial import TrialState
    from optuna.visualization import matplotlib as pictures

    mpl.use("Agg")
    objective = "validation F1"
    drawn = {"history": pictures.plot_optimization_history(study, target_name=objective)}
    drawn["history"].xaxis.set_major_locator(MaxNLocator(integer=True))
    if len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))) > 1:
        drawn["importance"] = pictures.plot_param_importances(study, target_name=objective)
        drawn["parallel"] = pictures.plot_parallel_coordinate(study, target_name=objective)
    for name, axes in drawn.items():
        figure = axes.figure
        assert isinstance(figure, Figure)
        axes.set_title(title)
        figure.set_size_inches(10, 5)
        for bar in figure.axes:  # it lies on the labels of the last setting
            if bar.get_label() == "<colorbar>":
                bar.set_position((1.05, 0.1, 0.02, 0.8))
        figure.savefig(folder / f"{name}.png", dpi=100, bbox_inches="tight")
        pyplot.close(figure)
