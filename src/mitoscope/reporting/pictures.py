"""Pictures as data URIs, for a page that needs no other file."""

import base64
from dataclasses import dataclass
from pathlib import Path

import cv2

from mitoscope.errors import InputError

_WIDTH = 1400  # px; wider pictures are reduced to this
_SMALL = 200_000  # bytes; smaller files, such as curves, are embedded unchanged
_QUALITY = 82


@dataclass(frozen=True)
class Picture:
    """A picture in a page.

    Attributes:
        uri: the picture as a data URI.
        width: px.
        height: px.
        caption: what it shows, and for which network and data.
    """

    uri: str
    width: int
    height: int
    caption: str


def embed(path: Path, caption: str) -> Picture:
    """Read a PNG file for a page; large files are reduced to the page's width and encoded as WebP.

    Raises:
        InputError: the file is missing or not a picture.
    """
    pixels = cv2.imread(str(path))
    if pixels is None:
        raise InputError(f"{path}: is missing or not a picture; run the command that writes it, such as `dvc repro`")
    kind, content = "png", path.read_bytes()
    if len(content) > _SMALL:
        height, width = pixels.shape[:2]
        if width > _WIDTH:
            size = (_WIDTH, round(height * _WIDTH / width))
            pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        kind, content = "webp", cv2.imencode(".webp", pixels, [cv2.IMWRITE_WEBP_QUALITY, _QUALITY])[1].tobytes()
    height, width = pixels.shape[:2]
    return Picture(f"data:image/{kind};base64,{base64.b64encode(content).decode()}", width, height, caption)
