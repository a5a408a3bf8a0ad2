"""Stain normalisation: every field gets the colours of one reference, whatever laboratory and scanner it is from."""

import math
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from mitoscope.datasets.images import Image, Mask

Method = Literal["none", "macenko", "reinhard"]
_Floats = npt.NDArray[np.float64]

_LIGHT = 240  # intensity of the glass, Io in the source of _STAINS
_DENSITY: _Floats = -np.log((np.arange(256) + 1) / _LIGHT)  # optical density of each intensity, natural logarithm
_GLASS = 0.15  # less optical density than this is no stain; beta in Macenko et al.

# Columns haematoxylin and eosin, rows red, green and blue; and the most that a field has of each. Source: HERef and
# maxCRef of the reference implementation, https://github.com/mitkovetta/staining-normalization.
_STAINS = np.array([[0.5626, 0.2159], [0.7201, 0.8012], [0.4062, 0.5581]])
_STRONGEST = np.array([1.9705, 1.0308])

# Tissue in CIE L*a*b*. Source: mean over the rebuilt ICPR 2012 fields (28 fields of 4 patients, breast, one scanner)
# of each field's mean and of its standard deviation.
_LAB_MEAN = np.array([56.0, 42.0, -3.0])
_LAB_STD = np.array([14.1, 8.1, 4.3])

_SAMPLE_SIDE = 512  # px; a field is measured on a grid of at most so many pixels a side
_FEWEST = 100  # pixels; fewer have no 1st percentile
_LEAST_TISSUE = 0.01  # of the field; less may be dirt on the glass
_LEAST_ANGLE = math.radians(5)  # one stain alone spreads by 1 degree, rounded to 8 bits; real fields have 13 to 17
_LEAST_STD = 1.0  # of L*, a* and b*; less is one colour and noise, real fields have 2.6 to 16


def normalise(image: Image, method: Method) -> tuple[Image, bool]:
    """Give a whole field the stain colours of the reference.

    The colours are estimated from tissue: pixels with an optical density of 0.15 or more in some channel (an intensity
    of 205 or less), taken on a regular grid. The rest is glass, which `reinhard` leaves as it is.

    Args:
        image: (H, W, 3) uint8 RGB; is not modified.
        method: `macenko` matches the colour vectors and the amounts of haematoxylin and eosin, `reinhard` the mean
            and the standard deviation of the colour, `none` nothing.

    Returns:
        The (H, W, 3) uint8 RGB image, and whether it was changed. `image` itself and False where the method is `none`
        or the field has too little to estimate from: hardly any tissue, one colour, or for `macenko` one stain.
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
    """Move stain vectors and amounts, estimated from (N, 3) tissue pixels, to the reference's; None = too little.

    Source: Macenko et al., "A method for normalizing histology slides for quantitative analysis", ISBI 2009.
    """
    density = _DENSITY[tissue]
    stained = density[(density >= _GLASS).all(axis=1)]
    if len(stained) < _FEWEST:
        return None
    # The plane of the two stains goes through the origin, so the densities are not centred. Then all products are
    # positive, the first eigenvector has one sign, and made positive it keeps the angles to it off the wrap at 180.
    _, vectors = np.linalg.eigh(stained.T @ stained)
    plane = np.column_stack([np.abs(vectors[:, 2]), vectors[:, 1]])
    along, across = (stained @ plane).T
    angles = np.percentile(np.arctan2(across, along), [1, 99])
    if angles[1] - angles[0] < _LEAST_ANGLE:
        return None
    stains = plane @ [np.cos(angles), np.sin(angles)]
    if stains[0, 0] < stains[0, 1]:  # haematoxylin, the blue one, takes more of the red light
        stains = stains[:, ::-1]
    unmix = np.linalg.pinv(stains)
    strongest = np.percentile(density @ unmix.T, 99, axis=0)
    if strongest.min() < _GLASS:
        return None
    to_reference = _STAINS * (_STRONGEST / strongest) @ unmix
    return _to_bytes(_LIGHT * np.exp(-cv2.transform(_DENSITY.astype(np.float32)[image], to_reference)) - 1)


def _reinhard(image: Image, tissue: Image) -> Image | None:
    """Move mean and deviation in CIE L*a*b*, taken from (N, 3) tissue pixels, to the reference's; None = one colour.

    Source: Reinhard et al., "Color transfer between images", IEEE Computer Graphics and Applications 21 (2001); there
    in the colour space l-alpha-beta, here in CIE L*a*b*, as is usual in histology.
    """
    lab = _to_lab(tissue[None])[0]
    mean, std = lab.mean(axis=0, dtype=np.float64), lab.std(axis=0, dtype=np.float64)
    if std.min() < _LEAST_STD:
        return None
    scale = _LAB_STD / std
    moved = _to_lab(image) * scale.astype(np.float32) + (_LAB_MEAN - mean * scale).astype(np.float32)
    # Glass has none of the stain that the shift makes up for, and would be tinted.
    return np.where(_is_tissue(image)[..., None], _to_bytes(cv2.cvtColor(moved, cv2.COLOR_LAB2RGB) * 255), image)


def _is_tissue(image: Image) -> Mask:
    """Where an (..., 3) image is not bare glass: (...) bool."""
    return np.asarray((_DENSITY >= _GLASS)[image].any(axis=-1), dtype=np.bool_)


def _to_lab(image: Image) -> npt.NDArray[np.float32]:
    """L* 0 to 100, a* and b* -127 to 127 of an (H, W, 3) RGB image."""
    return np.asarray(cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB), dtype=np.float32)


def _to_bytes(image: npt.NDArray[np.float32]) -> Image:
    """Round to intensities and clip what is darker than black or brighter than white."""
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)
