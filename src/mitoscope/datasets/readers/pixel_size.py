"""The size of a pixel, as image files say it: resolutions, and the descriptions of ImageJ, OME and Aperio."""

import html
import re

_FINEST, _COARSEST = 0.1, 1.0  # um; outside, it is the resolution of a screen or a printer
_UNEQUAL = 0.01  # of both axes
# um per unit, in lower case. ImageJ writes the micro sign as \u00B5.
_UNITS = {
    **dict.fromkeys(("um", "\u00b5m", "\u03bcm", "\\u00b5m", "micron", "microns", "micrometer", "micrometre"), 1.0),
    "nm": 1e-3,
    "mm": 1e3,
    "cm": 1e4,
    "m": 1e6,
    "inch": 25400.0,
    "in": 25400.0,
}
INCH, CENTIMETRE, METRE = 25400.0, 1e4, 1e6  # um


def plausible(x: float, y: float) -> float | None:
    """Return the size of a pixel, um, if `x` and `y` (um) are nearly equal and a microscope's; else None."""
    if not (_FINEST <= x <= _COARSEST and _FINEST <= y <= _COARSEST) or abs(x / y - 1) > _UNEQUAL:
        return None
    return (x + y) / 2


def from_resolution(x: float, y: float, unit: float) -> float | None:
    """Return the size of a pixel, um, from `x` and `y` pixels per `unit` um, if it is plausible."""
    return plausible(unit / x, unit / y) if x > 0 and y > 0 else None


def from_description(description: str, x: float, y: float) -> float | None:
    """Return the size of a pixel, um, from a TIFF's description, if it is plausible.

    A magnification ("20x") is never believed: it does not give the size of a pixel.

    Args:
        description: the tag ImageDescription.
        x: pixels per unit along x, as the tag XResolution says; 0 if it says nothing.
        y: pixels per unit along y.
    """
    if description.startswith("ImageJ="):
        unit = re.search(r"^unit=(.+)$", description, re.MULTILINE)
        microns = _UNITS.get(unit[1].strip().lower()) if unit else None
        return from_resolution(x, y, microns) if microns else None
    if pixels := re.search(r"<(?:\w+:)?Pixels\b[^<>]*>", description):  # OME-XML
        sizes = [_ome_size(pixels[0], axis) for axis in "XY"]
        return plausible(sizes[0], sizes[1])
    # Aperio writes MPP, of the slide as it was scanned: "46920x33014 -> 1024x732" is a reduced copy.
    if (aperio := re.search(r"\bMPP\s*=\s*(\d+\.?\d*)", description)) and "->" not in description:
        return plausible(float(aperio[1]), float(aperio[1]))
    return None


def _ome_size(pixels: str, axis: str) -> float:
    """Return the size of a pixel along an axis, um, as the element Pixels says; 0 if it says nothing."""
    size = re.search(rf"\bPhysicalSize{axis}\s*=\s*[\"']([\d.eE+-]+)[\"']", pixels)
    unit = re.search(rf"\bPhysicalSize{axis}Unit\s*=\s*[\"']([^\"']*)[\"']", pixels)
    try:
        return float(size[1]) * _UNITS.get(html.unescape(unit[1]).lower() if unit else "um", 0.0) if size else 0.0
    except ValueError:
        return 0.0
