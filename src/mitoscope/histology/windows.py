"""Resizing of fields, coordinates in resized fields, and windows round points."""

import math

import cv2
import numpy as np
import numpy.typing as npt

from mitoscope.datasets.annotations import Centres
from mitoscope.datasets.images import Image

Windows = npt.NDArray[np.uint8]


def window_size(patch_size: int) -> int:
    """Side of the window from which a patch can be cropped at any angle, of the same parity as the patch.

    The patch's corner pixel lies (patch_size - 1) / sqrt 2 from its middle, and must lie between pixels of the window.
    """
    side = math.ceil((patch_size - 1) * math.sqrt(2) + 1)
    return side + (side - patch_size) % 2


def resize(image: Image, scale: float) -> Image:
    """Resize an (H, W, 3) image: reduced (`scale` < 1) by averaging pixels, enlarged by cubic interpolation."""
    if scale == 1:
        return image
    size = tuple(max(1, round(side * scale)) for side in (image.shape[1], image.shape[0]))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, size, interpolation=how), dtype=np.uint8)


def cut_windows(image: Image, centres: Centres, size: int) -> tuple[Windows, npt.NDArray[np.bool_]]:
    """Cut a window around each centre; outside the image it is the reflected border.

    Args:
        image: (H, W, 3) uint8.
        centres: (N, 2) row, col in this image.
        size: side of the windows, px.

    Returns:
        (N, size, size, 3) uint8, and (N,) bool: part of the window is reflected border.
    """
    rows, columns = image.shape[:2]
    pad = size // 2 + 1
    padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)), mode="reflect")
    corners = np.floor(centres - (size - 1) / 2 + 0.5).astype(int)
    windows = np.empty((len(centres), size, size, 3), np.uint8)
    for window, (top, left) in zip(windows, corners + pad, strict=True):
        window[:] = padded[top : top + size, left : left + size]
    edge = (corners < 0).any(axis=1) | (corners + size > (rows, columns)).any(axis=1)
    return windows, np.asarray(edge, dtype=np.bool_)


def to_scale(centres: npt.NDArray[np.floating], scale: float) -> Centres:
    """Coordinates (N, 2) of the same points after the image is resized by `scale`; pixel centres are whole numbers."""
    return np.asarray((centres + 0.5) * scale - 0.5, dtype=np.float64)
