"""The sheet of suspects shows what is at each place."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from mitoscope.datasets.fields import FieldOfView
from mitoscope.reporting.suspects import describe_suspect, draw_suspects

GREEN, VIOLET, PINK = (20, 160, 30), (90, 30, 160), (225, 150, 190)
COLUMNS = ["rank", "patient", "field", "row", "col", "label", "probability"]


def test_a_window_of_32_um_around_each_suspect(tmp_path: Path) -> None:
    fields, microns = {}, {"01_a": 0.25, "02_a": 0.5}
    for name, colour in (("01_a", GREEN), ("02_a", VIOLET)):
        pixels = np.full((400, 400, 3), PINK, np.uint8)
        cv2.circle(pixels, (300, 200), round(5 / microns[name]), colour, cv2.FILLED)
        path = tmp_path / f"{name}.png"
        path.write_bytes(cv2.imencode(".png", pixels[..., ::-1])[1].tobytes())
        fields[name] = FieldOfView(path, *name.split("_"))
    rows = [(1, "02", "a", 200.0, 300.0, "none", 0.9), (2, "01", "a", 200.0, 300.0, "mitosis", np.nan)]
    told: list[tuple[int, int]] = []
    suspects = pd.DataFrame(rows, columns=COLUMNS)
    draw_suspects(tmp_path / "s.png", suspects, fields, microns, note="", on_field=lambda *step: told.append(step))
    sheet = cv2.imread(str(tmp_path / "s.png"))[..., ::-1]
    tiles = (sheet[36:164, 6:134], sheet[222:350, 6:134])  # below the titles: the mitoses, and then the others
    for tile, colour in zip(tiles, (GREEN, VIOLET), strict=True):
        assert np.abs(tile[64, 64].astype(int) - colour).max() < 5
        share = (np.abs(tile.astype(int) - colour).max(axis=2) < 40).mean()
        assert abs(share - np.pi * 5**2 / 32**2) < 0.01
    assert told == [(1, 2), (2, 2)]


def test_a_suspect_is_described_by_rank_label_and_score() -> None:
    assert describe_suspect({"rank": 3, "label": "look-alike", "probability": 0.8765}) == "3: look-alike 0.88"
    assert describe_suspect({"rank": 4, "label": "mitosis", "probability": np.nan}) == "4: no candidate"
