"""Candidates: places that are blue for their brightness, as chromatin stained with haematoxylin is."""

import cv2
import numpy as np
import numpy.typing as npt

from mitoscope.datasets.annotations import Centres
from mitoscope.datasets.images import Image, Mask
from mitoscope.histology.windows import to_scale

Plane = npt.NDArray[np.float32]


def blue_ratio(image: Image) -> Plane:
    """Blue-ratio image of an (H, W, 3) uint8 RGB image: 100 B / (1 + R + G) x 256 / (1 + R + G + B), float32.

    Source: Chang, Loss and Parvin, "Nuclear segmentation in H&E sections via multi-reference graph cut", ISBI 2012.
    """
    red, green, blue = (image[..., channel].astype(np.float32) for channel in range(3))
    return np.asarray(100 * blue / (1 + red + green) * 256 / (1 + red + green + blue), dtype=np.float32)


def halve(image: Image) -> Image:
    """Reduce an (H, W, 3) image to half its size (rounded up), each pixel the mean of four."""
    rows, columns = image.shape[:2]
    even = cv2.copyMakeBorder(image, 0, rows % 2, 0, columns % 2, cv2.BORDER_REPLICATE)
    size = (even.shape[1] // 2, even.shape[0] // 2)
    return np.asarray(cv2.resize(even, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def find_candidates(image: Image, mask: Mask | None, *, count: int, sigma: float, window: int) -> Centres:
    """Find the peaks of the smoothed blue-ratio image, taken at half resolution.

    Args:
        image: (H, W, 3) uint8 RGB at full resolution.
        mask: (H, W) bool; candidates lie in it. None = anywhere.
        count: at most this many, the strongest.
        sigma: of the Gaussian smoothing, px at half resolution.
        window: a peak is the maximum of window x window px at half resolution; odd.

    Returns:
        (N, 2) float64 row, col at full resolution, strongest first. A flat image (white, black, one colour) has none.
    """
    smooth = cv2.GaussianBlur(blue_ratio(halve(image)), (0, 0), sigma)
    neighbourhood = np.ones((window, window), np.uint8)
    # A plateau equals its maximum everywhere, give or take the smoothing's rounding; only what rises above its
    # neighbourhood's minimum is a peak.
    rises = smooth > cv2.erode(smooth, neighbourhood) * np.float32(1 + 1e-5)
    peaks = (smooth == cv2.dilate(smooth, neighbourhood)) & rises
    # Touching pixels of equal height are one peak: take the middle of each.
    _, _, _, centroids = cv2.connectedComponentsWithStats(peaks.astype(np.uint8), connectivity=8)
    half = centroids[1:, ::-1]  # the first is the background; OpenCV says x, y
    strength = smooth[tuple(np.round(half).astype(int).T)]
    centres = to_scale(half, 2.0)
    if mask is not None:
        inside = np.clip(np.round(centres).astype(int), 0, np.array(mask.shape) - 1)
        kept = mask[inside[:, 0], inside[:, 1]]
        centres, strength = centres[kept], strength[kept]
    return centres[np.argsort(-strength, kind="stable")[:count]].astype(np.float64)
