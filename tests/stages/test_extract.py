"""The patch store is whole, the same every time, and holds nothing of fields that are gone."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest

from mitoscope.datasets.patches import is_sample, read_index
from mitoscope.errors import InputError
from mitoscope.stages.extract import extract
from tests.conftest import tiny_params, write_params

PATCHES = Path("patches")


def summary() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((PATCHES / "summary.json").read_text())
    return content


def store() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in PATCHES.iterdir()}


def test_every_field_has_its_windows(extracted):
    index = read_index(PATCHES)
    fields = [path.stem for path in sorted(Path("data").glob("*.jpg"))]
    assert set(store()) == {*(f"{name}.npy" for name in fields), "index.csv", "summary.json"}
    assert (index.patient + "_" + index.field).drop_duplicates().tolist() == fields
    for name in fields:
        rows = index[index.patient + "_" + index.field == name]
        windows = np.load(PATCHES / f"{name}.npy")
        assert windows.shape == (len(rows), 46, 46, 3) and windows.dtype == np.uint8
        assert rows.record.tolist() == list(range(len(rows)))
        centres = Path("data", f"{name}.csv")
        assert (rows.source == "annotation").sum() == (len(centres.read_text().split()) if centres.exists() else 0)


def test_a_window_shows_the_halved_field(extracted):
    row = read_index(PATCHES).query("label == 1 and not edge").iloc[0]
    name = f"{row.patient}_{row.field}"
    image = cv2.imread(f"data/{name}.jpg")[..., ::-1]
    half = cv2.resize(image, (200, 200), interpolation=cv2.INTER_AREA)
    # Row 218 of the field lies at 108.75 of its half, in the middle of the 46 px from 86 to 131 (108.5).
    top, left = (int(np.floor((place + 0.5) / 2 - 0.5 - 22.5 + 0.5)) for place in (row.row, row.col))
    window = np.load(PATCHES / f"{name}.npy")[row.record]
    np.testing.assert_array_equal(window, half[top : top + 46, left : left + 46])


def test_the_summary_counts_the_index(extracted):
    everything, counts = read_index(PATCHES), summary()
    index = everything[is_sample(everything)]
    assert counts["fields"] == 8 and counts["mitoses"] == index.label.sum() == 21
    assert counts["negatives"] == (index.label == 0).sum() > 50
    assert counts["patients"] == {
        patient: {"mitoses": int(rows.label.sum()), "negatives": int((rows.label == 0).sum())}
        for patient, rows in index.groupby("patient")
    }
    edge = index[index.edge].label
    assert counts["dropped"]["mitoses too near the edge to train on"] == (edge == 1).sum() > 0
    assert counts["dropped"]["negatives too near the edge to train on"] == (edge == 0).sum() > 0
    assert counts["candidates"] == 8 * 15  # 1500 per mm2 x (400 x 0.25 um)^2
    near = counts["candidates"] - counts["negatives"]
    assert counts["dropped"]["candidates within exclusion_um of a mitosis"] == near == len(everything) - len(index)
    assert counts["areas_mm2"] == {field: pytest.approx(0.01) for field in counts["areas_mm2"]}
    assert len(counts["areas_mm2"]) == 8 and counts["stain_unchanged"] == 0
    assert counts["settings"] == {**tiny_params()["extract"], "window_size": 46}
    assert counts["dataset"]["synthetic"] is True
    gallery = cv2.imread("results/extract/gallery.png")
    assert gallery.shape[1] == 10 * 134 + 6


def test_edge_means_that_the_window_leaves_the_field(extracted):
    index = read_index(PATCHES)
    # Half a window, 46 px of the full field; one more or less by rounding.
    closest = np.minimum(index[["row", "col"]].min(axis=1), 399 - index[["row", "col"]].max(axis=1))
    assert not index.edge[closest > 47].any() and index.edge[closest < 44].all()
    assert 0 < index.edge.sum() < len(index)


def test_another_run_writes_the_same_bytes(extracted):
    before = store()
    extract()
    assert store() == before


@pytest.mark.parametrize("change", ["centre", "field", "settings"])
def test_the_digest_follows_the_content(extracted, change):
    before = summary()
    if change == "centre":
        Path("data/01_01.csv").write_text("218,204\n")  # one pixel
    elif change == "field":
        Path("data/04_02.jpg").unlink()
    else:
        params = tiny_params()
        params["extract"]["exclusion_um"] = 40
        write_params(params)
    extract()
    assert summary()["digest"] != before["digest"] and len(before["digest"]) == 64


def test_the_digest_ignores_what_changes_no_patch(extracted):
    before = summary()["digest"]
    Path("data/01_01.csv").write_text("218.0, 203.0\n\n")
    Path("data/notes.txt").write_text("hello")
    extract()
    assert summary()["digest"] == before


def test_what_earlier_runs_left_is_removed(extracted):
    (PATCHES / "09_09.npy").write_bytes(b"of a field that is no more")
    (PATCHES / ".01_01.123.partial.npy").write_bytes(b"of a killed run")
    for path in Path("data").glob("04_*"):
        path.unlink()
    extract()
    assert set(read_index(PATCHES).patient) == {"01", "02", "03"}
    assert not [name for name in store() if name.startswith(("09", ".", "04"))]


def test_a_bad_field_is_named(project):
    Path("data/03_01.jpg").write_bytes(Path("data/03_01.jpg").read_bytes()[:2000])
    with pytest.raises(InputError, match=r"03_01\.jpg: the image is truncated"):
        extract()
    assert not PATCHES.exists()


def test_a_bad_field_leaves_the_old_store_as_it_was(project):
    extract()
    before = {path.name: path.read_bytes() for path in PATCHES.iterdir()}
    Path("data/03_01.csv").write_text("nonsense\n")
    with pytest.raises(InputError, match=r"03_01\.csv: row 1"):
        extract()
    assert {path.name: path.read_bytes() for path in PATCHES.iterdir()} == before
    assert sorted(path.name for path in project.iterdir()) == ["data", "params.yaml", "patches", "results"]


def test_a_bad_centre_is_named(project):
    Path("data/03_01.csv").write_text("1,2\n400,3\n")
    with pytest.raises(InputError, match=r"03_01\.csv: row 2: row 400, col 3 lies outside"):
        extract()


def test_fields_without_anything_are_no_failure(project):
    for path in Path("data").glob("*_*"):
        path.unlink()
    for name in ("01_01", "02_01"):
        cv2.imwrite(f"data/{name}.png", np.full((200, 200, 3), 240, np.uint8))
    extract()
    assert read_index(PATCHES).empty
    assert summary()["mitoses"] == summary()["negatives"] == 0 and summary()["patients"] == {}


def test_the_gallery_says_synthetic_only_of_synthetic_data(extracted):
    gallery = Path("results/extract/gallery.png")
    with_word = gallery.read_bytes()
    description = Path("data/dataset.yaml")
    description.write_text(description.read_text().replace("synthetic: true", "synthetic: false"))
    extract()
    before, after = (cv2.imdecode(np.frombuffer(png, np.uint8), 0) for png in (with_word, gallery.read_bytes()))
    assert (before[:36] < 128).sum() > (after[:36] < 128).sum()  # the title has lost a word
    np.testing.assert_array_equal(before[36:186], after[36:186])


def test_the_index_is_the_same_whatever_the_number_of_threads(extracted, monkeypatch):
    before = pd.read_csv(PATCHES / "index.csv")
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")
    extract()
    pd.testing.assert_frame_equal(pd.read_csv(PATCHES / "index.csv"), before)


def test_fields_that_cannot_be_normalised_are_counted(extracted, capsys):
    params = tiny_params()
    params["extract"]["stain"] = "macenko"
    write_params(params)
    cv2.imwrite("data/01_01.jpg", np.full((400, 400, 3), 255, np.uint8))
    before = np.load(PATCHES / "02_01.npy")
    extract()
    assert summary()["stain_unchanged"] == 1
    assert "1 fields have too little tissue" in capsys.readouterr().out
    assert not np.array_equal(before, np.load(PATCHES / "02_01.npy"))
