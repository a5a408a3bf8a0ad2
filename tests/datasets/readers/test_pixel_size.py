"""The size of a pixel is taken from a file where it is plausible, and from nothing else."""

from pathlib import Path
from typing import Any

import pytest
import tifffile
from PIL import Image as Pillow

from mitoscope.datasets.readers import read_picture
from mitoscope.datasets.readers.pixel_size import from_description
from tests.datasets.conftest import tissue

FIELD = tissue()
MICRO, MU = "\u00b5m", "\u03bcm"


def tiff_size(folder: Path, **settings: Any) -> float | None:
    path = folder / "01_01.tif"
    tifffile.imwrite(path, FIELD, **{"photometric": "rgb", "metadata": None} | settings)
    return read_picture(path).microns_per_pixel


@pytest.mark.parametrize(
    ("resolution", "unit", "microns"),
    [
        ((20000, 20000), "centimeter", 0.5),
        ((101600, 101600), "inch", 0.25),
        ((20000, 20100), "centimeter", pytest.approx(0.49876, abs=1e-5)),  # within 1 %
        ((20000, 21000), "centimeter", None),  # unequal
        ((20000, 40000), "centimeter", None),
        ((72, 72), "inch", None),
        ((96, 96), "inch", None),
        ((300, 300), "inch", None),
        ((9000, 9000), "centimeter", None),  # 1.1 um
        ((110000, 110000), "centimeter", None),  # 0.09 um
        ((0, 0), "centimeter", None),
        ((4, 4), None, None),  # no unit
    ],
)
def test_resolution_tags_of_a_tiff(tmp_path, resolution, unit, microns):
    assert tiff_size(tmp_path, resolution=resolution, resolutionunit=unit) == microns


@pytest.mark.parametrize(
    ("unit", "pixels", "microns"),
    [
        ("um", 2, 0.5),
        ("micron", 4, 0.25),
        ("microns", 4, 0.25),
        ("\\u00B5m", 4, 0.25),  # as ImageJ writes it
        ("mm", 4000, 0.25),
        ("cm", 40000, 0.25),
        ("inch", 101600, 0.25),
        ("pixel", 4, None),
        ("um", 0.01, None),
    ],
)
def test_the_unit_of_imagej(tmp_path, unit, pixels, microns):
    size = tiff_size(tmp_path, imagej=True, photometric=None, resolution=(pixels, pixels), metadata={"unit": unit})
    assert size == (None if microns is None else pytest.approx(microns))


@pytest.mark.parametrize(
    ("x", "y", "unit", "microns"),
    [
        (0.5, 0.5, None, 0.5),
        (0.25, 0.25, MICRO, 0.25),
        (0.25, 0.25, MU, 0.25),
        (250, 250, "nm", 0.25),
        (0.00025, 0.00025, "mm", 0.25),
        (0.25, 0.5, None, None),
        (1, 1, "pixel", None),
        (10, 10, None, None),
    ],
)
def test_the_physical_size_of_ome(tmp_path, x, y, unit, microns):
    units = {} if unit is None else {"PhysicalSizeXUnit": unit, "PhysicalSizeYUnit": unit}
    about = {"axes": "YXS", "PhysicalSizeX": x, "PhysicalSizeY": y, **units}
    size = tiff_size(tmp_path, ome=True, metadata=about)
    assert size == (None if microns is None else pytest.approx(microns))


@pytest.mark.parametrize(
    ("description", "microns"),
    [
        ("Aperio Image Library v11.2.1\n50x60 (16x16)|AppMag = 20|MPP = 0.4990|Left = 1", 0.499),
        ("Aperio\nMPP=0.2520", 0.252),
        ("Aperio\n|MPP = 10.5", None),
        ("Aperio\n5000x6000 -> 50x60 - |AppMag = 20|MPP = 0.4990", None),  # a reduced copy
        ("20x", None),
        ("objective 40x, AppMag = 40", None),
        ("<OME><Image><Pixels SizeX='1' PhysicalSizeX='a' PhysicalSizeY='0.5'/></Image></OME>", None),
    ],
)
def test_other_descriptions(tmp_path, description, microns):
    assert tiff_size(tmp_path, description=description) == microns


def test_a_description_goes_before_the_resolution(tmp_path):
    settings = {"resolution": (20000, 20000), "resolutionunit": "centimeter"}
    assert tiff_size(tmp_path, description="Aperio|MPP = 0.25", **settings) == 0.25
    assert tiff_size(tmp_path, description="20x", **settings) == 0.5


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp"])
@pytest.mark.parametrize(("dpi", "microns"), [(50800, 0.5), (72, None), (300, None), (None, None)])
def test_the_resolution_of_other_formats(tmp_path, suffix, dpi, microns):
    path = tmp_path / f"01_01{suffix}"
    Pillow.fromarray(FIELD).save(path, **({"dpi": (dpi, dpi)} if dpi else {}))
    size = read_picture(path).microns_per_pixel
    assert size == (None if microns is None else pytest.approx(microns, rel=1e-4))


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_the_resolution_in_exif(tmp_path, suffix):
    exif = Pillow.Exif()
    exif[282] = exif[283] = 40000.0
    exif[296] = 3  # centimetre
    path = tmp_path / f"01_01{suffix}"
    Pillow.fromarray(FIELD).save(path, exif=exif)
    assert read_picture(path).microns_per_pixel == pytest.approx(0.25)


def test_a_description_that_never_ends_is_read_at_once():
    assert from_description("<Pixels " * 500_000, 0, 0) is None  # in square time this takes hours
