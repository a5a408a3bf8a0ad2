"""Resized fields, their coordinates, and windows around points."""

import math
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from mitoscope.datasets.annotations import Centres
from mitoscope.datasets.readers import Image

Window = npt.NDArray[np.uint8]


def resize(image: Image, scale: float) -> Image:
    """Resize an (H, W, 3) image by averaging pixels (`scale` < 1) or by cubic interpolation (`scale` > 1).

    The sides are rounded to whole pixels, so the two axes may be scaled slightly differently. `rescale` accounts for
    this.
    """
    if scale == 1:
        return image
    size = tuple(max(1, round(side * scale)) for side in (image.shape[1], image.shape[0]))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, size, interpolation=how), dtype=np.uint8)


def rescale(points: npt.NDArray[np.floating], source: Sequence[int], target: Sequence[int]) -> Centres:
    """Return the coordinates of points after resizing; pixel centres have integer coordinates.

    Args:
        points: (N, 2) row, col in the original image.
        source: shape of the original image, (H, W, ...).
        target: shape after resizing.

    Returns:
        (N, 2) float64.
    """
    scale = np.array(target[:2]) / np.array(source[:2])
    return np.asarray((points + 0.5) * scale - 0.5, dtype=np.float64)


def window_size(patch_size: int) -> int:
    """Return the side of a window from which a patch can be cropped at any angle, with the same parity as the patch.

    A corner pixel of the patch lies (patch_size - 1) / sqrt 2 from its middle, and must lie between window pixels.
    """
    side = math.ceil((patch_size - 1) * math.sqrt(2) + 1)
    return side + (side - patch_size) % 2


class FieldWindows:
    """Windows around points of one image, cut on access. Outside the image they show the reflected border.

    Cutting all windows of a field with thousands of candidates would fill the memory with overlapping pixels.

    Attributes:
        size: side of the windows, px.
        edge: (N,) bool, whether part of the window is reflected border.
    """

    def __init__(self, image: Image, points: Centres, size: int) -> None:
        """Prepare windows of `size` px around (N, 2) row, col in an (H, W, 3) uint8 image."""
        pad = size // 2 + 1
        self.size = size
        self._padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)), mode="reflect")
        corners = np.floor(points - (size - 1) / 2 + 0.5).astype(int)
        self._corners = corners + pad
        beyond = (corners < 0).any(axis=1) | (corners + size > image.shape[:2]).any(axis=1)
        self.edge: npt.NDArray[np.bool_] = np.asarray(beyond, dtype=np.bool_)

    def __len__(self) -> int:
        return len(self._corners)

    def __getitem__(self, record: int, /) -> Window:
        """Return window number `record`, (size, size, 3) uint8."""
        top, left = self._corners[record]
        return self._padded[top : top + self.size, left : left + self.size]

    def cut(self) -> npt.NDArray[np.uint8]:
        """Cut all windows, (N, size, size, 3) uint8."""
        windows = np.empty((len(self), self.size, self.size, 3), np.uint8)
        for number, window in enumerate(windows):
            window[:] = self[number]
        return windows
