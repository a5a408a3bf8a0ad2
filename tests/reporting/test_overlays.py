"""An overlay shows every mark in its place, hides no nucleus, and is readable for the colour-blind and in grey."""

import math
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import pytest

from mitoscope.errors import InputError
from mitoscope.reporting.overlays import DETECTED, FALSE, FOUND, MISSED, Marks, draw_overlay
from tests.disks import full_disk

PINK = (225, 150, 190)
NONE = np.empty((0, 2))
KINDS = (FOUND, FALSE, MISSED)

# Machado, Oliveira and Fernandes, "A physiologically-based model for simulation of color vision deficiency", IEEE
# TVCG 15 (2009), severity 1.0, for linear RGB.
VISIONS = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
}


def plain(rows: int, columns: int) -> np.ndarray:
    return np.full((rows, columns, 3), PINK, np.uint8)


def read(path: Path) -> np.ndarray:
    return cv2.imread(str(path))[..., ::-1]


def draw(folder: Path, image: np.ndarray, marks: Marks, *, radius: float = 20, title: str = "01_02"):
    """The strip, and below it the field with the margin on its right."""
    draw_overlay(folder / "overlay.png", image, marks, radius=radius, title=title)
    picture = read(folder / "overlay.png")
    height = len(picture) - len(image)
    return picture[:height], picture[height:]


def one_kind(kind, centre: tuple[float, float]) -> Marks:
    return Marks(*(np.array([centre]) if kind is other else NONE for other in KINDS))


def has(pixels: np.ndarray, colour: tuple[int, int, int]) -> bool:
    return bool((pixels == colour).all(axis=-1).any())


def lab(colour: tuple[int, int, int], vision: str) -> np.ndarray:
    """CIELAB (D65) of an sRGB colour as seen with this vision."""
    share = np.array(colour) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    seen = np.clip(VISIONS[vision] @ linear, 0, 1)
    srgb = np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)
    return cv2.cvtColor(srgb.astype(np.float32)[None, None], cv2.COLOR_RGB2LAB)[0, 0]


@pytest.mark.parametrize("vision", VISIONS)
def test_colours_are_far_apart_and_far_from_the_stains(vision):
    np.testing.assert_allclose(VISIONS[vision].sum(axis=1), 1, atol=1e-5)  # white stays white
    colours = [lab(kind.colour, vision) for kind in KINDS]
    # A difference of 2.3 is just noticeable.
    assert min(np.linalg.norm(one - other) for one, other in combinations(colours, 2)) > 30
    # Chromatin, nuclei, stroma, cytoplasm, blood: where the sky blue is closest to one, its halo separates them.
    for stain in ((70, 35, 85), (120, 70, 140), PINK, (235, 205, 225), (200, 60, 90)):
        assert min(np.linalg.norm(colour - lab(stain, vision)) for colour in colours) > 15, stain


@pytest.mark.parametrize(("kind", "angle"), [(FOUND, 0), (FALSE, 0), (MISSED, math.pi / 4)])
def test_a_ring_of_twice_the_radius_round_the_centre(tmp_path, kind, angle):
    _, field = draw(tmp_path, plain(400, 800), one_kind(kind, (150, 500)), radius=20)
    for turn in range(4):  # where the shape touches the circle of 40 px
        direction = angle + turn * math.pi / 2
        row, col = round(150 + 40 * math.sin(direction)), round(500 + 40 * math.cos(direction))
        assert has(field[row - 1 : row + 2, col - 1 : col + 2], kind.colour)
    changed = np.argwhere((field != PINK).any(axis=2))
    np.testing.assert_allclose(changed.mean(axis=0), (150, 500), atol=0.1)
    assert np.abs(changed - (150, 500)).max() < 40 * math.sqrt(2) + 5
    assert (field.max(axis=2) < 60).any()  # the halo
    assert not any(has(field, other.colour) for other in KINDS if other is not kind)


def test_shapes_differ_without_colour(tmp_path):
    shapes = [(draw(tmp_path, plain(400, 400), one_kind(kind, (200, 200)))[1] != PINK).any(axis=2) for kind in KINDS]
    assert all((one != other).sum() > 500 for one, other in combinations(shapes, 2))


@pytest.mark.parametrize("side", [700, 2000])
@pytest.mark.parametrize("radius", [3, 30])
def test_the_nuclei_stay_as_they_were(tmp_path, radius, side):
    image = plain(side, side)
    image[:200, :600, 1] = np.arange(600) % 251
    centres = np.array([[100.0, 100], [100, 300], [100, 500]])
    _, field = draw(tmp_path, image, Marks(*centres[:, None]), radius=radius)
    rows, columns = np.mgrid[:200, :600]
    for kind, centre in zip(KINDS, centres, strict=True):
        inside = np.hypot(rows - centre[0], columns - centre[1]) <= radius
        assert (field[:200, :600][inside] == image[:200, :600][inside]).all(), kind
        assert has(field[:200, :600], kind.colour)


def test_the_image_is_not_changed_and_may_be_a_view(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (300, 600, 3), np.uint8)
    kept = image.copy()
    image.flags.writeable = False
    marks = Marks(np.array([[150.0, 150]]))
    _, straight = draw(tmp_path, image, marks)
    _, view = draw(tmp_path, image[..., ::-1].copy()[..., ::-1], marks)
    assert (image == kept).all() and (straight == view).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 900), (900, 1), (40, 2000), (2000, 40), (1500, 2500)])
def test_images_of_any_size(tmp_path, shape):
    image = plain(*shape)
    strip, below = draw(tmp_path, image, Marks(NONE, NONE, NONE), title="a title of some words")
    assert (below[:, : shape[1]] == image).all()  # without a mark the field is as it was
    assert (below[:, shape[1] :] == 255).all()
    assert (strip[:, -1] == 255).all() and (strip[-1] == 255).all()  # no letter is cut off
    draw(tmp_path, image, Marks(np.array([[0.0, 0.0]]), np.array([[shape[0] - 1.0, shape[1] - 1.0]]), NONE))


def test_letters_grow_with_the_image(tmp_path):
    small, _ = draw(tmp_path, plain(1000, 1000), Marks(NONE))
    large, _ = draw(tmp_path, plain(2000, 2000), Marks(NONE))
    extents = [np.argwhere((strip < 128).all(axis=2)).max(axis=0) for strip in (small, large)]
    np.testing.assert_allclose(extents[1] / extents[0], 2, rtol=0.1)


def test_long_titles_and_legends_continue_on_the_next_line(tmp_path):
    heights = [
        len(draw(tmp_path, plain(300, columns), Marks(NONE, NONE, NONE), title="word " * words)[0])
        for columns, words in ((900, 1), (900, 40), (300, 1))
    ]
    assert heights[0] < heights[1] and heights[0] < heights[2]


def test_marks_at_the_border_stay_in_the_field(tmp_path):
    corners = np.array([[0.0, 0], [0, 299], [199, 0], [199, 299]])
    strip, below = draw(tmp_path, plain(200, 300), Marks(corners, NONE, NONE), title="wide" * 20)
    expected, _ = draw(tmp_path, plain(200, 300), Marks(corners + 1e6, NONE, NONE), title="wide" * 20)
    assert (strip == expected).all()
    assert below.shape[1] > 300 and (below[:, 300:] == 255).all()
    for rows in (slice(0, 50), slice(150, 200)):
        for columns in (slice(0, 50), slice(250, 300)):
            assert has(below[rows, columns], FOUND.colour)


def test_the_legend_counts(tmp_path):
    image, centre = plain(400, 700), np.array([[200.0, 200]])
    outside = np.full((5, 2), -1e4)
    first, field = draw(tmp_path, image, Marks(centre, NONE, NONE))
    second, same = draw(tmp_path, image, Marks(np.concatenate([centre, outside]), NONE, NONE))
    assert (field == same).all()
    # Only the number after the first entry differs.
    rows, columns = np.argwhere((first != second).any(axis=2)).T
    assert len(rows) and np.ptp(rows) < 16 and np.ptp(columns) < 16


def test_the_legend_has_the_kinds_that_are_known(tmp_path):
    image = plain(400, 700)
    detected, _ = draw(tmp_path, image, Marks(NONE))
    judged, _ = draw(tmp_path, image, Marks(NONE, NONE, NONE))
    half, _ = draw(tmp_path, image, Marks(NONE, NONE))
    assert [has(detected, kind.colour) for kind in KINDS] == [True, False, False]
    assert [has(half, kind.colour) for kind in KINDS] == [True, True, False]
    assert [has(judged, kind.colour) for kind in KINDS] == [True, True, True]
    # The first entry is "mitoses" where no truth is known, and "true positives" where it is.
    assert DETECTED.name == "mitoses" and (detected[:, :150] != judged[:, :150]).any()
    assert (half[:, :150] == judged[:, :150]).all()


def test_the_title_is_written(tmp_path):
    image = plain(300, 900)
    one, two = (draw(tmp_path, image, Marks(NONE), title=title)[0] for title in ("01_02", "01_03"))
    rows = np.argwhere((one != two).any(axis=2))[:, 0]
    assert len(rows) and rows.max() < len(one) // 2


def test_the_suffix_chooses_the_format(tmp_path):
    marks = Marks(np.array([[100.0, 100]]))
    for suffix, start in ((".jpg", b"\xff\xd8"), (".png", b"\x89PNG")):
        draw_overlay(tmp_path / "new" / f"a{suffix}", plain(200, 400), marks, radius=20, title="a")
        assert (tmp_path / "new" / f"a{suffix}").read_bytes().startswith(start)
    exact, lossy = (read(tmp_path / "new" / name).astype(int) for name in ("a.png", "a.jpg"))
    assert np.abs(exact - lossy).mean() < 3
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"a.jpg", "a.png"}


def test_too_large_for_a_jpeg(tmp_path):
    with pytest.raises(InputError, match=r"a\.jpg: 65501 x 1 px and the legend are too large"):
        draw_overlay(tmp_path / "a.jpg", plain(1, 65501), Marks(NONE), radius=20, title="a")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_old_picture(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    with pytest.raises(OSError, match="File too large"), full_disk():
        draw_overlay(path, plain(200, 200), Marks(NONE), radius=20, title="a")
    assert path.read_bytes() == b"old" and [file.name for file in tmp_path.iterdir()] == ["a.png"]
