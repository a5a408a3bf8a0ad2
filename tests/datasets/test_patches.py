"""Windows hold the tissue that the index says, in the order that it says."""

import math
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from mitoscope.datasets.fields import FieldOfView
from mitoscope.datasets.patches import COLUMNS, is_sample, read_index, sample_name, store_path
from mitoscope.errors import InputError
from mitoscope.evaluation.matching import nearest
from mitoscope.histology.windows import cut_windows, resize, window_size
from mitoscope.stages.extract import FieldPatches, extract_field

ROWS, COLS = 331, 300
CENTRES = [(160.0, 141.0), (10.0, 280.0), (250.5, 60.25)]  # the second is at the edge
NUMBERS = {
    "stain": "none",
    "scale": 0.5,
    "patch_size": 32,
    "sigma": 2.0,
    "peak_window": 11,
    "candidates_per_mm2": 20_000.0,
    "exclusion_um": 7.5,
    "microns_per_pixel": 0.25,
    "annotation_order": "row,col",
}


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


def extracted(field: FieldOfView, **changes: object) -> FieldPatches:
    return extract_field(field, **{**NUMBERS, **changes})


def candidates(found: FieldPatches) -> int:
    return int((found.index.source == "candidate").sum())


@given(st.integers(1, 400))
def test_a_window_is_just_wide_enough_for_any_rotation(patch_size):
    side = window_size(patch_size)
    half_diagonal = (patch_size - 1) / math.sqrt(2)  # of the patch's corner pixel from the middle
    assert side % 2 == patch_size % 2
    assert (side - 1) / 2 >= half_diagonal - 1e-9
    assert (side - 2 - 1) / 2 < half_diagonal or side == patch_size == 1


def test_window_sizes_by_hand():
    assert window_size(64) == 92  # 63 x 1.4142 + 1 = 90.1, up to 91, up to the next even
    assert window_size(65) == 93  # 64 x 1.4142 + 1 = 91.5, up to 92, up to the next odd


@settings(max_examples=150, deadline=None)
@given(data=st.data(), rows=st.integers(2, 40), columns=st.integers(2, 40), size=st.integers(1, 30))
def test_windows_are_plain_slices_reflected_at_the_border(data, rows, columns, size):
    image = np.random.default_rng(rows * 100 + columns).integers(0, 256, (rows, columns, 3), np.uint8)
    place = st.tuples(st.integers(0, 4 * rows - 1), st.integers(0, 4 * columns - 1))
    centres = np.array(data.draw(st.lists(place, min_size=1, max_size=4))) / 4  # quarters of a pixel
    windows, edge = cut_windows(image, centres, size)
    assert windows.shape == (len(centres), size, size, 3) and windows.dtype == np.uint8
    for window, flagged, centre in zip(windows, edge, centres, strict=True):
        top, left = np.floor(centre - (size - 1) / 2 + 0.5).astype(int)
        middle = np.array([top, left]) + (size - 1) / 2
        assert np.abs(middle - centre).max() <= 0.5
        inside = top >= 0 and left >= 0 and top + size <= rows and left + size <= columns
        assert flagged == (not inside)
        if inside:
            expected = image[top : top + size, left : left + size]
        else:
            expected = image[np.ix_(mirrored(top, size, rows), mirrored(left, size, columns))]
        np.testing.assert_array_equal(window, expected)


def mirrored(start: int, count: int, length: int) -> np.ndarray:
    """Indices start ... start + count - 1, folded back at both ends of a line without repeating its last pixel."""
    folded = np.arange(start, start + count) % (2 * (length - 1))
    return np.minimum(folded, 2 * (length - 1) - folded)


def test_no_centre_gives_no_window():
    windows, edge = cut_windows(np.zeros((9, 9, 3), np.uint8), np.empty((0, 2)), 5)
    assert windows.shape == (0, 5, 5, 3) and edge.shape == (0,)


def test_a_one_pixel_image_has_windows():
    windows, edge = cut_windows(np.full((1, 1, 3), 7, np.uint8), np.zeros((1, 2)), 9)
    assert (windows == 7).all() and edge.tolist() == [True]


def test_resize_averages():
    image = np.zeros((4, 6, 3), np.uint8)
    image[:, ::2] = 100
    assert (resize(image, 0.5) == 50).all() and resize(image, 0.5).shape == (2, 3, 3)
    assert resize(image, 1) is image
    assert resize(image, 2).shape == (2 * image.shape[0], 2 * image.shape[1], 3)
    assert resize(image, 0.01).shape == (1, 1, 3)


def test_mitoses_come_first_then_candidates_strongest_first(field):
    index = extracted(field).index
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
    fewer = extracted(field, candidates_per_mm2=2000).index  # the strongest of them, the mitoses' own peaks left out
    places = [index[index.label == 0][["row", "col"]].to_numpy() for index in (fewer, index)]
    np.testing.assert_array_equal(places[0], places[1][: len(places[0])])


def test_distances_and_the_excluded(field):
    found = extracted(field)
    negatives = found.index[found.index.label == 0]
    tree = cKDTree(CENTRES)
    microns = tree.query(negatives[["row", "col"]])[0] * 0.25
    np.testing.assert_allclose(negatives.distance, microns, atol=0.02)
    assert negatives.distance.min() > 7.5
    near = found.index[~is_sample(found.index)]
    assert len(near) >= 3  # each disc is a candidate itself
    assert set(near.label) == {1} and set(near.source) == {"candidate"} and near.distance.max() <= 7.5
    np.testing.assert_allclose(near.distance, tree.query(near[["row", "col"]])[0] * 0.25, atol=0.02)
    assert extracted(field, exclusion_um=1e6).index.label.all()
    wider = extracted(field, exclusion_um=20.0).index
    assert len(wider) == len(found.index)
    assert (~is_sample(wider)).sum() - len(near) == (microns <= 20).sum() > 0


def test_candidates_are_as_many_as_the_area_asks_for(field):
    area = ROWS * COLS * 0.25**2 / 1e6
    found = extracted(field, candidates_per_mm2=2000.0)
    assert found.area_mm2 == pytest.approx(area)
    assert candidates(found) == math.ceil(2000 * area) == 13
    # Twice the pixel size is four times the area, so four times as many.
    assert candidates(extracted(field, candidates_per_mm2=2000.0, microns_per_pixel=0.5)) == math.ceil(8000 * area)


def test_a_cropped_field_has_the_same_density(field):
    image = cv2.imread(str(field.image))
    cv2.imwrite(str(field.image), image[: ROWS // 2])
    field.annotation.unlink()
    assert candidates(extracted(field, candidates_per_mm2=2000.0)) == 7  # half of 13


def test_windows_at_the_border_are_marked(field):
    index = extracted(field).index
    assert index.edge.tolist()[:3] == [False, True, False]
    reach = window_size(32) / 2 * 2  # full-resolution px from the middle to the window's side
    whole = (index.row >= reach) & (index.col >= reach) & (index.row < ROWS - reach) & (index.col < COLS - reach)
    assert not index.edge[whole].any()
    outside = (index.row < reach - 2) | (index.col < reach - 2)
    assert index.edge[outside].all() and outside.any()


def test_both_scales_show_the_same_tissue(field):
    half, full = extracted(field), extracted(field, scale=1.0, patch_size=64)
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
    # Everywhere else too: the full window, reduced, is the half window but for half a pixel of rounding.
    reduced = np.stack([cv2.resize(window, (46, 46), interpolation=cv2.INTER_AREA) for window in full.windows])
    whole = ~full.index.edge.to_numpy() & ~half.index.edge.to_numpy()
    assert np.abs(reduced[whole].astype(int) - half.windows[whole]).mean() < 3
    assert np.abs(np.roll(reduced[whole], 5, axis=1).astype(int) - half.windows[whole]).mean() > 6


def test_a_field_without_mitosis_has_candidates_at_no_distance(field):
    field.annotation.unlink()
    found = extracted(field)
    assert not found.index.label.any() and len(found.index) == candidates(found) > 0
    assert found.index.distance.isna().all() and is_sample(found.index).all()


def test_the_stain_is_normalised_where_there_is_tissue(field):
    plain, normalised = extracted(field), extracted(field, stain="macenko")
    assert not plain.normalised
    cv2.imwrite(str(field.image), np.full((ROWS, COLS, 3), 255, np.uint8))
    assert not extracted(field, stain="macenko").normalised
    assert normalised.normalised and not np.array_equal(plain.windows[0], normalised.windows[0])


def test_a_provided_mask_is_respected(field):
    mask = np.zeros((ROWS, COLS), np.uint8)
    mask[:, :150] = 255
    cv2.imwrite(str(field.mask("cmask")), mask)
    negatives = extracted(field).index.query("label == 0")
    assert (negatives.col < 150).all() and len(negatives) > 5


def test_an_empty_field_gives_nothing(field):
    cv2.imwrite(str(field.image), np.full((100, 90, 3), 255, np.uint8))
    field.annotation.unlink()
    found = extracted(field)
    assert found.index.empty and tuple(found.index.columns) == COLUMNS
    assert found.windows.shape == (0, 46, 46, 3)


coordinates = st.floats(0, 1000, allow_nan=False).map(lambda value: round(value, 3))
places = st.lists(st.tuples(coordinates, coordinates), min_size=1, max_size=20).map(np.array)


@given(points=places, centres=places)
def test_nearest_is_what_a_tree_finds(points, centres):
    np.testing.assert_allclose(nearest(points, centres), cKDTree(centres).query(points)[0], atol=1e-9)


def test_nearest_of_nothing():
    assert np.isnan(nearest(np.zeros((3, 2)), np.empty((0, 2)))).all()
    assert nearest(np.empty((0, 2)), np.zeros((3, 2))).shape == (0,)


@pytest.mark.parametrize(
    ("angle", "name"),
    [
        (45, "01_02_class0_center3_rot45.png"),
        (45.0, "01_02_class0_center3_rot45.png"),
        (22.5, "01_02_class0_center3_rot22.5.png"),
        (0, "01_02_class0_center3_rot0.png"),
    ],
)
def test_sample_names(angle, name):
    assert sample_name(SimpleNamespace(patient="01", field="02", label=0, center=3), angle) == name


def test_the_store_reads_back(tmp_path, field):
    found = extracted(field)
    path = store_path(tmp_path, "07", "03")
    np.save(path, found.windows)
    assert path == tmp_path / "07_03.npy"
    np.testing.assert_array_equal(np.load(path, mmap_mode="r"), found.windows)
    found.index.to_csv(tmp_path / "index.csv", index=False)
    pd.testing.assert_frame_equal(read_index(tmp_path), found.index, check_dtype=False)
    assert read_index(tmp_path).edge.dtype == bool


def test_no_store_is_said_so(tmp_path):
    with pytest.raises(InputError, match=r"index\.csv: no patch store; run `dvc repro extract`"):
        read_index(tmp_path)
