"""Candidates: places that are blue relative to their brightness, like chromatin stained with haematoxylin."""

import cv2
import numpy as np
import numpy.typing as npt

from mitoscope.datasets.annotations import Centres
from mitoscope.datasets.readers import Image, Mask
from mitoscope.histology.windows import rescale, resize

Plane = npt.NDArray[np.float32]


def blue_ratio(image: Image) -> Plane:
    """Return the (H, W) float32 blue ratio of an (H, W, 3) uint8 RGB image.

    The blue ratio of a pixel is 100 B / (1 + R + G) x 256 / (1 + R + G + B).

    Source: Chang, Loss and Parvin, "Nuclear segmentation in H&E sections via multi-reference graph cut", ISBI 2012.
    """
    red, green, blue = (image[..., channel].astype(np.float32) for channel in range(3))
    return np.asarray(100 * blue / (1 + red + green) * 256 / (1 + red + green + blue), dtype=np.float32)


def find_candidates(image: Image, mask: Mask | None, *, scale: float, count: int, sigma: float, window: int) -> Centres:
    """Find the peaks of the smoothed blue-ratio image.

    Args:
        image: (H, W, 3) uint8 RGB.
        mask: (H, W) bool, where candidates may lie; None = anywhere.
        scale: factor by which the image is resized before its blue ratio is computed.
        count: maximum number of candidates; the strongest are kept.
        sigma: standard deviation of the Gaussian smoothing, in px of the resized image.
        window: side of the square in which a peak is the maximum, in px of the resized image; odd.

    Returns:
        (N, 2) float64 row, col in `image`, strongest first. A flat image (white, black, one colour) has no candidates.
    """
    smooth = cv2.GaussianBlur(blue_ratio(resize(image, scale)), (0, 0), sigma)
    neighbourhood = np.ones((window, window), np.uint8)
    # On a plateau every pixel equals the maximum, up to rounding. A peak must also exceed the minimum around it.
    rises = smooth > cv2.erode(smooth, neighbourhood) * np.float32(1 + 1e-5)
    peaks = (smooth == cv2.dilate(smooth, neighbourhood)) & rises
    # Touching pixels of equal height are one peak: take their centroid.
    # OpenCV's default algorithm takes three times as long.
    _, _, _, centroids = cv2.connectedComponentsWithStatsWithAlgorithm(
        peaks.astype(np.uint8), connectivity=8, ltype=cv2.CV_32S, ccltype=cv2.CCL_BBDT
    )
    reduced = centroids[1:, ::-1]  # the first is the background; OpenCV returns x, y
    strength = smooth[tuple(np.round(reduced).astype(int).T)]
    points = rescale(reduced, smooth.shape, image.shape)
    if mask is not None:
        inside = np.clip(np.round(points).astype(int), 0, np.array(mask.shape) - 1)
        allowed = mask[inside[:, 0], inside[:, 1]]
        points, strength = points[allowed], strength[allowed]
    return points[np.argsort(-strength, kind="stable")[:count]]
