"""The pictures are readable PNG files that show what they are given."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from mitoscope.tracking.figures import draw_learning_curves, draw_scores

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
    path = tmp_path / "new" / "alexnet.png"
    draw_learning_curves(path, history(epochs), title="alexnet", best_epoch=1)
    assert pixels(path).shape[:2] == (396, 1320)  # 12 x 3.6 inches at 110 dpi
    assert [file.name for file in path.parent.iterdir()] == ["alexnet.png"]


def test_the_curves_follow_the_epochs_and_the_best(tmp_path):
    drawn = []
    for number, (epochs, best) in enumerate([(4, 1), (4, 3), (5, 3)]):
        draw_learning_curves(tmp_path / f"{number}.png", history(epochs), title="alexnet", best_epoch=best)
        drawn.append(pixels(tmp_path / f"{number}.png"))
    assert (drawn[0] != drawn[1]).any() and (drawn[1] != drawn[2]).any()


def test_scores(tmp_path):
    drawn = []
    for threshold in (0.5, 0.95):  # 2 and 1 found; none found
        path = tmp_path / f"{threshold}.png"
        draw_scores(path, LABELS, PROBABILITIES, threshold=threshold, title="alexnet, synthetic data")
        drawn.append(pixels(path))
    assert drawn[0].shape[:2] == (440, 1320)
    changed = (drawn[0] != drawn[1]).any(axis=(0, 2)).nonzero()[0]
    assert changed.min() > 800  # only the third panel, the confusion matrix, depends on the threshold


def test_a_failed_drawing_leaves_the_old_picture(tmp_path):
    path = tmp_path / "alexnet.png"
    path.write_bytes(b"old")
    with pytest.raises(KeyError):
        draw_learning_curves(path, [{"train/loss": 1.0}], title="alexnet", best_epoch=1)
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1
