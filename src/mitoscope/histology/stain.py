"""Stain normalisation: give fields from all laboratories and scanners the colours of one reference."""

import math
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from mitoscope.datasets.readers import Image, Mask

Method = Literal["none", "macenko", "reinhard"]
_Floats = npt.NDArray[np.float64]

_LIGHT = 240  # intensity of the glass, Io in the source of _STAINS
_DENSITY: _Floats = -np.log((np.arange(256) + 1) / _LIGHT)  # optical density of each intensity, natural logarithm
_GLASS = 0.15  # a lower optical density means no stain; beta in Macenko et al.

# Stain vectors, with columns haematoxylin and eosin and rows red, green and blue; and the maximum amount of each stain
# in a field. Source: HERef and maxCRef of the reference implementation,
# https://github.com/mitkovetta/staining-normalization.
_STAINS = np.array([[0.5626, 0.2159], [0.7201, 0.8012], [0.4062, 0.5581]])
_STRONGEST = np.array([1.9705, 1.0308])

# Tissue in CIE L*a*b*: each field's mean and standard deviation, averaged over fields. Source: the rebuilt ICPR 2012
# fields (28 fields of 4 patients, breast, one scanner).
_LAB_MEAN = np.array([56.0, 42.0, -3.0])
_LAB_STD = np.array([14.1, 8.1, 4.3])

_WHITE = math.log(256.4)  # of the light of intensity 255, which is one more; just below what rounds to 256
_STRIP = 65536  # pixels that are computed at once
_SAMPLE_SIDE = 512  # px; colours are estimated on a grid with at most this many pixels per side
_FEWEST = 100  # pixels; fewer do not give a 1st percentile
_LEAST_TISSUE = 0.01  # fraction of the field; less may be dirt on the glass
_LEAST_ANGLE = math.radians(5)  # a single stain, rounded to 8 bits, spreads by 1 degree; real fields have 13 to 17
_LEAST_STD = 1.0  # of L*, a* and b*; less is one colour plus noise; real fields have 2.6 to 16


def normalise(image: Image, method: Method) -> tuple[Image, bool]:
    """Give a whole field the stain colours of the reference.

    The colours are estimated from tissue pixels on a regular grid. Tissue has an optical density of 0.15 or more (an
    intensity of 205 or less) in at least one channel. The rest is glass, which `reinhard` does not change.

    Args:
        image: (H, W, 3) uint8 RGB; not modified.
        method: `macenko` matches the colour vectors and the amounts of haematoxylin and eosin; `reinhard` matches the
            mean and the standard deviation of the colour; `none` does nothing.

    Returns:
        The (H, W, 3) uint8 RGB image, and whether it was changed. Returns `image` itself and False if the method is
        `none` or the colours cannot be estimated: hardly any tissue, one colour, or for `macenko` a single stain.
    """
    if method == "none":
        return image, False
    step = math.ceil(max(image.shape[:2]) / _SAMPLE_SIDE)
    sample = image[::step, ::step].reshape(-1, 3)
    tissue = sample[_is_tissue(sample)]
    if len(tissue) < max(_FEWEST, _LEAST_TISSUE * len(sample)):
        return image, False
    result = _macenko(image, tissue) if method == "macenko" else _reinhard(image, tissue)
    return (image, False) if result is None else (result, True)


def _macenko(image: Image, tissue: Image) -> Image | None:
    """Match the stain vectors and amounts, estimated from (N, 3) tissue pixels, to the reference.

    Returns None if there is too little stain to estimate them.

    Source: Macenko et al., "A method for normalizing histology slides for quantitative analysis", ISBI 2009.
    """
    density = _DENSITY[tissue]
    stained = density[_DENSITY[_of_channels(np.maximum, tissue)] >= _GLASS]  # in all channels
    if len(stained) < _FEWEST:
        return None
    # The plane of the two stains passes through the origin, so the densities are not centred. All products are then
    # positive, so all entries of the first eigenvector have the same sign. Made positive, it keeps the angles relative
    # to it away from the wrap at 180 degrees.
    _, vectors = np.linalg.eigh(stained.T @ stained)
    plane = np.column_stack([np.abs(vectors[:, 2]), vectors[:, 1]])
    along, across = (stained @ plane).T
    angles = np.arctan(np.percentile(across / along, [1, 99]))  # `along` is positive
    if angles[1] - angles[0] < _LEAST_ANGLE:
        return None
    stains = plane @ [np.cos(angles), np.sin(angles)]
    if stains[0, 0] < stains[0, 1]:  # haematoxylin is blue: it absorbs more red light
        stains = stains[:, ::-1]
    unmix = np.linalg.pinv(stains)
    strongest = np.percentile(density @ unmix.T, 99, axis=0)
    if strongest.min() < _GLASS:
        return None
    to_reference = _STAINS * (_STRONGEST / strongest) @ unmix
    return _restain(image, to_reference)


def _restain(image: Image, to_reference: _Floats) -> Image:
    """Multiply the (3,) optical densities of each pixel by the (3, 3) matrix `to_reference`.

    One strip after the other, so that the intermediate floats stay in the processor's cache.

    Returns:
        An (H, W, 3) uint8 RGB image.
    """
    result = np.empty_like(image)
    # The light that passes, 240 exp(-density), as one exponential: its logarithm is linear in the densities.
    to_log_light = np.column_stack([-to_reference, np.full(3, math.log(_LIGHT))])
    density = _DENSITY.astype(np.float32)
    rows = max(1, _STRIP // image.shape[1])
    for top in range(0, len(image), rows):
        strip = slice(top, top + rows)
        log_light = cv2.transform(cv2.LUT(image[strip], density), to_log_light)
        cv2.threshold(log_light, _WHITE, _WHITE, cv2.THRESH_TRUNC, dst=log_light)
        result[strip] = cv2.exp(log_light) - np.float32(0.5)  # intensities are one less, and rounded here
    return result


def _reinhard(image: Image, tissue: Image) -> Image | None:
    """Match the mean and standard deviation of (N, 3) tissue pixels in CIE L*a*b* to the reference.

    Returns None if the tissue has only one colour. Source: Reinhard et al., "Color transfer between images", IEEE
    Computer Graphics and Applications 21 (2001). They use the colour space l-alpha-beta; CIE L*a*b* is usual in
    histology.
    """
    lab = _to_lab(tissue[None])[0]
    mean, std = lab.mean(axis=0, dtype=np.float64), lab.std(axis=0, dtype=np.float64)
    if std.min() < _LEAST_STD:
        return None
    scale = _LAB_STD / std
    moved = _to_lab(image) * scale.astype(np.float32) + (_LAB_MEAN - mean * scale).astype(np.float32)
    # Glass has no stain, so the shift would tint it.
    return np.where(_is_tissue(image)[..., None], _to_bytes(cv2.cvtColor(moved, cv2.COLOR_LAB2RGB) * 255), image)


def _is_tissue(image: Image) -> Mask:
    """Return (...) bool, true where an (..., 3) image is not bare glass."""
    return np.asarray(_DENSITY[_of_channels(np.minimum, image)] >= _GLASS, dtype=np.bool_)


def _of_channels(extreme: np.ufunc, image: Image) -> npt.NDArray[np.uint8]:
    """Return the minimum or maximum (...) over the channels of an (..., 3) image, 25 times as fast as along an axis."""
    found: npt.NDArray[np.uint8] = extreme(extreme(image[..., 0], image[..., 1]), image[..., 2])
    return found


def _to_lab(image: Image) -> npt.NDArray[np.float32]:
    """Convert an (H, W, 3) uint8 RGB image to L* from 0 to 100, and a* and b* from -127 to 127."""
    return np.asarray(cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB), dtype=np.float32)


def _to_bytes(image: npt.NDArray[np.float32]) -> Image:
    """Round to whole intensities and clip them to 0 to 255."""
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)
