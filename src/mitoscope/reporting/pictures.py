"""Pictures as text, for a page that needs no other file."""

import base64
from dataclasses import dataclass
from pathlib import Path

import cv2

from mitoscope.errors import InputError

_WIDTH = 1400  # px; wider than a page shows
_SMALL = 200_000  # bytes: such a file, as curves are, stays as it is
_QUALITY = 82


@dataclass(frozen=True)
class Picture:
    """A picture in a page.

    Attributes:
        uri: the picture itself, as a data URI.
        width: px.
        height: px.
        caption: what it shows, of which network and data.
    """

    uri: str
    width: int
    height: int
    caption: str


def embed(path: Path, caption: str) -> Picture:
    """Read a PNG file for a page; what is large is reduced to a page's width and encoded as WebP.

    Raises:
        InputError: the file is missing or not a picture.
    """
    pixels = cv2.imread(str(path))
    if pixels is None:
        raise InputError(f"{path}: is missing or not a picture; run `dvc repro`, or what else wrote it, again")
    kind, content = "png", path.read_bytes()
    if len(content) > _SMALL:
        height, width = pixels.shape[:2]
        if width > _WIDTH:
            size = (_WIDTH, round(height * _WIDTH / width))
            pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        kind, content = "webp", cv2.imencode(".webp", pixels, [cv2.IMWRITE_WEBP_QUALITY, _QUALITY])[1].tobytes()
    height, width = pixels.shape[:2]
    return Picture(f"data:image/{kind};base64,{base64.b64encode(content).decode()}", width, height, caption)
