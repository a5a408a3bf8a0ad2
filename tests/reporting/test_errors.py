"""The pictures of the errors show every field, and the worst errors with their surroundings."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from mitoscope.datasets.fields import FieldOfView
from mitoscope.errors import InputError
from mitoscope.reporting import errors
from mitoscope.reporting.errors import draw_errors
from mitoscope.reporting.overlays import FALSE, FOUND, MISSED

SIDE_UM = 60
MICRONS = {"01_01": 0.25, "01_02": 0.5}  # two scanners; 32 um are 128 and 64 px
HIT, FALSE_ONE, MISS = (45.0, 12.0), (20.0, 45.0), (12.0, 12.0)  # um; none of the three reaches another
GREEN, VIOLET = (20, 160, 30), (90, 30, 160)


def field(folder: Path, name: str) -> FieldOfView:
    """A pink field, the same for each scanner: a green disc at the false positive, a violet one at the miss."""
    microns = MICRONS[name]
    pixels = np.full((round(SIDE_UM / microns),) * 2 + (3,), (225, 150, 190), np.uint8)
    for (row, col), colour in ((FALSE_ONE, GREEN), (MISS, VIOLET)):
        cv2.circle(pixels, (round(col / microns), round(row / microns)), round(5 / microns), colour, cv2.FILLED)
    path = folder / f"{name}.png"
    path.write_bytes(cv2.imencode(".png", pixels[..., ::-1])[1].tobytes())
    return FieldOfView(path, *name.split("_"))


def table(rows: list[tuple[str, tuple[float, float], float, int]]) -> pd.DataFrame:
    """Rows of name, centre in um, probability and label; predicted from 0.5 on."""
    described = [
        (*name.split("_"), row / MICRONS[name], col / MICRONS[name], probability, label)
        for name, (row, col), probability, label in rows
    ]
    columns = ["patient", "field", "row", "col", "probability", "label"]
    objects = pd.DataFrame(described, columns=columns)
    return objects.assign(predicted=(objects.probability >= 0.5).astype(int))


def read(path: Path) -> np.ndarray:
    return cv2.imread(str(path))[..., ::-1].astype(int)


def share(pixels: np.ndarray, colour: tuple[int, int, int]) -> float:
    """Share of the pixels that have nearly this colour."""
    return float((np.abs(pixels - colour).max(axis=-1) < 40).mean())


@pytest.fixture
def drawn(tmp_path) -> tuple[Path, list[tuple[int, int]]]:
    """Two fields, each with a hit, a false positive and a miss; returns the folder and the calls of `on_field`."""
    objects = table([row for name in MICRONS for row in ((name, HIT, 0.9, 1), (name, FALSE_ONE, 0.7, 0))])
    truths = table([row for name in MICRONS for row in ((name, HIT, 0, 1), (name, MISS, 0, 1))])
    told: list[tuple[int, int]] = []
    draw_errors(
        tmp_path / "out",
        objects,
        truths,
        [field(tmp_path, name) for name in MICRONS],
        MICRONS,
        note=", synthetic data",
        on_field=lambda *step: told.append(step),
    )
    return tmp_path / "out", told


def test_every_field_has_an_overlay_with_its_marks(drawn):
    out, told = drawn
    assert told == [(1, 2), (2, 2)]
    assert sorted(path.name for path in (out / "overlays").iterdir()) == ["01_01.jpg", "01_02.jpg"]
    for name, microns in MICRONS.items():
        side = round(SIDE_UM / microns)
        picture = read(out / "overlays" / f"{name}.jpg")[-side:, :side]
        radius = round(12 / microns)
        for kind, centre in ((FOUND, HIT), (FALSE, FALSE_ONE), (MISSED, MISS)):
            row, col = (round(um / microns) for um in centre)
            around = picture[max(row - radius, 0) : row + radius, max(col - radius, 0) : col + radius]
            others = {FOUND, FALSE, MISSED} - {kind}
            assert share(around, kind.colour) > 0.01, (name, kind.name)
            assert max(share(around, other.colour) for other in others) < 0.01, (name, kind.name)


def test_the_sheet_shows_the_same_tissue_whatever_the_pixel_size(drawn):
    out, _ = drawn
    sheet = read(out / "errors.png")
    # Tiles of 128 px and gaps of 6 under titles of 36; a row of tiles and names is 150 px high.
    for top, colour in ((36, GREEN), (36 + 186, VIOLET)):
        for left in (6, 140):
            tile = sheet[top : top + 128, left : left + 128]
            # A disc of 10 um in 32 um, in the middle.
            assert share(tile, colour) == pytest.approx(np.pi * 5**2 / 32**2, rel=0.15)
            assert share(tile[60:68, 60:68], colour) == 1
        assert (sheet[top : top + 128, 274 : 274 + 128] == 255).all()  # two errors of each kind


def test_the_worst_errors_come_first(tmp_path, monkeypatch):
    monkeypatch.setattr(errors, "_SHOWN", 1)
    objects = table(
        [
            ("01_01", (50.0, 50.0), 0.6, 0),
            ("01_01", FALSE_ONE, 0.8, 0),  # the most probable false positive
            ("01_01", HIT, 0.4, 1),  # detected, but below the threshold
        ]
    )
    truths = table([("01_01", HIT, 0, 1), ("01_01", MISS, 0, 1)])
    draw_errors(tmp_path, objects, truths, [field(tmp_path, "01_01")], MICRONS, note="")
    sheet = read(tmp_path / "errors.png")
    assert share(sheet[96:104, 66:74], GREEN) == 1
    assert share(sheet[186 + 96 : 186 + 104, 66:74], VIOLET) == 1  # no detection at all
    assert (sheet[36:164, 140:268] == 255).all()


@pytest.mark.parametrize("names", [["01_01", "01_02"], ["01_02", "01_01"]])
def test_the_worst_errors_are_those_of_all_fields(tmp_path, monkeypatch, names):
    monkeypatch.setattr(errors, "_SHOWN", 1)
    objects = table([("01_01", (50.0, 50.0), 0.6, 0), ("01_02", FALSE_ONE, 0.8, 0)])
    fields = [field(tmp_path, name) for name in names]
    draw_errors(tmp_path, objects, objects[:0], fields, MICRONS, note="")
    sheet = read(tmp_path / "errors.png")
    assert share(sheet[96:104, 66:74], GREEN) == 1 and (sheet[36:164, 140:268] == 255).all()


def test_a_field_without_errors_has_an_empty_sheet(tmp_path):
    objects = table([("01_02", HIT, 0.9, 1)])
    draw_errors(tmp_path, objects, objects, [field(tmp_path, "01_02")], MICRONS, note="")
    assert (read(tmp_path / "errors.png")[36:164] == 255).all()


def test_an_image_that_cannot_be_read_leaves_the_old_overlays(tmp_path):
    old = tmp_path / "overlays" / "01_01.jpg"
    old.parent.mkdir()
    old.write_bytes(b"old")
    fields = [field(tmp_path, "01_01"), FieldOfView(tmp_path / "01_02.png", "01", "02")]
    objects = table([("01_01", HIT, 0.9, 1)])
    with pytest.raises(InputError, match=r"01_02.png: cannot be read"):
        draw_errors(tmp_path, objects, objects, fields, MICRONS, note="")
    assert old.read_bytes() == b"old"
