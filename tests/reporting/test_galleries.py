"""A gallery is a readable PNG with every patch in its place; after a failure the old file remains."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from mitoscope.reporting.galleries import draw_gallery
from tests.disks import full_disk

RED, GREEN = (np.full((64, 64, 3), colour, np.uint8) for colour in ((200, 10, 10), (10, 200, 10)))


def read(path: Path) -> np.ndarray:
    return cv2.imread(str(path))[..., ::-1]


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_patches_are_in_rows_under_their_title(tmp_path):
    path = tmp_path / "new" / "gallery.png"
    draw_gallery(path, [("first", [("a", RED)] * 3), ("second", [("b", GREEN)])], columns=2)
    picture = read(path)
    # Tiles of 128 px and gaps of 6; two rows and one, each 128 + 16 (name) + 6 high, under titles of 36.
    assert picture.shape == (2 * 36 + 3 * 150, 2 * 134 + 6, 3)
    for top, left in ((36, 6), (36, 140), (186, 6)):
        assert (picture[top : top + 128, left : left + 128] == (200, 10, 10)).all()
    assert (picture[186 : 186 + 128, 140:268] == 255).all()  # no fourth patch
    below = 36 + 2 * 150 + 36
    assert (picture[below : below + 128, 6:134] == (10, 200, 10)).all()
    assert (picture[:36] < 128).any() and (picture[164:180, 6:134] < 128).any()  # title and name are written
    assert names(path.parent) == ["gallery.png"]


def test_a_section_may_be_empty(tmp_path):
    draw_gallery(tmp_path / "gallery.png", [("0 mitoses", []), ("1 negative", [("b", GREEN)])], columns=3)
    picture = read(tmp_path / "gallery.png")
    assert picture.shape == (2 * (36 + 150), 3 * 134 + 6, 3)
    assert (picture[36:186] == 255).all()


def test_a_full_disk_leaves_the_old_picture(tmp_path):
    path = tmp_path / "gallery.png"
    path.write_bytes(b"old")
    with pytest.raises(OSError, match="File too large"), full_disk():
        draw_gallery(path, [("first", [("a", RED)])])
    assert path.read_bytes() == b"old" and names(tmp_path) == ["gallery.png"]
