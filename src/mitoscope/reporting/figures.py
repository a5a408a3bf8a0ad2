"""The figures of a run: learning curves and scores."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import ConfusionMatrixDisplay, PrecisionRecallDisplay, RocCurveDisplay

from mitoscope.files import atomic_path
from mitoscope.reporting.colours import SKY_BLUE, VERMILION, YELLOW, line_cycle
from mitoscope.reporting.results import heading, percent


def draw_learning_curves(path: Path, history: Sequence[Mapping[str, float]], *, title: str, best_epoch: int) -> None:
    """Draw loss, F1, recall and precision per epoch of training and validation, with the best epoch marked."""
    figure, panels = _panels(4, height=3.6)
    epochs = range(1, len(history) + 1)
    for axes, name in zip(panels, ("loss", "f1", "recall", "precision"), strict=True):
        for subset in ("train", "validation"):
            axes.plot(epochs, [epoch[f"{subset}/{name}"] for epoch in history], marker="o", ms=3, label=subset)
        if name == "f1":
            best = [epoch["validation/best_f1"] for epoch in history]
            axes.plot(epochs, best, marker="o", ms=3, ls=":", label="validation, best threshold")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.axvline(best_epoch, color="0.7", lw=1, zorder=0)
        axes.set(title=name if name == "loss" else f"{heading(name)} at 0.5", xlabel="epoch")
        if name != "loss":
            axes.set_ylim(0, 1)
        axes.legend(fontsize=7)
    figure.suptitle(title)
    _save(figure, path)


def draw_scores(
    path: Path, labels: Sequence[int], probabilities: Sequence[float], *, threshold: float, title: str
) -> None:
    """Draw the precision-recall curve, the ROC curve and the confusion matrix at `threshold`."""
    figure, (left, middle, right) = _panels(3)
    for display, axes in ((PrecisionRecallDisplay, left), (RocCurveDisplay, middle)):
        display.from_predictions(labels, probabilities, ax=axes, name="test patches", plot_chance_level=True)
    left.set(xlabel="recall", ylabel="precision")
    middle.set(xlabel="false-positive rate", ylabel="recall")
    for axes in (left, middle):  # square panels would leave no room for the labels below them
        axes.set_aspect("auto")
    predicted = [int(probability >= threshold) for probability in probabilities]
    ConfusionMatrixDisplay.from_predictions(
        labels, predicted, labels=[0, 1], display_labels=["negative", "mitosis"], ax=right, colorbar=False
    )
    right.set(xlabel="predicted", ylabel="annotated", title=f"at the threshold, {threshold:.3f}")
    figure.suptitle(title)
    _save(figure, path)


def draw_field_scores(
    path: Path,
    curves: Mapping[str, pd.DataFrame],
    fields: pd.DataFrame,
    metrics: Mapping[str, Any],
    *,
    title: str,
) -> None:
    """Draw FROC curves with the point at the threshold, counts of objects, and detected against annotated densities.

    Args:
        path: PNG to write.
        curves: tables with fp_per_mm2 and recall, by name.
        fields: one row per field with mitoses_per_mm2 and detections_per_mm2.
        metrics: tp, fp, fn, area_mm2, precision, recall and f1 of all fields; without recall and f1 if undefined.
        title: title above the panels.
    """
    figure, (left, middle, right) = _panels(3)
    for name, curve in curves.items():
        left.step(curve.fp_per_mm2, curve.recall, where="post", label=name)
    if "recall" in metrics:
        point = (metrics["fp"] / metrics["area_mm2"], metrics["recall"])
        left.plot(*point, "k*", ms=10, label="at the threshold")
    left.set(title="FROC", xlabel="false positives per mm2", ylabel="recall", ylim=(0, 1.02), xscale="symlog")
    left.set_xlim(left=0)
    left.legend(fontsize=7, loc="lower right")
    counts = {"found": metrics["tp"], "missed": metrics["fn"], "false positives": metrics["fp"]}
    # The colours of the overlays.
    bars = middle.bar(list(counts), list(counts.values()), color=[SKY_BLUE, YELLOW, VERMILION], edgecolor="0.3")
    middle.bar_label(bars)
    middle.margins(y=0.1)
    words = (f"{heading(name)} {percent(metrics.get(name))} %" for name in ("precision", "recall", "f1"))
    middle.set_title(", ".join(words), fontsize=10)
    for patient, rows in fields.groupby("patient"):
        right.plot(rows.mitoses_per_mm2, rows.detections_per_mm2, "o", ms=5, alpha=0.7, label=str(patient))
    most = float(fields[["mitoses_per_mm2", "detections_per_mm2"]].to_numpy().max()) * 1.05 or 1.0
    right.plot([0, most], [0, most], color="0.7", ls="-", lw=1, zorder=0)
    right.set(title="one point per field", xlabel="mitoses per mm2", ylabel="detections per mm2")
    if fields.patient.nunique() <= 10:
        right.legend(fontsize=7, title="patient", title_fontsize=7)
    figure.suptitle(title)
    _save(figure, path)


def draw_networks(
    path: Path,
    curves: Mapping[str, Mapping[str, pd.DataFrame]],
    points: Mapping[str, Mapping[str, tuple[float, float]]],
    *,
    prevalence: float,
    title: str,
) -> None:
    """Draw the precision-recall, ROC and FROC curves of several networks, each with the point at its threshold.

    Args:
        path: PNG to write.
        curves: by network, the tables pr, roc and froc with the columns of the panels.
        points: by network, (x, y) at the threshold under the same names.
        prevalence: share of mitoses among the test patches, which is the precision of random scores.
        title: title above the panels.
    """
    figure, axes_of = _panels(3)
    panels = {  # title, columns of x and y, labels of x and y
        "pr": ("patches: precision-recall", "recall", "precision", "recall", "precision"),
        "roc": ("patches: ROC", "fpr", "tpr", "false-positive rate", "recall"),
        "froc": ("whole fields: FROC", "fp_per_mm2", "recall", "false positives per mm2", "recall"),
    }
    for axes, (name, (panel, x, y, xlabel, ylabel)) in zip(axes_of, panels.items(), strict=True):
        for network, tables in curves.items():
            (line,) = axes.plot(tables[name][x], tables[name][y], drawstyle="steps-post", label=network)
            axes.plot(*points[network][name], "*", ms=11, color=line.get_color(), mec="k", mew=0.7)
        axes.set(title=panel, xlabel=xlabel, ylabel=ylabel, xlim=(0, None), ylim=(0, 1.02))
    pr, roc, froc = axes_of
    froc.set(xscale="symlog")
    pr.axhline(prevalence, color="0.7", lw=1, zorder=0)
    roc.plot([0, 1], [0, 1], color="0.7", ls="-", lw=1, zorder=0)
    pr.legend(fontsize=8, loc="lower left", title="star: threshold; grey: chance", title_fontsize=7)
    figure.suptitle(title)
    _save(figure, path)


def _panels(number: int, *, height: float = 4) -> tuple[Figure, list[Axes]]:
    """A figure with panels side by side, in the colours of the project."""
    figure = Figure(figsize=(12, height), layout="constrained")
    panels: list[Axes] = list(figure.subplots(1, number))
    for axes in panels:
        axes.set_prop_cycle(line_cycle())
    return figure, panels


def _save(figure: Figure, path: Path) -> None:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110)
