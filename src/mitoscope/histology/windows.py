"""Resized fields, coordinates in them, and windows round points."""

import math
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from mitoscope.datasets.annotations import Centres
from mitoscope.datasets.images import Image

Window = npt.NDArray[np.uint8]


def resize(image: Image, scale: float) -> Image:
    """Resize an (H, W, 3) image: reduced (`scale` < 1) by averaging pixels, enlarged by cubic interpolation.

    The sides are rounded to whole pixels, so the two axes may be scaled a little differently: `rescale` knows by how
    much.
    """
    if scale == 1:
        return image
    size = tuple(max(1, round(side * scale)) for side in (image.shape[1], image.shape[0]))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, size, interpolation=how), dtype=np.uint8)


def rescale(points: npt.NDArray[np.floating], source: Sequence[int], target: Sequence[int]) -> Centres:
    """Coordinates of the same points after an image is resized; the middle of a pixel is a whole number.

    Args:
        points: (N, 2) row, col in the image as it was.
        source: its shape, (H, W, ...).
        target: the shape after resizing.

    Returns:
        (N, 2) float64.
    """
    scale = np.array(target[:2]) / np.array(source[:2])
    return np.asarray((points + 0.5) * scale - 0.5, dtype=np.float64)


def window_size(patch_size: int) -> int:
    """Side of the window from which a patch can be cropped at any angle, of the same parity as the patch.

    The patch's corner pixel lies (patch_size - 1) / sqrt 2 from its middle, and must lie between pixels of the window.
    """
    side = math.ceil((patch_size - 1) * math.sqrt(2) + 1)
    return side + (side - patch_size) % 2


class FieldWindows:
    """Windows round points of one image, cut when they are asked for; outside the image lies the reflected border.

    A field of thousands of candidates would fill the memory with windows that overlap.

    Attributes:
        size: side of the windows, px.
        edge: (N,) bool, part of the window is reflected border.
    """

    def __init__(self, image: Image, points: Centres, size: int) -> None:
        """Prepare windows of `size` px round (N, 2) row, col in an (H, W, 3) uint8 image."""
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
        """Window number `record`, (size, size, 3) uint8."""
        top, left = self._corners[record]
        return self._padded[top : top + self.size, left : left + self.size]

    def cut(self) -> npt.NDArray[np.uint8]:
        """All windows at once, (N, size, size, 3) uint8."""
        windows = np.empty((len(self), self.size, self.size, 3), np.uint8)
        for number, window in enumerate(windows):
            window[:] = self[number]
        return windows
