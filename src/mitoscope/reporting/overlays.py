"""Overlays: a field with a mark around every detection and missed mitosis, below a title and a legend."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from mitoscope.datasets.annotations import Centres
from mitoscope.datasets.readers import Image, encode_image
from mitoscope.errors import InputError
from mitoscope.files import atomic_path
from mitoscope.reporting.colours import SKY_BLUE, VERMILION, YELLOW, rgb

NUCLEUS_UM = 5.0  # radius of a mitotic nucleus; the marks surround it

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_BLACK = (0, 0, 0)
_JPEG_SIDE = 65_500  # libjpeg's limit


class Kind(NamedTuple):
    """The look of one kind of mark: a regular polygon around the nucleus.

    Attributes:
        name: name in the legend.
        colour: RGB. All kinds also have a black halo: it shows on pale stroma, the colour shows on dark nuclei.
        corners: number of corners; the kinds differ in shape as well, for grey prints.
        turn: angle of the first corner, radians from the x axis.
    """

    name: str
    colour: tuple[int, int, int]
    corners: int
    turn: float


# Dichromats can tell these three colours from each other and from haematoxylin and eosin. They cannot tell the green
# and the purple of the palette from these stains.
FOUND = Kind("true positives", rgb(SKY_BLUE), 32, 0)
FALSE = Kind("false positives", rgb(VERMILION), 4, math.pi / 4)
MISSED = Kind("missed mitoses", rgb(YELLOW), 4, 0)
DETECTED = FOUND._replace(name="mitoses")


class Marks(NamedTuple):
    """Centres to mark in a field, each (N, 2) float64 row, col in pixels; N may be 0.

    Without annotations use `Marks(found)`: the legend then has one entry, "mitoses".
    """

    found: Centres
    false: Centres | None = None
    missed: Centres | None = None


def draw_overlay(path: Path, image: Image, marks: Marks, *, radius: float, title: str) -> None:
    """Write a field with its marks as JPEG (quality 90) or PNG, atomically.

    Lines and letters are sized for viewing the whole picture at about 1000 px. A field that is too narrow for a word of
    the strip above it gets a white margin on the right.

    Args:
        path: file to write, .jpg or .png.
        image: (H, W, 3) uint8 RGB; not modified.
        marks: centres to mark.
        radius: radius of a nucleus, px. A mark has twice this radius; pixels within `radius` of its centre keep their
            values.
        title: text above the legend, in ASCII (OpenCV draws no other letters).

    Raises:
        InputError: the picture is too large for a JPEG, which is limited to 65,500 px per side.
    """
    rows, columns = image.shape[:2]
    unit = max(1.0, math.sqrt(rows * columns) / 1000)
    kinds = (DETECTED if marks.false is None and marks.missed is None else FOUND, FALSE, MISSED)
    shown = [(kind, centres) for kind, centres in zip(kinds, marks, strict=True) if centres is not None]
    strip = _strip(title, [(kind, f"{kind.name}: {len(centres)}") for kind, centres in shown], columns, unit)
    margin = np.full((rows, strip.shape[1] - columns, 3), 255, np.uint8)
    picture = np.concatenate([strip, np.concatenate([image, margin], axis=1)])
    field = picture[len(strip) :, :columns]  # a view, so that marks at the border stay out of the strip
    for kind, centres in shown:
        for row, col in centres.tolist():
            _mark(field, kind, row, col, max(2 * radius, radius + _halo(unit)), unit)

    if path.suffix == ".jpg" and max(picture.shape) > _JPEG_SIDE:
        raise InputError(f"{path}: {columns} x {rows} px and the legend are too large for a JPEG; write a .png")
    with atomic_path(path) as temporary:
        temporary.write_bytes(encode_image(picture, path.suffix))


def _strip(title: str, legend: Sequence[tuple[Kind, str]], columns: int, unit: float) -> Image:
    """Draw the title and, below it, the legend; lines are `columns` px wide, or as wide as the longest word."""
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
    """Draw the polygon whose inscribed circle has the radius `reach` px, so that all kinds keep the same distance."""
    angles = kind.turn + 2 * np.pi * np.arange(kind.corners) / kind.corners
    corners = np.stack([np.cos(angles), np.sin(angles)], axis=1) * reach / math.cos(math.pi / kind.corners)
    points = np.round(16 * (corners + np.array([col, row]))).astype(np.int32)  # in 1/16 px, see `shift`
    for colour, width in ((_BLACK, _halo(unit)), (kind.colour, _stroke(unit))):
        cv2.polylines(picture, [points], True, colour, width, cv2.LINE_AA, shift=4)
