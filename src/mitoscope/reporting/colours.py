"""Colours that colour-blind readers can tell apart: the palette of Okabe and Ito.

Source: Okabe and Ito, "Color Universal Design", J*FLY (2008). Pictures also use shapes and line styles, so that they
can be read in grey.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cycler import Cycler

ORANGE, SKY_BLUE, GREEN, YELLOW = "#E69F00", "#56B4E9", "#009E73", "#F0E442"
BLUE, VERMILION, PURPLE, BLACK = "#0072B2", "#D55E00", "#CC79A7", "#000000"
LINES = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY_BLUE, BLACK)  # without yellow, which is faint on white


def rgb(colour: str) -> tuple[int, int, int]:
    """Red, green and blue (0 to 255) of a colour written as #RRGGBB."""
    red, green, blue = bytes.fromhex(colour.removeprefix("#"))
    return red, green, blue


def line_cycle() -> "Cycler[Any, Any]":
    """Colours and line styles of matplotlib's lines; neighbours differ in both, and 14 lines are all different."""
    from cycler import cycler

    return cycler(color=LINES * 2) + cycler(linestyle=["-", "--"] * len(LINES))
