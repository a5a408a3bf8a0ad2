"""Field preparation, shared by stage `extract` and every detector."""

import math
from dataclasses import dataclass

from mitoscope.datasets.annotations import Centres
from mitoscope.datasets.readers import Image, Mask
from mitoscope.histology.blue_ratio import find_candidates
from mitoscope.histology.stain import normalise
from mitoscope.histology.windows import FieldWindows, rescale, resize, window_size
from mitoscope.params import Extract


@dataclass(frozen=True)
class PreparedField:
    """A field after stain normalisation. Points are row, col in pixels of the field.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        microns_per_pixel: pixel size of the image, um.
        settings: how candidates are found and windows are cut.
        normalised: whether the stain was normalised; also false if the settings do not ask for it.
    """

    image: Image
    microns_per_pixel: float
    settings: Extract
    normalised: bool

    @property
    def area_mm2(self) -> float:
        """Area of the whole image, mm2."""
        return float(self.image.shape[0] * self.image.shape[1] * self.microns_per_pixel**2 / 1e6)

    def candidates(self, mask: Mask | None) -> Centres:
        """Return the (N, 2) float64 candidates, strongest first; with an (H, W) bool `mask`, only those inside it."""
        settings = self.settings
        pixel = settings.blue_ratio_microns_per_pixel
        return find_candidates(
            self.image,
            mask,
            scale=self.microns_per_pixel / pixel,
            count=math.ceil(settings.candidates_per_mm2 * self.area_mm2),
            sigma=settings.sigma_um / pixel,
            window=max(2 * round((settings.peak_window_um / pixel - 1) / 2) + 1, 3),  # the nearest odd number
        )

    def windows(self, points: Centres) -> FieldWindows:
        """Return windows around (N, 2) points, at the pixel size of the patches and wide enough for every rotation."""
        resized = resize(self.image, self.microns_per_pixel / self.settings.microns_per_pixel)
        return FieldWindows(
            resized, rescale(points, self.image.shape, resized.shape), window_size(self.settings.patch_size)
        )


def prepare(image: Image, microns_per_pixel: float, settings: Extract) -> PreparedField:
    """Normalise the stain of an (H, W, 3) uint8 RGB field by the method in `settings`."""
    normal, normalised = normalise(image, settings.stain)
    return PreparedField(normal, microns_per_pixel, settings, normalised)
