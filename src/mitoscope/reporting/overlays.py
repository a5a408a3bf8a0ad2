"""Overlays: a field with a ring round every detection and every missed mitosis, under a title and a legend."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from mitoscope.datasets.annotations import Centres
from mitoscope.datasets.images import Image, encode_image
from mitoscope.errors import InputError
from mitoscope.files import atomic_path

NUCLEUS_UM = 5.0  # radius of a mitotic nucleus, round which the marks lie

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_BLACK = (0, 0, 0)
_JPEG_SIDE = 65_500  # libjpeg's limit


class Kind(NamedTuple):
    """How one kind of mark looks: a regular polygon round the nucleus.

    Attributes:
        name: in the legend.
        colour: RGB. All kinds have a black halo, which shows on pale stroma as the colour does on dark nuclei.
        corners: of the polygon; kinds differ in shape as well, for grey prints.
        turn: angle of the first corner, radians from the x axis.
    """

    name: str
    colour: tuple[int, int, int]
    corners: int
    turn: float


# Sky blue, vermilion and yellow of Okabe and Ito, "Color Universal Design", J*FLY, 2008. Dichromats tell these three
# from each other and from haematoxylin and eosin; the bluish green and the reddish purple of that palette they do not.
FOUND = Kind("true positives", (86, 180, 233), 32, 0)
FALSE = Kind("false positives", (213, 94, 0), 4, math.pi / 4)
MISSED = Kind("missed mitoses", (240, 228, 66), 4, 0)
DETECTED = FOUND._replace(name="mitoses")


class Marks(NamedTuple):
    """The centres to mark in a field, each (N, 2) float64 row, col in its pixels; N may be 0.

    Where the truth is not known, `Marks(found)` is all there is: they are called mitoses, and the legend has no other
    entry.
    """

    found: Centres
    false: Centres | None = None
    missed: Centres | None = None


def draw_overlay(path: Path, image: Image, marks: Marks, *, radius: float, title: str) -> None:
    """Write a field with its marks as JPEG (quality 90) or PNG, whole or not at all.

    Lines and letters are sized for looking at the whole picture on about 1000 px of a screen. A field too narrow for
    a word of the strip above it gets a white margin on its right.

    Args:
        path: the picture, .jpg or .png.
        image: (H, W, 3) uint8 RGB; is not changed.
        marks: what to mark.
        radius: of a nucleus, px. A mark's is twice that; what lies within `radius` of its centre stays as it is.
        title: above the legend; OpenCV's letters are ASCII.

    Raises:
        InputError: the picture is too large for a JPEG, which has at most 65,500 px a side.
    """
    rows, columns = image.shape[:2]
    unit = max(1.0, math.sqrt(rows * columns) / 1000)
    kinds = (DETECTED if marks.false is None and marks.missed is None else FOUND, FALSE, MISSED)
    shown = [(kind, centres) for kind, centres in zip(kinds, marks, strict=True) if centres is not None]
    strip = _strip(title, [(kind, f"{kind.name}: {len(centres)}") for kind, centres in shown], columns, unit)
    margin = np.full((rows, strip.shape[1] - columns, 3), 255, np.uint8)
    picture = np.concatenate([strip, np.concatenate([image, margin], axis=1)])
    field = picture[len(strip) :, :columns]  # so that marks at the border do not run into the strip
    for kind, centres in shown:
        for row, col in centres.tolist():
            _mark(field, kind, row, col, max(2 * radius, radius + _halo(unit)), unit)

    if path.suffix == ".jpg" and max(picture.shape) > _JPEG_SIDE:
        raise InputError(f"{path}: {columns} x {rows} px and the legend are too large for a JPEG; write a .png")
    with atomic_path(path) as temporary:
        temporary.write_bytes(encode_image(picture, path.suffix))


def _strip(title: str, legend: Sequence[tuple[Kind, str]], columns: int, unit: float) -> Image:
    """Draw the words of the title and below them the legend, in lines of `columns` px, or of the longest word."""
    line = round(26 * unit)
    gap, size, weight = line // 3, 0.55 * unit, round(1.2 * unit)
    places = []
    width, y = columns, 0
    for pieces, space in (([(None, word) for word in title.split()], gap), (legend, line)):
        x, y = gap, y + line
        for kind, text in pieces:
            length = cv2.getTextSize(text, _FONT, size, weight)[0][0] + (line if kind else 0)
            if x > gap and x + length + gap > columns:
                x, y = gap, y + line
            places.append((kind, text, x, y))
            width = max(width, x + length + gap)
            x += length + space
    strip = np.full((y + gap, width, 3), 255, np.uint8)
    for kind, text, x, y in places:
        if kind:
            _mark(strip, kind, y - 0.23 * line, x + 0.4 * line, 0.24 * line, unit)
            x += line
        cv2.putText(strip, text, (x, y), _FONT, size, _BLACK, weight, cv2.LINE_AA)
    return strip


def _stroke(unit: float) -> int:
    """Width of a line, px."""
    return round(2.5 * unit)


def _halo(unit: float) -> int:
    """Width of a line with its halo, px."""
    return _stroke(unit) + 2 * round(unit)


def _mark(picture: Image, kind: Kind, row: float, col: float, reach: float, unit: float) -> None:
    """Draw the polygon whose inscribed circle has the radius `reach` px: so no kind comes nearer to the nucleus."""
    angles = kind.turn + 2 * np.pi * np.arange(kind.corners) / kind.corners
    corners = np.stack([np.cos(angles), np.sin(angles)], axis=1) * reach / math.cos(math.pi / kind.corners)
    points = np.round(16 * (corners + np.array([col, row]))).astype(np.int32)  # in sixteenths of a pixel, see `shift`
    for colour, width in ((_BLACK, _halo(unit)), (kind.colour, _stroke(unit))):
        cv2.polylines(picture, [points], True, colour, width, cv2.LINE_AA, shift=4)
