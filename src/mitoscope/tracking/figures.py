"""The pictures of a run: how it learned, and how it scores."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import ConfusionMatrixDisplay, PrecisionRecallDisplay, RocCurveDisplay

from mitoscope.files import atomic_path


def draw_learning_curves(path: Path, history: Sequence[Mapping[str, float]], *, title: str, best_epoch: int) -> None:
    """Draw loss, F1, recall and precision per epoch, training and validation, with the best epoch marked."""
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    panels: list[Axes] = list(figure.subplots(1, 4))
    epochs = range(1, len(history) + 1)
    for axes, name in zip(panels, ("loss", "f1", "recall", "precision"), strict=True):
        for subset in ("train", "validation"):
            axes.plot(epochs, [epoch[f"{subset}/{name}"] for epoch in history], marker="o", ms=3, label=subset)
        if name == "f1":
            best = [epoch["validation/best_f1"] for epoch in history]
            axes.plot(epochs, best, marker="o", ms=3, ls="--", label="validation, best threshold")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.axvline(best_epoch, color="0.7", lw=1, zorder=0)
        axes.set(title=name if name == "loss" else f"{name} at 0.5", xlabel="epoch")
        if name != "loss":
            axes.set_ylim(0, 1)
        axes.legend(fontsize=7)
    figure.suptitle(title)
    _save(figure, path)


def draw_scores(
    path: Path, labels: Sequence[int], probabilities: Sequence[float], *, threshold: float, title: str
) -> None:
    """Draw the precision-recall curve, the ROC curve and the confusion matrix at `threshold`."""
    figure = Figure(figsize=(12, 4), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    PrecisionRecallDisplay.from_predictions(labels, probabilities, ax=left, plot_chance_level=True)
    RocCurveDisplay.from_predictions(labels, probabilities, ax=middle, plot_chance_level=True)
    for axes in (left, middle):  # the displays ask for squares, which leaves no room for the labels below them
        axes.set_aspect("auto")
    predicted = [int(probability >= threshold) for probability in probabilities]
    ConfusionMatrixDisplay.from_predictions(
        labels, predicted, labels=[0, 1], display_labels=["negative", "mitosis"], ax=right, colorbar=False
    )
    right.set_title(f"at the validation threshold, {threshold:.3f}")
    figure.suptitle(title)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110)
