"""Small images as files, and how bad input is refused."""

import cv2
import numpy as np
import pytest
from PIL import Image as Pillow

from mitoscope.errors import InputError

ROWS, COLUMNS = 60, 50
SHAPE = (ROWS, COLUMNS)


def tissue() -> np.ndarray:
    """A smooth coloured image, so that JPEG has something to keep and LZW something to compress."""
    noise = np.random.default_rng(0).integers(0, 256, (*SHAPE, 3), dtype=np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 2)


def encode(suffix: str, pixels: np.ndarray, *settings: int) -> bytes:
    return cv2.imencode(suffix, pixels, settings)[1].tobytes()


def refusal(function, *arguments) -> str:
    """The one line with which a function refuses its arguments."""
    with pytest.raises(InputError) as caught:
        function(*arguments)
    message = str(caught.value)
    assert message and "\n" not in message
    return message


def turned() -> Pillow.Exif:
    """An EXIF block of a camera that was held upright."""
    exif = Pillow.Exif()
    exif[274] = 6
    return exif
