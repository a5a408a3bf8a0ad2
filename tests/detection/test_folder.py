"""A labelled folder is read as stage `extract` reads it, and its pixels are not kept."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from mitoscope.datasets.fields import Description, FieldOfView, list_fields, read_description
from mitoscope.datasets.readers import Picture, read_picture
from mitoscope.detection import folder
from mitoscope.detection.folder import read_folder
from mitoscope.detection.stored import StoredFields
from tests.conftest import small_detector

PLACE = ["patient", "field", "row", "col"]


def test_a_folder_has_the_fields_candidates_and_windows_of_a_patch_store(raw, patches, split):
    told: list[tuple[int, int]] = []
    fields, detector = [field for field in list_fields(raw) if field.patient in ("03", "04")], small_detector()
    found = read_folder(fields, read_description(raw), detector, lambda *step: told.append(step)).stored
    stored = StoredFields.read(patches, split, "train")
    for name in ("microns_per_pixel", "areas_mm2", "domains", "images"):
        assert getattr(found, name) == getattr(stored, name)
    assert found.truths.values.tolist() == stored.truths[PLACE].values.tolist()
    mine, theirs = (one.candidates.reset_index().sort_values(PLACE) for one in (found, stored))
    assert mine[PLACE].values.tolist() == theirs[PLACE].values.tolist()
    windows = [one.windows.read(rows["index"].to_numpy()) for one, rows in ((found, mine), (stored, theirs))]
    assert (windows[0] == windows[1]).all()
    assert told == [(number, 4) for number in range(1, 5)]


def test_scoring_reads_each_image_once_and_keeps_one(raw, monkeypatch):
    read: list[Path] = []

    def count(path: Path) -> Picture:
        read.append(path)
        return read_picture(path)

    fields, detector = list_fields(raw), small_detector()
    stored = read_folder(fields, read_description(raw), detector).stored
    monkeypatch.setattr(folder, "read_picture", count)
    detector.score(stored.windows, stored.field)
    assert read == [field.image for field in fields]
    assert folder._prepare.cache_info().currsize == 1


@pytest.mark.parametrize(("stain", "unnormalised"), [("none", 0), ("macenko", 1)])
def test_fields_with_too_little_tissue_to_normalise_are_counted(raw, tmp_path, stain, unnormalised):
    cv2.imwrite(str(tmp_path / "09_01.png"), np.full((120, 120, 3), 255, np.uint8))
    settings = small_detector().extract.model_copy(update={"stain": stain})
    fields = [FieldOfView(tmp_path / "09_01.png", "09", "01", 0.25), *list_fields(raw)[:1]]
    found = read_folder(fields, Description(microns_per_pixel=0.25), small_detector(extract=settings))
    assert found.unnormalised == unnormalised
