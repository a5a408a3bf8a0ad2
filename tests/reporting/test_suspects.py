"""The sheet of suspects shows what is at each place."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from mitoscope.datasets.fields import FieldOfView
from mitoscope.reporting import suspects as suspects_module
from mitoscope.reporting.suspects import describe_suspect, draw_suspects

GREEN, VIOLET, PINK = (20, 160, 30), (90, 30, 160), (225, 150, 190)
COLUMNS = ["rank", "patient", "field", "row", "col", "label", "probability"]


MICRONS = {"01_a": 0.25, "02_a": 0.5}


def two_fields(folder: Path, *domains: str) -> dict[str, FieldOfView]:
    """Pink fields, one with a green disc of 10 um, the other with a violet one; both at row 200, column 300."""
    fields = {}
    for (name, microns), colour, domain in zip(MICRONS.items(), (GREEN, VIOLET), domains, strict=True):
        pixels = np.full((400, 400, 3), PINK, np.uint8)
        cv2.circle(pixels, (300, 200), round(5 / microns), colour, cv2.FILLED)
        path = folder / f"{name}.png"
        path.write_bytes(cv2.imencode(".png", pixels[..., ::-1])[1].tobytes())
        fields[name] = FieldOfView(path, *name.split("_"), domain=domain)
    return fields


def test_a_window_of_32_um_around_each_suspect(tmp_path: Path) -> None:
    fields = two_fields(tmp_path, "", "")
    rows = [(1, "02", "a", 200.0, 300.0, "none", 0.9), (2, "01", "a", 200.0, 300.0, "mitosis", np.nan)]
    told: list[tuple[int, int]] = []
    suspects = pd.DataFrame(rows, columns=COLUMNS)
    draw_suspects(tmp_path / "s.png", suspects, fields, MICRONS, note="", on_field=lambda *step: told.append(step))
    sheet = cv2.imread(str(tmp_path / "s.png"))[..., ::-1]
    tiles = (sheet[36:164, 6:134], sheet[222:350, 6:134])  # below the titles: the mitoses, and then the others
    for tile, colour in zip(tiles, (GREEN, VIOLET), strict=True):
        assert np.abs(tile[64, 64].astype(int) - colour).max() < 5
        share = (np.abs(tile.astype(int) - colour).max(axis=2) < 40).mean()
        assert abs(share - np.pi * 5**2 / 32**2) < 0.01
    assert told == [(1, 2), (2, 2)]


def test_each_domain_has_its_first_suspects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suspects_module, "_SHOWN", 1)
    fields = two_fields(tmp_path, "scanner B", "scanner A")
    rows = [(1, "01", "a", 200.0, 300.0, "none", 0.9), (2, "01", "a", 100.0, 100.0, "none", 0.8)]
    rows.append((3, "02", "a", 200.0, 300.0, "none", 0.7))
    draw_suspects(tmp_path / "s.png", pd.DataFrame(rows, columns=COLUMNS), fields, MICRONS, note="")
    sheet = cv2.imread(str(tmp_path / "s.png"))[..., ::-1].astype(int)
    # Of each domain, by name, the mitoses (none here) and the others; a section is 186 px high.
    for number, colour in enumerate((PINK, VIOLET, PINK, GREEN)):
        top = 186 * number + 36
        expected = (255, 255, 255) if colour is PINK else colour
        assert np.abs(sheet[top + 64, 6 + 64] - expected).max() < 5
        assert (sheet[top : top + 128, 140:268] == 255).all()  # at most one


def test_a_suspect_is_described_by_rank_label_and_score() -> None:
    assert describe_suspect({"rank": 3, "label": "look-alike", "probability": 0.8765}) == "3: look-alike 0.88"
    assert describe_suspect({"rank": 4, "label": "mitosis", "probability": np.nan}) == "4: no candidate"
