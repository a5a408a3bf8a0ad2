"""Galleries: many patches in one picture, each with its name."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from mitoscope.datasets.readers import Image, encode_image
from mitoscope.files import atomic_path

_TILE, _CAPTION, _TITLE, _GAP = 128, 16, 36, 6
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def draw_gallery(path: Path, sections: Sequence[tuple[str, Sequence[tuple[str, Image]]]], *, columns: int = 10) -> None:
    """Write a PNG with a title and a grid of patches for each section.

    Args:
        path: PNG to write.
        sections: (title, [(name, (H, W, 3) uint8 RGB patch), ...]).
        columns: number of patches per row.
    """
    cell = (_TILE + _CAPTION + _GAP, _TILE + _GAP)
    strips = []
    for title, examples in sections:
        rows = max(-(-len(examples) // columns), 1)
        strip = np.full((_TITLE + rows * cell[0], columns * cell[1] + _GAP, 3), 255, np.uint8)
        cv2.putText(strip, title, (_GAP, _TITLE - 12), _FONT, 0.7, (0, 0, 0), 1, cv2.LINE_AA)
        for number, (name, patch) in enumerate(examples):
            top = _TITLE + number // columns * cell[0]
            left = _GAP + number % columns * cell[1]
            tile = cv2.resize(patch, (_TILE, _TILE), interpolation=cv2.INTER_CUBIC)
            strip[top : top + _TILE, left : left + _TILE] = tile
            caption = name.removesuffix(".png").removesuffix("_rot0")
            cv2.putText(strip, caption, (left, top + _TILE + 11), _FONT, 0.32, (60, 60, 60), 1, cv2.LINE_AA)
        strips.append(strip)
    with atomic_path(path) as temporary:
        temporary.write_bytes(encode_image(np.concatenate(strips), ".png"))
