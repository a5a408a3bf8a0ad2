"""A field that somebody sends: its size is read from the header and checked before anything is decoded."""

from dataclasses import dataclass
from io import BytesIO
from typing import Self

from mitoscope.datasets.readers import ImageError, Picture, decode_picture, kind_of, open_image
from mitoscope.detection.detector import Detector
from mitoscope.errors import InputError

FIELD = "field"  # its name in a request
MOST_PIXELS = 100_000_000  # of a field, as sent and as enlarged by the detector; 6 mm2 at 0.25 um per pixel
_KINDS = ("PNG", "JPEG", "TIFF")


class SizeError(InputError):
    """The field has more pixels than are decoded at once."""


@dataclass(frozen=True)
class SentField:
    """An image file in memory, whose header is good.

    Attributes:
        content: content of the file.
        width: px, from the header.
        height: px, from the header.
        microns_per_pixel: um per pixel that the file gives; None = it gives none.
    """

    content: bytes
    width: int
    height: int
    microns_per_pixel: float | None

    @classmethod
    def read(cls, content: bytes) -> Self:
        """Read the header of an image file.

        Raises:
            InputError: it is not a PNG, JPEG or TIFF file, or its header is damaged.
            SizeError: it has too many pixels.
        """
        if kind_of(content) not in _KINDS:
            raise InputError(f"{FIELD} is not a PNG, JPEG or TIFF file")
        try:
            header = open_image(BytesIO(content))
        except ImageError as error:
            raise InputError(f"{FIELD}: {error}") from error
        field = cls(content, header.width, header.height, header.microns_per_pixel)
        field._check_size(1)
        return field

    def pixels_for(self, detector: Detector, microns_per_pixel: float | None) -> float:
        """Return the pixel size to use, um, if the detector takes the field.

        Args:
            detector: the detector.
            microns_per_pixel: as sent with the field; None = as the file says, or else that of the training fields.

        Raises:
            InputError: the pixel size differs too much from that of the training fields.
            SizeError: the detector enlarges the field to too many pixels.
        """
        given = self.microns_per_pixel if microns_per_pixel is None else microns_per_pixel
        microns, extract = detector.check_pixels(given), detector.extract
        self._check_size(microns / min(extract.microns_per_pixel, extract.blue_ratio_microns_per_pixel))
        return microns

    def decode(self) -> Picture:
        """Return the pixels, read in the same way as by the commands.

        Raises:
            InputError: the image is damaged or not 8-bit RGB.
        """
        try:
            return decode_picture(open_image(BytesIO(self.content)))
        except ImageError as error:
            raise InputError(f"{FIELD}: {error}") from error

    def _check_size(self, scale: float) -> None:
        """Check that the field is not too large for memory when it is resized by `scale`."""
        if self.width * self.height * max(scale, 1) ** 2 > MOST_PIXELS:
            enlarged = f", which the detector enlarges {scale:.3g} times" if scale > 1 else ""
            raise SizeError(
                f"{FIELD} has {self.width} x {self.height} px{enlarged}, more than {MOST_PIXELS:,} px at once; "
                "split the image"
            )
