"""A detector whose network runs elsewhere, such as in ONNX Runtime. All else is the detector itself."""

from dataclasses import dataclass, fields
from typing import Self

import numpy as np
import numpy.typing as npt
from scipy.special import softmax

from mitoscope.detection.detector import Detector, Probabilities
from mitoscope.detection.field_head import Features
from mitoscope.exporting.onnx import FEATURES, LOGITS, Run
from mitoscope.learning.batches import Windows
from mitoscope.learning.scoring import OnBatch, mirrored, rotated_patches

_BATCH = 256


@dataclass(frozen=True)
class ExportedDetector(Detector):
    """A detector that scores candidates with another implementation of its network.

    Attributes:
        run: the network; for a field head its outputs must have `features`.
    """

    run: Run

    @classmethod
    def of(cls, detector: Detector, run: Run) -> Self:
        """Return a detector with another network."""
        return cls(**{field.name: getattr(detector, field.name) for field in fields(Detector)}, run=run)

    def _score_alone(self, windows: Windows, on_batch: OnBatch | None) -> Probabilities:
        probabilities: Probabilities = softmax(self._outputs(windows, LOGITS, on_batch), axis=1)[:, 1]
        return probabilities

    def _pool(self, windows: Windows) -> Features:
        return self._outputs(windows, FEATURES, None).astype(np.float32)

    def _outputs(self, windows: Windows, name: str, on_batch: OnBatch | None) -> npt.NDArray[np.float64]:
        """Return an output of the network for every window, averaged over the views, as `learning.scoring` does."""
        found = []
        for start in range(0, len(windows), _BATCH):
            done = min(start + _BATCH, len(windows))
            read, count = windows.read(np.arange(start, done)), self.detection.views
            patches = rotated_patches(read, self.model.patch_size, count)
            views = [view.contiguous().numpy() for turned in patches for view in mirrored(turned, count)]
            found.append(np.mean([self.run(view)[name] for view in views], axis=0, dtype=np.float64))
            if on_batch:
                on_batch(done, len(windows))
        return np.concatenate(found)
