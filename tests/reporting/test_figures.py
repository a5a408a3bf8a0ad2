"""The figures are readable PNG files that show their input."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from mitoscope.reporting.figures import draw_field_scores, draw_learning_curves, draw_networks, draw_scores

pytestmark = pytest.mark.slow

LABELS = [1, 1, 1, 0, 0, 0, 0, 0]
PROBABILITIES = [0.9, 0.8, 0.3, 0.7, 0.2, 0.1, 0.4, 0.05]


def history(epochs: int) -> list[dict[str, float]]:
    names = [f"{subset}/{name}" for subset in ("train", "validation") for name in ("loss", "f1", "recall", "precision")]
    return [
        dict.fromkeys(names, 1 / (number + 2)) | {"validation/best_f1": 0.5, "train/lr": 0.1}
        for number in range(epochs)
    ]


def pixels(path: Path) -> np.ndarray:
    picture = cv2.imread(str(path))
    assert picture is not None and picture.std() > 5
    return picture


@pytest.mark.parametrize("epochs", [1, 5])
def test_learning_curves(tmp_path, epochs):
    path = tmp_path / "new" / "small.png"
    draw_learning_curves(path, history(epochs), title="small", best_epoch=1)
    assert pixels(path).shape[:2] == (396, 1320)  # 12 x 3.6 inches at 110 dpi
    assert [file.name for file in path.parent.iterdir()] == ["small.png"]


def test_the_curves_follow_the_epochs_and_the_best(tmp_path):
    drawn = []
    for number, (epochs, best) in enumerate([(4, 1), (4, 3), (5, 3)]):
        draw_learning_curves(tmp_path / f"{number}.png", history(epochs), title="small", best_epoch=best)
        drawn.append(pixels(tmp_path / f"{number}.png"))
    assert (drawn[0] != drawn[1]).any() and (drawn[1] != drawn[2]).any()


def test_scores(tmp_path):
    drawn = []
    for threshold in (0.5, 0.95):  # 2 and 1 found; none found
        path = tmp_path / f"{threshold}.png"
        draw_scores(path, LABELS, PROBABILITIES, threshold=threshold, title="small, synthetic data")
        drawn.append(pixels(path))
    assert drawn[0].shape[:2] == (440, 1320)
    changed = (drawn[0] != drawn[1]).any(axis=(0, 2)).nonzero()[0]
    assert changed.min() > 800  # only the third panel, the confusion matrix, depends on the threshold


def test_field_scores_show_the_curve_the_counts_and_the_fields(tmp_path):
    fields = pd.DataFrame({"patient": ["01", "02"], "mitoses_per_mm2": [4.0, 0.0], "detections_per_mm2": [8.0, 2.0]})
    curve = pd.DataFrame({"fp_per_mm2": [0.0, 2.0, 4.0], "recall": [0.3, 0.3, 0.7]})
    metrics = {"tp": 2, "fp": 2, "fn": 1, "area_mm2": 0.5, "precision": 0.5, "recall": 0.6, "f1": 0.55}

    def draw(curve, fields, metrics):
        draw_field_scores(tmp_path / "fields.png", {"small": curve}, fields, metrics, title="small, synthetic data")
        return pixels(tmp_path / "fields.png")

    first = draw(curve, fields, metrics)
    assert first.shape[:2] == (440, 1320)
    for change in ((curve / 2, fields, metrics), (curve, fields[:1], metrics), (curve, fields, metrics | {"fn": 2})):
        assert (draw(*change) != first).any()
    assert (draw(curve, fields, metrics) == first).all()


@pytest.mark.parametrize("points", [0, 1])
def test_field_scores_of_nearly_nothing(tmp_path, points):
    curve = pd.DataFrame({"fp_per_mm2": [1.0] * points, "recall": [0.5] * points})
    fields = pd.DataFrame({"patient": ["01"], "mitoses_per_mm2": [0.0], "detections_per_mm2": [0.0]})
    metrics = {"tp": 0, "fp": 0, "fn": 0, "area_mm2": 0.5, "precision": 0.0, "recall": 0.0, "f1": 0.0}
    draw_field_scores(tmp_path / "fields.png", {"small": curve}, fields, metrics, title="small")
    assert pixels(tmp_path / "fields.png").shape[:2] == (440, 1320)


def test_a_failed_drawing_leaves_the_old_picture(tmp_path):
    path = tmp_path / "small.png"
    path.write_bytes(b"old")
    with pytest.raises(KeyError):
        draw_learning_curves(path, [{"train/loss": 1.0}], title="small", best_epoch=1)
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


def test_networks(tmp_path):
    curves = {
        "pr": pd.DataFrame({"recall": [1.0, 0.5], "precision": [0.4, 1.0]}),
        "roc": pd.DataFrame({"fpr": [0.0, 0.2, 1.0], "tpr": [0.0, 0.5, 1.0]}),
        "froc": pd.DataFrame({"fp_per_mm2": [0.0, 30.0], "recall": [0.2, 0.9]}),
    }
    points = {"pr": (0.5, 1.0), "roc": (0.2, 0.5), "froc": (30.0, 0.9)}
    drawn = []
    for names in (["small (random)"], ["small (random)", "large (imagenet)"]):
        path = tmp_path / f"{len(names)}.png"
        both = (dict.fromkeys(names, some) for some in (curves, points))
        draw_networks(path, *both, prevalence=0.4, title="synthetic data")
        drawn.append(pixels(path))
    assert drawn[0].shape == (440, 1320, 3)
    assert (drawn[0] != drawn[1]).any(axis=(0, 2)).nonzero()[0].max() > 1000  # the last panel changes too
