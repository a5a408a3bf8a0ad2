"""Field preparation, shared by stage `extract` and every detector."""

import math
from dataclasses import dataclass, replace

from mitoscope.datasets.annotations import Centres
from mitoscope.datasets.readers import Image, Mask, Picture
from mitoscope.histology.blue_ratio import find_candidates
from mitoscope.histology.stain import normalise
from mitoscope.histology.windows import FieldWindows, rescale, resize, window_size
from mitoscope.params import Extract


@dataclass(frozen=True)
class PreparedField:
    """A field after stain normalisation. Points are row, col in pixels of the field.

    Attributes:
        picture: the pixels, and which of them are opaque.
        microns_per_pixel: pixel size of the picture, um.
        settings: how candidates are found and windows are cut.
        normalised: whether the stain was normalised; also false if the settings do not ask for it.
    """

    picture: Picture
    microns_per_pixel: float
    settings: Extract
    normalised: bool

    @property
    def image(self) -> Image:
        """The pixels, (H, W, 3) uint8 RGB."""
        return self.picture.pixels

    @property
    def area_mm2(self) -> float:
        """Area of the tissue, mm2; transparent parts are none."""
        return self.picture.area_mm2(self.microns_per_pixel)

    def candidates(self, mask: Mask | None) -> Centres:
        """Return the (N, 2) float64 candidates, strongest first; with an (H, W) bool `mask`, only those inside it.

        Transparent parts have none.
        """
        settings = self.settings
        pixel = settings.blue_ratio_microns_per_pixel
        return find_candidates(
            self.image,
            self.picture.candidate_mask(mask),
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


def prepare(picture: Picture, microns_per_pixel: float, settings: Extract) -> PreparedField:
    """Normalise the stain of a field by the method in `settings`; its pixels are `microns_per_pixel` um wide."""
    pixels, normalised = normalise(picture.pixels, settings.stain)
    return PreparedField(replace(picture, pixels=pixels), microns_per_pixel, settings, normalised)
