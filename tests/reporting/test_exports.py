"""Exports: numbers computed by hand, and files that other programs read."""

import json
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mitoscope.datasets.importers.classes import Classes
from mitoscope.datasets.importers.qupath import read_qupath
from mitoscope.datasets.importers.table import read_centres_table
from mitoscope.errors import InputError
from mitoscope.reporting.exports import (
    FieldCount,
    detected_annotations,
    read_counts,
    write_annotations,
    write_detections_csv,
    write_evaluator_json,
    write_summary,
)
from tests.disks import full_disk

CENTRES = np.array([[20.25, 10.0], [1999.996, 8.0]])
PROBABILITIES = np.array([0.98765432, 0.5])
NONE = np.empty((0, 2)), np.empty(0)
SHAPE = (2010, 100)


def features(path: Path) -> list[dict]:
    collection = json.loads(path.read_text(encoding="utf-8"))
    assert collection["type"] == "FeatureCollection"
    return collection["features"]


def write_detected(path: Path, centres: np.ndarray, probabilities: np.ndarray, **options: Any) -> None:
    """Write detections as GeoJSON."""
    write_annotations(path, detected_annotations(centres, probabilities), **options)


def test_csv_keeps_the_order_and_rounds(tmp_path):
    path = tmp_path / "new" / "01_02.csv"
    write_detections_csv(path, CENTRES, PROBABILITIES)
    assert path.read_bytes() == b"row,col,probability\n20.25,10.00,0.987654\n2000.00,8.00,0.500000\n"
    write_detections_csv(path, *NONE)
    assert path.read_bytes() == b"row,col,probability\n"


def test_csv_of_float32_probabilities(tmp_path):
    write_detections_csv(tmp_path / "a.csv", CENTRES[:1], np.array([0.25], np.float32))
    assert (tmp_path / "a.csv").read_text() == "row,col,probability\n20.25,10.00,0.250000\n"


@pytest.mark.parametrize("write", [write_detections_csv, lambda *args: write_detected(*args, radius=8, shape=SHAPE)])
def test_every_centre_has_its_probability(tmp_path, write):
    with pytest.raises(ValueError, match="zip"):
        write(tmp_path / "a", CENTRES, PROBABILITIES[:1])
    assert list(tmp_path.iterdir()) == []


def test_geojson_has_the_format_of_qupath(tmp_path):
    path = tmp_path / "01_02.geojson"
    write_detected(path, CENTRES, PROBABILITIES, radius=8, shape=SHAPE)
    first, second = features(path)
    assert first["type"] == "Feature" and first["geometry"]["type"] == "Polygon"
    assert first["properties"] == {
        "objectType": "annotation",
        "classification": {"name": "Mitosis", "color": [86, 180, 233]},
        "measurements": {"Probability": 0.987654},
    }
    assert second["properties"]["measurements"] == {"Probability": 0.5}


def test_geojson_rings_are_closed_circles_around_the_centre_of_the_pixel(tmp_path):
    path = tmp_path / "01_02.geojson"
    write_detected(path, CENTRES, PROBABILITIES, radius=8, shape=SHAPE)
    for feature, centre in zip(features(path), CENTRES, strict=True):
        (ring,) = feature["geometry"]["coordinates"]
        assert len(ring) == 17 and ring[0] == ring[-1]
        assert len({tuple(point) for point in ring}) == 16
        distances = np.linalg.norm(np.array(ring) - centre[::-1] - 0.5, axis=1)
        np.testing.assert_allclose(distances, 8, atol=0.011)
        x, y = np.array(ring).T
        assert np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]) > 0  # counter-clockwise, as RFC 7946 requires for outer rings
    # Row 20.25, col 10: the middle is x 10.5, y 20.75; corners 0, 4, 8 and 12 lie to its right, below, left and above.
    ring = features(path)[0]["geometry"]["coordinates"][0]
    assert ring[::4] == [[18.5, 20.75], [10.5, 28.75], [2.5, 20.75], [10.5, 12.75], [18.5, 20.75]]
    assert ring[2] == [16.16, 26.41]  # 8 / sqrt 2 = 5.657 in both


def at_borders(shape):
    """Centres in the corners, at the sides and inside of an image, down to the middles of its outermost pixels."""
    rows, columns = shape
    return np.array([[row, col] for row in (0, 3.25, rows / 2, rows - 1) for col in (0, 0.5, columns / 2, columns - 1)])


@pytest.mark.parametrize("shape", [(1, 1), (9, 31), (300, 200)])
def test_geojson_rings_stay_inside_the_image(tmp_path, shape):
    centres = np.clip(at_borders(shape), 0, np.array(shape) - 1)
    write_detected(tmp_path / "a.geojson", centres, np.full(len(centres), 0.5), radius=20, shape=shape)
    for feature in features(tmp_path / "a.geojson"):
        (ring,) = feature["geometry"]["coordinates"]
        x, y = np.array(ring).T
        assert ring[0] == ring[-1]
        assert 0 <= x.min() < x.max() <= shape[1] and 0 <= y.min() < y.max() <= shape[0]


@pytest.mark.parametrize("points", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (9, 31), (300, 200)])
def test_the_importer_finds_the_same_centres(tmp_path, points, shape):
    centres = np.clip(at_borders(shape), 0, np.array(shape) - 1)
    path = tmp_path / "01_02_mitoses.geojson"
    write_detected(path, centres, np.full(len(centres), 0.5), radius=20.3, shape=shape, points=points)
    assert {feature["geometry"]["type"] for feature in features(path)} == {"Point" if points else "Polygon"}
    found = read_qupath([path], Classes()).by_image["01_02"]
    np.testing.assert_allclose(found.mitoses, centres, atol=0.01)
    write_detections_csv(path.with_suffix(".csv"), centres, np.full(len(centres), 0.5))
    found = read_centres_table([path.with_suffix(".csv")], Classes()).by_image["01_02"]
    np.testing.assert_allclose(found.mitoses, centres, atol=0.01)


def test_the_evaluators_json_is_in_mm(tmp_path):
    path = tmp_path / "01_02_mitoses.json"
    write_evaluator_json(path, CENTRES, PROBABILITIES, microns_per_pixel=0.25)
    assert json.loads(path.read_text()) == {
        "name": "Points of interest",
        "type": "Multiple points",
        "points": [  # x before y: column 10 is 2.5 um
            {"name": "mitotic figure", "point": [0.0025, 0.0050625, 0], "probability": 0.987654},
            {"name": "mitotic figure", "point": [0.002, 0.499999, 0], "probability": 0.5},
        ],
        "version": {"major": 1, "minor": 0},
    }


def test_geojson_ids_are_unique_and_stable(tmp_path):
    centres, probabilities = np.repeat(CENTRES, 2, axis=0), np.repeat(PROBABILITIES, 2)  # every detection twice
    for name in ("a", "b"):
        write_detected(tmp_path / name, centres, probabilities, radius=8, shape=SHAPE)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    ids = [feature["id"] for feature in features(tmp_path / "a")]
    assert len(set(ids)) == 4
    assert {uuid.UUID(text).version for text in ids} == {5}
    write_detected(tmp_path / "b", centres + 1, probabilities, radius=8, shape=SHAPE)
    assert not {feature["id"] for feature in features(tmp_path / "b")} & set(ids)


def test_geojson_without_detections(tmp_path):
    write_detected(tmp_path / "a.geojson", *NONE, radius=8, shape=SHAPE)
    assert features(tmp_path / "a.geojson") == []


def test_geojson_rejects_values_that_are_not_finite(tmp_path):
    (tmp_path / "a.geojson").write_text("old")
    with pytest.raises(ValueError, match="JSON"):
        write_detected(tmp_path / "a.geojson", CENTRES, np.array([np.nan, 0.5]), radius=8, shape=SHAPE)
    assert (tmp_path / "a.geojson").read_text() == "old"


def test_densities_by_hand():
    # 1000 px of 0.25 um are 0.25 mm: 0.0625 mm2. Five mitoses in a sixteenth of a mm2 are 80 per mm2.
    count = FieldCount("01_02", 1000, 1000, 5, 0.0625)
    assert count.per_mm2 == 80 and count.per_2mm2 == 160


def test_summary_pools_counts_and_areas(tmp_path):
    path = tmp_path / "summary.csv"
    counts = [
        FieldCount("01_02", 1000, 1000, 5, 0.0625, 0.25, "file"),
        FieldCount("slide 3, left", 2000, 1000, 0, 0.125, 0.2456, "fields.csv"),
    ]
    write_summary(path, counts)
    # 5 in 0.1875 mm2 are 26.67 per mm2; the mean of the densities would be 40.
    assert path.read_bytes().decode() == (
        "field,width,height,mitoses,area_mm2,per_mm2,per_2mm2,microns_per_pixel,pixel_size_from\n"
        "01_02,1000,1000,5,0.0625,80.00,160.00,0.25,file\n"
        '"slide 3, left",2000,1000,0,0.125,0.00,0.00,0.2456,fields.csv\n'
        "all,,,5,0.1875,26.67,53.33,,\n"
    )
    assert read_counts(path) == counts


def test_a_tiny_area_reads_back(tmp_path):
    """One pixel of 0.25 um: with fixed decimals it would be 0, by which the next call would divide."""
    path = tmp_path / "summary.csv"
    counts = [FieldCount("pixel", 1, 1, 0, 6.25e-8, 0.25, "file")]
    write_summary(path, counts)
    assert read_counts(path) == counts
    write_summary(path, read_counts(path))
    assert read_counts(path) == counts


def test_a_summary_with_an_area_of_zero_is_rejected(tmp_path):
    path = tmp_path / "summary.csv"
    write_summary(path, [FieldCount("pixel", 1, 1, 0, 6.25e-8, 0.25, "file")])
    path.write_text(path.read_text().replace("6.25e-08", "0.000000"))
    with pytest.raises(InputError, match=r"summary\.csv: is no summary that this version"):
        read_counts(path)


@pytest.mark.parametrize(
    "content", ["", "field,mitoses\n01,2\n", "field,width,height,mitoses,area_mm2,per_mm2,per_2mm2\n", "\0"]
)
def test_what_is_no_summary_is_rejected(tmp_path, content):
    (tmp_path / "summary.csv").write_text(content)
    with pytest.raises(InputError, match=r"summary\.csv: is no summary that this version"):
        read_counts(tmp_path / "summary.csv")


@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_detections_csv(path, CENTRES, PROBABILITIES),
        lambda path: write_detected(path, CENTRES, PROBABILITIES, radius=8, shape=SHAPE),
        lambda path: write_summary(path, [FieldCount("a", 1, 1, 0, 1.0)]),
    ],
)
def test_a_full_disk_leaves_the_old_file(tmp_path, write):
    path = tmp_path / "a.txt"
    path.write_bytes(b"old")
    with pytest.raises(OSError, match=r"File too large: '.*a\.txt'"), full_disk():
        write(path)
    assert path.read_bytes() == b"old" and [file.name for file in tmp_path.iterdir()] == ["a.txt"]
