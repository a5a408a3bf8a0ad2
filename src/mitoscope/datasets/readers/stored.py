"""An image as its file stores it: what the header says, what is refused by name, and how the rest becomes a field."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

NO_IMAGE = "is not an image that can be read, or is truncated; copy it again from its source"
DAMAGED = "the image is truncated or damaged; copy it again from its source"
SEVERAL = "save the one that is the field"  # the remedy where a file has several pages or images
MOST_PIXELS = 2**30
_OPAQUE = 128  # alpha from which a pixel shows tissue


class ImageError(ValueError):
    """The reason why an image is no field, in one line without the file's name."""


def check_size(width: int, height: int) -> None:
    """Check that there are pixels, and not too many to hold in memory several times.

    Raises:
        ImageError: the reason.
    """
    if not width or not height:
        raise ImageError(f"has {width} x {height} px; save it again")
    if width * height > MOST_PIXELS:
        raise ImageError(f"has {width} x {height} px, more than 2^30 at once; cut it into smaller fields")


@dataclass(frozen=True)
class Picture:
    """A field as its file has it.

    Attributes:
        pixels: (H, W, 3) uint8 RGB; transparent pixels are white.
        opaque: (H, W) bool, false where the image is transparent; None = opaque everywhere.
        microns_per_pixel: size of a pixel as the file says, um; None if it says nothing plausible.
    """

    pixels: Image
    opaque: Mask | None
    microns_per_pixel: float | None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.pixels.shape[0], self.pixels.shape[1]

    def candidate_mask(self, mask: Mask | None) -> Mask | None:
        """Return where candidates may lie, (H, W) bool: inside `mask` and not in transparent parts; None = anywhere."""
        if mask is None or self.opaque is None:
            return self.opaque if mask is None else mask
        return mask & self.opaque

    def area_mm2(self, microns_per_pixel: float) -> float:
        """Return the area of the opaque part, mm2, with pixels of `microns_per_pixel` um."""
        rows, columns = self.shape
        pixels = rows * columns if self.opaque is None else int(self.opaque.sum())
        return float(pixels * microns_per_pixel**2 / 1e6)

    @property
    def transparent(self) -> str:
        """The share of the image that is transparent, such as `25%` or `<1%`; empty if it is opaque everywhere."""
        if self.opaque is None:
            return ""
        share = 1 - float(self.opaque.mean())
        return f"{share:.0%}" if share >= 0.01 else "<1%"


@dataclass(frozen=True)
class Stored:
    """The header of an image file, and how to decode its pixels.

    Attributes:
        width: px.
        height: px.
        colours: RGB (palettes too, which are decoded to RGB), grey, CMYK or another name.
        channels: number of them, alpha included.
        bits: per channel.
        alpha: whether the last channel is alpha, and whether the colours were multiplied by it; `unknown` if the file
            does not say what the last channel is.
        orientation: 1 = upright, 2 to 8 = turned or mirrored, as in TIFF and EXIF.
        microns_per_pixel: size of a pixel as the file says, um; None if it says nothing plausible.
        decode: returns (H, W) or (H, W, channels), and checks that the whole image is there.
    """

    width: int
    height: int
    colours: str
    channels: int
    bits: int
    alpha: Literal["none", "straight", "multiplied", "unknown"]
    orientation: int
    microns_per_pixel: float | None
    decode: Callable[[], npt.NDArray[Any]]

    def check(self) -> None:
        """Check what the pixels need not be decoded for: also a mask must be upright and of a size that fits.

        Raises:
            ImageError: the reason.
        """
        check_size(self.width, self.height)
        if 2 <= self.orientation <= 8:
            raise ImageError(
                f"is marked as turned or mirrored (orientation {self.orientation}), which programs show differently; "
                "save it upright"
            )

    def values(self) -> npt.NDArray[Any]:
        """Decode the colours alone, (H, W) or (H, W, channels without alpha), of any depth.

        Raises:
            ImageError: as in `check`, or the image is damaged.
        """
        self.check()
        values = self.decode()
        return values if self.alpha == "none" or values.ndim == 2 else values[..., :-1]

    def picture(self) -> Picture:
        """Decode a field.

        A pixel with an alpha of 128 or more counts as opaque and keeps its colour; the others become white.

        Raises:
            ImageError: as in `check`, or the image is damaged, not 8 bit or not RGB.
        """
        self.check()
        if self.bits != 8:
            raise ImageError(f"has {self.bits} bit{'s' * (self.bits != 1)} per channel; convert it to 8-bit RGB")
        if self.colours == "grey":
            raise ImageError("is a grey image; fields must be 8-bit RGB")
        if self.colours != "RGB":
            raise ImageError(f"is {self.colours}; convert it to 8-bit RGB")
        if self.channels != 3 + (self.alpha != "none"):
            raise ImageError(f"has {self.channels} channels; convert it to 8-bit RGB")
        values = self.decode()
        if values.dtype != np.uint8 or values.shape != (self.height, self.width, self.channels):
            raise ImageError(DAMAGED)
        if self.channels == 3:
            return Picture(np.ascontiguousarray(values), None, self.microns_per_pixel)
        pixels, alpha = np.ascontiguousarray(values[..., :3]), values[..., 3]
        partly = alpha < 255
        if not partly.any():
            return Picture(pixels, None, self.microns_per_pixel)
        if self.alpha == "unknown":
            raise ImageError("has a fourth channel that may be transparency or not; save it as 8-bit RGB")
        if self.alpha == "multiplied":
            whole = pixels[partly].astype(np.float32) * 255 / np.maximum(alpha[partly], 1)[:, None]
            pixels[partly] = np.minimum(np.rint(whole), 255).astype(np.uint8)
        opaque = alpha >= _OPAQUE
        if not opaque.any():
            raise ImageError("is transparent everywhere; save it without transparency")
        pixels[~opaque] = 255
        return Picture(pixels, None if opaque.all() else opaque, self.microns_per_pixel)
