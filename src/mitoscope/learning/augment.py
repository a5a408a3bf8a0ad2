"""Augmentations of windows on their way to the network: rotate and crop, flip, and vary the stain."""

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mitoscope.learning.vision import InterpolationMode
from mitoscope.learning.vision import functional as F

# Optical densities of haematoxylin, eosin and DAB. Source: Ruifrok and Johnston, "Quantification of histochemical
# staining by color deconvolution", Anal Quant Cytol Histol 23 (2001).
_STAINS = torch.tensor([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
_RGB_FROM_HED = _STAINS / _STAINS.norm(dim=1, keepdim=True)
_HED_FROM_RGB = torch.linalg.inv(_RGB_FROM_HED)


def crop(windows: Tensor, angles: npt.NDArray[np.float64] | float, patch_size: int) -> Tensor:
    """Rotate windows about their middle and crop patches that contain only real pixels.

    Args:
        windows: (N, 3, S, S) uint8, with S from `histology.windows.window_size`.
        angles: (N,) degrees counter-clockwise, or one angle for all windows.
        patch_size: side of the patches.

    Returns:
        (N, 3, patch_size, patch_size) uint8.

    Raises:
        ValueError: the windows are too small to be rotated.
    """
    turned = windows
    if np.any(angles):
        if windows.shape[-1] < (patch_size - 1) * math.sqrt(2) + 1:
            raise ValueError(f"windows of {windows.shape[-1]} px cannot be rotated for patches of {patch_size} px")
        turned, angles = windows.clone(), np.broadcast_to(angles, len(windows))
        for angle in np.unique(angles[angles != 0]):
            chosen = torch.from_numpy(np.flatnonzero(angles == angle)).to(windows.device)
            turned[chosen] = F.rotate(windows[chosen], float(angle), interpolation=InterpolationMode.BILINEAR)
    patches: Tensor = F.center_crop(turned, [patch_size, patch_size])
    return patches


def flip(patches: Tensor, rng: np.random.Generator) -> Tensor:
    """Flip each of (N, 3, P, P) patches at random: horizontally, vertically, both or neither."""
    for mirror in (F.horizontal_flip, F.vertical_flip):
        chosen = torch.from_numpy(rng.random(len(patches)) < 0.5).to(patches.device)
        patches = torch.where(chosen[:, None, None, None], mirror(patches), patches)
    return patches


def jitter_stain(patches: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    """Vary the amounts of haematoxylin, eosin and the residual in each of (N, 3, P, P) uint8 patches.

    The amount of each stain is multiplied by 1 +- strength and shifted by +- strength x 0.05 of optical density, both
    drawn uniformly. Source of the method: Tellez et al., "Whole-slide mitosis detection in H&E breast histology using
    PHH3 as a reference to train distilled stain-invariant convolutional networks", IEEE TMI 37 (2018).
    """
    to_hed, to_rgb = _HED_FROM_RGB.to(patches.device), _RGB_FROM_HED.to(patches.device)
    factor, shift = (
        torch.from_numpy(rng.uniform(-strength, strength, (len(patches), 1, 1, 3))).float().to(patches.device)
        for _ in range(2)
    )
    density = -torch.log10((patches.permute(0, 2, 3, 1).float() + 1) / 256)
    stains = density @ to_hed * (1 + factor) + 0.05 * shift
    light = 256 * torch.pow(10.0, -(stains @ to_rgb)) - 1
    return light.round().clamp(0, 255).to(torch.uint8).permute(0, 3, 1, 2)
