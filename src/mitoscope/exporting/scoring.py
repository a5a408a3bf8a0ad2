"""The scores of a detector whose network runs elsewhere, such as in ONNX Runtime."""

import numpy as np
import numpy.typing as npt
from scipy.special import softmax

from mitoscope.detection.detector import Detector, Integers, Probabilities
from mitoscope.exporting.onnx import FEATURES, LOGITS, Run
from mitoscope.learning.batches import Windows
from mitoscope.learning.scoring import OnBatch, cut_views

_BATCH = 256


def score(
    detector: Detector, run: Run, windows: Windows, field: Integers, on_batch: OnBatch | None = None
) -> Probabilities:
    """Return the probability of a mitosis for every candidate, as `Detector.score` does, by another network.

    Args:
        detector: tells the views, the field head and the calibration.
        run: the network; for a field head its outputs must have `features`.
        windows: (N, S, S, 3) uint8 RGB of all candidates of the fields, at least one.
        field: (N,) field number of each candidate.
        on_batch: called with the number of candidates done and the total.

    Returns:
        (N,) float64 probabilities.
    """
    name = LOGITS if detector.head is None else FEATURES
    outputs = _outputs(detector, run, name, windows, on_batch)
    if detector.head is None:
        probabilities = softmax(outputs, axis=1)[:, 1]
        return detector.calibration.apply_by_field(probabilities, field) if detector.calibration else probabilities
    probabilities = np.zeros(len(windows))
    for number in np.unique(field):
        inside = field == number
        probabilities[inside] = detector.head.probabilities(outputs[inside].astype(np.float32))
    return probabilities


def _outputs(
    detector: Detector, run: Run, name: str, windows: Windows, on_batch: OnBatch | None
) -> npt.NDArray[np.float64]:
    """Return an output of the network for every window, averaged over the views."""
    size, count, found = detector.model.patch_size, detector.detection.views, []
    for start in range(0, len(windows), _BATCH):
        done = min(start + _BATCH, len(windows))
        views = [view.contiguous().numpy() for view in cut_views(windows.read(np.arange(start, done)), size, count)]
        found.append(np.mean([run(view)[name] for view in views], axis=0, dtype=np.float64))
        if on_batch:
            on_batch(done, len(windows))
    return np.concatenate(found)
