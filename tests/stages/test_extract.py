"""The patch store is whole, the same every time, and holds nothing of fields that are gone."""

import hashlib
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
from scipy.spatial import KDTree

from mitoscope.datasets.fields import Description, FieldOfView
from mitoscope.datasets.patches import COLUMNS, is_sample, read_index
from mitoscope.datasets.readers import read_image
from mitoscope.errors import InputError
from mitoscope.histology.windows import window_size
from mitoscope.params import Extract
from mitoscope.stages.extract import FieldPatches, extract, extract_field
from tests.conftest import tiny_params, write_params

PATCHES = Path("patches")
ROWS, COLS = 331, 300
CENTRES = [(160.0, 141.0), (10.0, 280.0), (250.5, 60.25)]  # the second is at the edge
MANY = {"patch_um": 16.0, "candidates_per_mm2": 20_000.0}


@pytest.fixture
def field(tmp_path: Path) -> FieldOfView:
    """A field of smooth coloured noise with three dark blue discs, its mitoses."""
    clouds = cv2.GaussianBlur(np.random.default_rng(0).normal(size=(ROWS, COLS, 3)), (0, 0), 4)
    image = np.clip(190 + 15 * clouds / clouds.std(), 0, 255).astype(np.uint8)
    for row, col in CENTRES:
        cv2.circle(image, (round(col), round(row)), 7, (120, 20, 20), cv2.FILLED)  # BGR
    cv2.imwrite(str(tmp_path / "07_03.png"), image)
    (tmp_path / "07_03.csv").write_text("".join(f"{row},{col}\n" for row, col in CENTRES))
    return FieldOfView(tmp_path / "07_03.png", "07", "03")


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
    assert counts["mitoses"] == index.label.sum() == 21
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
    assert counts["stain_unchanged"] == 0
    assert counts["settings"] == Extract(**tiny_params()["extract"]).chosen()
    assert (counts["patch_size"], counts["window_size"]) == (32, 46)
    assert counts["dataset"]["synthetic"] is True
    gallery = cv2.imread("results/extract/gallery.png")
    assert gallery.shape[1] == 10 * 134 + 6


def test_the_summary_knows_every_field(extracted):
    facts = summary()["fields"]
    images = sorted(Path("data").glob("*.jpg"))
    assert list(facts) == [path.stem for path in images] and len(facts) == 8
    for path in images:
        mine = facts[path.stem]
        assert (mine["height"], mine["width"], mine["microns_per_pixel"]) == (400, 400, 0.25)
        assert mine["area_mm2"] == pytest.approx(0.01)
        pixels = read_image(path)
        assert mine["pixels_sha256"] == hashlib.sha256(b"(400, 400, 3)" + pixels.tobytes()).hexdigest()
    assert len({mine["pixels_sha256"] for mine in facts.values()}) == 8


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
    for name, grey in (("01_01", 240), ("02_01", 241)):
        cv2.imwrite(f"data/{name}.png", np.full((200, 200, 3), grey, np.uint8))
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


def cut(field: FieldOfView, *, fields_um: float = 0.25, **changes: object) -> FieldPatches:
    settings = Extract.model_validate(MANY | changes)
    return extract_field(field, settings, Description(microns_per_pixel=fields_um))


def candidates(found: FieldPatches) -> int:
    return int((found.index.source == "candidate").sum())


def test_mitoses_come_first_then_candidates_strongest_first(field):
    index = cut(field).index
    assert tuple(index.columns) == COLUMNS
    assert index.record.tolist() == list(range(len(index)))
    assert set(index.patient) == {"07"} and set(index.field) == {"03"}
    mitoses, negatives = index[index.label == 1], index[index.label == 0]
    assert index.label.tolist() == [1] * len(mitoses) + [0] * len(negatives)
    assert list(zip(mitoses.row, mitoses.col, strict=True))[:3] == CENTRES
    assert mitoses.source.tolist() == ["annotation"] * 3 + ["candidate"] * (len(mitoses) - 3)
    assert set(negatives.source) == {"candidate"}
    assert mitoses.center.tolist() == list(range(len(mitoses)))
    assert negatives.center.tolist() == list(range(len(negatives))) and len(negatives) > 20
    fewer = cut(field, candidates_per_mm2=2000).index  # the strongest of them, the mitoses' own peaks left out
    places = [index[index.label == 0][["row", "col"]].to_numpy() for index in (fewer, index)]
    np.testing.assert_array_equal(places[0], places[1][: len(places[0])])


def test_distances_and_the_excluded(field):
    found = cut(field)
    negatives = found.index[found.index.label == 0]
    tree = KDTree(CENTRES)
    microns = tree.query(negatives[["row", "col"]])[0] * 0.25
    np.testing.assert_allclose(negatives.distance, microns, atol=0.02)
    assert negatives.distance.min() > 7.5
    near = found.index[~is_sample(found.index)]
    assert len(near) >= 3  # each disc is a candidate itself
    assert set(near.label) == {1} and set(near.source) == {"candidate"} and near.distance.max() <= 7.5
    np.testing.assert_allclose(near.distance, tree.query(near[["row", "col"]])[0] * 0.25, atol=0.02)
    assert cut(field, exclusion_um=1e6).index.label.all()
    wider = cut(field, exclusion_um=20.0).index
    assert len(wider) == len(found.index)
    assert (~is_sample(wider)).sum() - len(near) == (microns <= 20).sum() > 0


def test_candidates_are_as_many_as_the_area_asks_for(field):
    area = ROWS * COLS * 0.25**2 / 1e6
    found = cut(field, candidates_per_mm2=2000.0)
    assert found.facts["area_mm2"] == pytest.approx(area)
    assert (found.facts["height"], found.facts["width"], found.facts["microns_per_pixel"]) == (ROWS, COLS, 0.25)
    assert candidates(found) == math.ceil(2000 * area) == 13


def test_labelled_lookalikes_are_negatives(field):
    before = cut(field).index
    places = [(row + 0.5, col + 0.25) for row in range(80, 250, 4) for col in range(80, 250, 4)]
    far = places[KDTree(before[["row", "col"]]).query(places)[0].argmax()]
    field.lookalikes.write_text(f"{far[0]},{far[1]}\n10,284\n")  # the second lies 1 um beside a mitosis
    found = cut(field)
    after = found.index
    pd.testing.assert_frame_equal(after[:-1], before)  # what was there keeps its number and name
    assert after.lookalike.tolist() == [False] * len(before) + [True]
    (last,) = after[-1:].itertuples()
    assert (last.label, last.source, last.row, last.col) == (0, "lookalike", *far)
    assert last.center == before[before.label == 0].center.max() + 1
    assert is_sample(after).iloc[-1] and len(found.windows) == len(after)


def test_a_lookalike_at_a_candidate_is_that_candidate(field):
    before = cut(field).index
    there = before[(before.label == 0) & ~before.edge].iloc[0]
    field.lookalikes.write_text(f"{there.row + 8},{there.col}\n")  # 2 um beside it
    after = cut(field).index
    assert len(after) == len(before) and after[after.lookalike].record.tolist() == [there.record]


def test_one_image_is_of_one_patient(extracted):
    shutil.copy("data/01_01.jpg", "data/03_03.jpg")
    with pytest.raises(InputError, match=r"03_03.jpg: has the pixels of 01_01.jpg, which is of another patient"):
        extract()


def test_either_all_fields_have_a_known_pixel_size_or_none(extracted):
    Path("data/dataset.yaml").unlink()
    extract()
    Path("data/fields.csv").write_text("file,microns_per_pixel\n01_01.jpg,0.25\n")
    with pytest.raises(InputError, match=r"01_02.jpg: has no known pixel size, like 7 of 8 fields"):
        extract()


def test_the_domain_of_a_field_is_in_the_index_and_the_facts(field):
    scanned = replace(field, domain="Aperio, Ulm")
    found = cut(scanned)
    assert set(found.index.domain) == {"Aperio, Ulm"} and found.facts["domain"] == "Aperio, Ulm"


def test_the_pixel_size_of_a_field_wins_over_that_of_the_dataset(field):
    half, own = cut(field, fields_um=0.5), cut(replace(field, microns_per_pixel=0.5))
    assert own.facts["microns_per_pixel"] == 0.5 and own.facts["area_mm2"] == pytest.approx(ROWS * COLS / 4e6)
    pd.testing.assert_frame_equal(own.index, half.index)
    np.testing.assert_array_equal(own.windows, half.windows)


def test_transparent_parts_have_no_candidates_and_no_area(field):
    image = cv2.imread(str(field.image))
    alpha = np.full((ROWS, COLS, 1), 255, np.uint8)
    alpha[:, 150:] = 0
    cv2.imwrite(str(field.image), np.dstack([image, alpha]))
    found = cut(field)
    assert (found.index[found.index.source == "candidate"].col < 150).all() and candidates(found) > 5
    assert found.facts["area_mm2"] == pytest.approx(ROWS * 150 * 0.25**2 / 1e6)
    assert candidates(cut(field, candidates_per_mm2=2000.0)) == 7  # half of 13


def test_a_cropped_field_has_the_same_density(field):
    image = cv2.imread(str(field.image))
    cv2.imwrite(str(field.image), image[: ROWS // 2])
    field.annotation.unlink()
    assert candidates(cut(field, candidates_per_mm2=2000.0)) == 7  # half of 13


def test_windows_at_the_border_are_marked(field):
    index = cut(field).index
    assert index.edge.tolist()[:3] == [False, True, False]
    reach = window_size(32) / 2 * 2  # full-resolution px from the middle to the window's side
    whole = (index.row >= reach) & (index.col >= reach) & (index.row < ROWS - reach) & (index.col < COLS - reach)
    assert not index.edge[whole].any()
    outside = (index.row < reach - 2) | (index.col < reach - 2)
    assert index.edge[outside].all() and outside.any()


def test_both_pixel_sizes_show_the_same_tissue(field):
    half, full = cut(field), cut(field, microns_per_pixel=0.25)
    columns = ["label", "center", "row", "col", "source", "distance"]
    pd.testing.assert_frame_equal(half.index[columns], full.index[columns])
    assert full.windows.shape[1:] == (92, 92, 3) and half.windows.shape[1:] == (46, 46, 3)
    for record in (0, 2):
        for windows, pixels in ((half.windows, 1), (full.windows, 2)):
            disc = np.argwhere(windows[record][..., 0] < 80)
            radius = 7 * pixels / 2
            assert len(disc) == pytest.approx(math.pi * radius**2, rel=0.3)
            middle = (windows.shape[1] - 1) / 2
            assert np.abs(disc.mean(axis=0) - middle).max() <= 1
    # Everywhere else too: the full window, reduced, is the half window but for half a pixel of rounding (and 331 px
    # become 166).
    reduced = np.stack([cv2.resize(window, (46, 46), interpolation=cv2.INTER_AREA) for window in full.windows])
    whole = ~full.index.edge.to_numpy() & ~half.index.edge.to_numpy()
    assert np.abs(reduced[whole].astype(int) - half.windows[whole]).mean() < 3.5
    assert np.abs(np.roll(reduced[whole], 5, axis=1).astype(int) - half.windows[whole]).mean() > 6


def test_a_field_without_mitosis_has_candidates_at_no_distance(field):
    field.annotation.unlink()
    found = cut(field)
    assert not found.index.label.any() and len(found.index) == candidates(found) > 0
    assert found.index.distance.isna().all() and is_sample(found.index).all()


def test_the_stain_is_normalised_where_there_is_tissue(field):
    plain, normalised = cut(field), cut(field, stain="macenko")
    assert not plain.normalised
    assert normalised.normalised and not np.array_equal(plain.windows[0], normalised.windows[0])
    assert plain.facts == normalised.facts  # the pixels' hash too, which is of the file's own pixels
    cv2.imwrite(str(field.image), np.full((ROWS, COLS, 3), 255, np.uint8))
    assert not cut(field, stain="macenko").normalised


def test_a_provided_mask_is_respected(field):
    mask = np.zeros((ROWS, COLS), np.uint8)
    mask[:, :150] = 255
    cv2.imwrite(str(field.mask("cmask")), mask)
    negatives = cut(field).index.query("label == 0")
    assert (negatives.col < 150).all() and len(negatives) > 5


def test_an_empty_field_gives_nothing(field):
    cv2.imwrite(str(field.image), np.full((100, 90, 3), 255, np.uint8))
    field.annotation.unlink()
    found = cut(field)
    assert found.index.empty and tuple(found.index.columns) == COLUMNS
    assert found.windows.shape == (0, 46, 46, 3)


def pixels_hash(path: Path) -> str:
    patches = extract_field(FieldOfView(path, "07", "03"), Extract.model_validate(MANY), Description())
    digest: str = patches.facts["pixels_sha256"]
    return digest


def test_a_field_is_known_again_by_its_pixels_and_by_nothing_else(field, tmp_path):
    image = cv2.imread(str(field.image))
    known = pixels_hash(field.image)
    (tmp_path / "other").mkdir()
    for name in ("99_01.tif", "99_01.bmp"):
        cv2.imwrite(str(tmp_path / "other" / name), image)
        assert pixels_hash(tmp_path / "other" / name) == known
    image[5, 5] ^= 1
    cv2.imwrite(str(field.image), image)
    assert pixels_hash(field.image) != known
    plain = []
    for shape in ((40, 90, 3), (90, 40, 3)):  # the same bytes
        cv2.imwrite(str(field.image), np.full(shape, 255, np.uint8))
        field.annotation.unlink(missing_ok=True)
        plain.append(pixels_hash(field.image))
    assert plain[0] != plain[1]
