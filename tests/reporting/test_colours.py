"""Colour-blind readers can tell the lines apart, and no picture has colours of its own."""

import re
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest

import mitoscope.reporting
from mitoscope.reporting import colours
from mitoscope.reporting.colours import LINES, line_cycle, rgb
from tests.reporting.test_overlays import VISIONS, lab

PALETTE = {value for name, value in vars(colours).items() if name.isupper() and isinstance(value, str)}
FOLDER = Path(mitoscope.reporting.__path__[0])


def test_rgb():
    assert rgb("#56B4E9") == (86, 180, 233) and rgb("#000000") == (0, 0, 0)


@pytest.mark.parametrize("vision", VISIONS)
def test_lines_are_far_apart_and_visible_on_white(vision):
    seen = [lab(rgb(colour), vision) for colour in LINES]
    # A difference of 2.3 is just noticeable.
    assert min(np.linalg.norm(one - other) for one, other in combinations(seen[:2], 2)) > 60
    assert min(np.linalg.norm(one - other) for one, other in combinations(seen, 2)) > 8
    assert min(np.linalg.norm(one - lab((255, 255, 255), vision)) for one in seen) > 25


def test_lines_differ_in_colour_or_style_and_neighbours_in_both():
    styles = [tuple(entry.items()) for entry in line_cycle()]
    assert len(set(styles)) == len(styles) == 2 * len(LINES)
    assert all(not set(one) & set(other) for one, other in pairwise(styles))


def test_every_colour_of_the_reports_is_of_the_palette_or_grey():
    assert len(PALETTE) == 8
    for path in [*FOLDER.glob("*.py"), *FOLDER.glob("*.j2")]:
        for colour in re.findall(r"#[0-9a-fA-F]{6}\b", path.read_text(encoding="utf-8")):
            grey = np.ptp(rgb(colour)) < 25
            assert grey or colour.upper() in PALETTE, f"{path.name}: {colour}"
