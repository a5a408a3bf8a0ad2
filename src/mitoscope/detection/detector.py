"""The detector: propose -> score -> calibrate -> threshold -> suppress. One class, saved as one file.

Stage `detector` fits it, stage `evaluate` tests it, the gate promotes it, and `mitoscope detect` and the server run it.
All of them use the same object, so the detector that passes the gate is the one that is served.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch
from pydantic import ValidationError

from mitoscope.datasets.annotations import Centres
from mitoscope.datasets.readers import Image, Mask, Picture
from mitoscope.detection.calibration import Calibration
from mitoscope.detection.field_head import FieldHead
from mitoscope.detection.origin import Origin
from mitoscope.errors import InputError, first_problem
from mitoscope.evaluation.matching import suppress
from mitoscope.histology.prepared import prepare
from mitoscope.learning import checkpoints
from mitoscope.learning.batches import Windows
from mitoscope.learning.devices import alone
from mitoscope.learning.networks import PatchNetwork
from mitoscope.learning.scoring import OnBatch, pool_patches, score_patches
from mitoscope.params import Detection, Extract

FORMAT = 3  # of the file; format 1 had the weights and separate entries, format 2 other views
_MOST_ZOOM = 4
_ANEW = "run `dvc repro` to make it anew, and `mitoscope promote` for the registry"
_REMEDY = "give models/<network>/detector.pt, which `dvc repro` writes"

Integers = npt.NDArray[np.int64]
Probabilities = npt.NDArray[np.float64]


class Proposals(NamedTuple):
    """Candidates of one field.

    Attributes:
        points: (N, 2) float64 row, col in the field's pixels, strongest first.
        windows: (N, S, S, 3) uint8 RGB around the points, cut on access; S is wider than a patch, so that patches can
            be rotated.
        normalised: whether the stain was normalised; false if that failed or the detector does not ask for it.
    """

    points: Centres
    windows: Windows
    normalised: bool


class Detections(NamedTuple):
    """Mitoses found in one field, most probable first.

    Attributes:
        points: (N, 2) float64 row, col in the field's pixels.
        probabilities: (N,) float64, all at or above the detector's threshold.
        normalised: whether the stain was normalised; false if that failed or the detector does not ask for it.
    """

    points: Centres
    probabilities: Probabilities
    normalised: bool


@dataclass(frozen=True)
class Detector:
    """A network and everything that turns its scores into mitoses.

    Attributes:
        model: the network with its weights, in evaluation mode.
        extract: how a field becomes candidates and patches.
        detection: how candidates are scored.
        head: scores candidates relative to the others of their field; None = the network's own head scores them.
        calibration: maps every field's scores to a typical spread; None with a field head, which needs none.
        threshold: a candidate that scores at or above it is a mitosis.
        patch_threshold: a single patch is a mitosis if the network's own head scores it at or above this.
        origin: the detector's training, dataset and patients.
    """

    model: PatchNetwork
    extract: Extract
    detection: Detection
    head: FieldHead | None
    calibration: Calibration | None
    threshold: float
    patch_threshold: float
    origin: Origin

    def __post_init__(self) -> None:
        """Raise ValueError if there are a field head and a calibration: both make fields comparable."""
        if self.head is not None and self.calibration is not None:
            raise ValueError("a detector has a field head or a calibration, not both")

    def propose(
        self, image: Image, mask: Mask | None, microns_per_pixel: float, opaque: Mask | None = None
    ) -> Proposals:
        """Find the candidates of a field.

        Args:
            image: (H, W, 3) uint8 RGB.
            mask: (H, W) bool, where candidates may lie; None = anywhere.
            microns_per_pixel: pixel size of the image, um.
            opaque: (H, W) bool, false where the image is transparent: no candidates, no area; None = opaque.

        Returns:
            The candidates with their windows; those with the strongest blue ratio come first.
        """
        field = prepare(Picture(image, opaque, None), microns_per_pixel, self.extract)
        points = field.candidates(mask)
        return Proposals(points, Windows.of(field.windows(points)), field.normalised)

    def score(self, windows: Windows, field: Integers, on_batch: OnBatch | None = None) -> Probabilities:
        """Return the probability of a mitosis for every candidate, relative to the others of its field.

        Args:
            windows: (N, S, S, 3) uint8 RGB of all candidates of the fields.
            field: (N,) field number of each candidate.
            on_batch: called with the number of candidates done and the total.

        Returns:
            (N,) float64 probabilities.
        """
        device, views = alone(next(self.model.parameters()).device), self.detection.views
        if self.head is None:
            probabilities = score_patches(self.model, windows, device, views=views, on_batch=on_batch)
            return self.calibration.apply_by_field(probabilities, field) if self.calibration else probabilities
        probabilities = np.zeros(len(windows))
        for number in np.unique(field):
            inside = np.flatnonzero(field == number)
            features = pool_patches(self.model, windows.take(inside), device, views=views)
            probabilities[inside] = self.head.probabilities(features)
            if on_batch:
                on_batch(int((field <= number).sum()), len(windows))
        return probabilities

    def classify(self, windows: Windows, on_batch: OnBatch | None = None) -> Probabilities:
        """Return the probability of a mitosis for single patches, scored by the network's own head.

        Args:
            windows: (N, S, S, 3) uint8 RGB; the patch in the middle of each is scored.
            on_batch: called with the number of patches done and the total.

        Returns:
            (N,) float64 probabilities.
        """
        return score_patches(self.model, windows, alone(next(self.model.parameters()).device), on_batch=on_batch)

    def detect(
        self,
        image: Image,
        microns_per_pixel: float | None = None,
        mask: Mask | None = None,
        opaque: Mask | None = None,
    ) -> Detections:
        """Find the mitoses of a field.

        Args:
            image: (H, W, 3) uint8 RGB.
            microns_per_pixel: pixel size of the image, um; None = that of the training fields.
            mask: (H, W) bool, where candidates may lie; None = anywhere.
            opaque: (H, W) bool, false where the image is transparent: no candidates, no area; None = opaque.

        Returns:
            The mitoses with their probabilities; empty arrays if there are none.

        Raises:
            InputError: the pixel size differs too much from that of the training fields.
        """
        microns = self.check_pixels(microns_per_pixel)
        points, windows, normalised = self.propose(image, mask, microns, opaque)
        probabilities = self.score(windows, np.zeros(len(points), dtype=np.int64))
        found = np.flatnonzero(probabilities >= self.threshold)
        found = found[suppress(points[found], probabilities[found], self.detection.suppress_um / microns)]
        return Detections(points[found], probabilities[found], normalised)

    def check_pixels(self, microns_per_pixel: float | None) -> float:
        """Return the pixel size to use, um.

        Args:
            microns_per_pixel: pixel size of an image, um; None = that of the training fields.

        Raises:
            InputError: the pixels are more than four times finer or coarser than those of the training fields.
        """
        known = self.origin.microns_per_pixel
        microns = known if microns_per_pixel is None else microns_per_pixel
        if not 1 / _MOST_ZOOM <= microns / known <= _MOST_ZOOM:
            raise InputError(
                f"{microns} um per pixel: the detector was trained at {known} um and takes images with pixels at most "
                f"{_MOST_ZOOM} times finer or coarser; give the image's true pixel size"
            )
        return microns

    def to(self, device: torch.device) -> Self:
        """Move the network to `device` in place, and return this detector."""
        self.model.to(device)
        return self

    def save(self, path: Path) -> None:
        """Write the detector to the file `path` atomically.

        Raises:
            OSError: the disk is full, or the folder is not writable; an existing file is left unchanged.
        """
        head = self.head and {
            name: torch.from_numpy(value) if isinstance(value, np.ndarray) else value
            for name, value in self.head.content().items()
        }
        checkpoints.save_network(
            path,
            self.model,
            format=FORMAT,
            extract=self.extract.model_dump(mode="json"),
            detection=self.detection.model_dump(mode="json"),
            field_head=head,
            spread=self.calibration and [self.calibration.middle, self.calibration.upper],
            threshold=self.threshold,
            patch_threshold=self.patch_threshold,
            origin=asdict(self.origin),
        )

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a detector that `save` wrote to `path`, without running any code from the file.

        Raises:
            InputError: the file is missing or damaged, contains weights only, or has another format version.
        """
        try:
            model, content = checkpoints.load_network(path)
        except InputError as error:
            raise InputError(f"{error}; {_REMEDY}") from error
        if "format" not in content:
            raise InputError(f"{path}: contains weights, not a detector; {_REMEDY}")
        if (version := content["format"]) != FORMAT:
            raise InputError(f"{path}: has format {version}, and this mitoscope reads format {FORMAT}; {_ANEW}")
        try:
            detection = Detection.model_validate(content["detection"])
            head, calibration, spread = None, None, content["spread"]
            if detection.refit_fields:
                head = FieldHead.restore(content["field_head"], model.pooled.channels, detection.field_head)
            if spread is not None:
                calibration = Calibration(detection.calibration, float(spread[0]), float(spread[1]))
            return cls(
                model=model,
                extract=Extract.model_validate(content["extract"]),
                detection=detection,
                head=head,
                calibration=calibration,
                threshold=float(content["threshold"]),
                patch_threshold=float(content["patch_threshold"]),
                origin=Origin(**content["origin"]),
            )
        except (LookupError, TypeError, ValueError) as error:
            problem = first_problem(error) if isinstance(error, ValidationError) else error
            raise InputError(f"{path}: is damaged ({problem}); run `dvc repro` again") from error
