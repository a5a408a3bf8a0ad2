"""GeoJSON as QuPath writes it: hand-written files in the form of its versions, and damaged ones."""

import gzip
import json
import math
import uuid
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mitoscope.datasets.importers import Found
from mitoscope.datasets.importers.classes import Classes
from mitoscope.datasets.importers.qupath import read_qupath
from mitoscope.errors import InputError

SQUARE = [[10, 20], [14, 20], [14, 26], [10, 26], [10, 20]]  # its middle is x 12, y 23
MITOSIS = {"name": "Mitosis", "color": [200, 0, 0]}


def feature(geometry, classification=MITOSIS, **properties):
    """An annotation as QuPath 0.4 to 0.6 writes it."""
    return {
        "type": "Feature",
        "id": str(uuid.uuid4()),
        "geometry": geometry,
        "properties": {"objectType": "annotation", "classification": classification, **properties},
    }


def point(x, y):
    return {"type": "Point", "coordinates": [x, y]}


def polygon(*rings):
    return {"type": "Polygon", "coordinates": list(rings)}


def read(folder: Path, content, classes=None, name="01_01.geojson") -> Found:
    """Write the content as GeoJSON and read it."""
    (folder / name).write_text(json.dumps(content))
    return read_qupath([folder / name], classes or Classes())


def mitoses(found: Found, image="01_01"):
    return found.by_image[image].mitoses.tolist()


@pytest.mark.parametrize(
    "wrap",
    [lambda item: {"type": "FeatureCollection", "features": [item]}, lambda item: [item], lambda item: item],
    ids=["collection", "list", "feature"],
)
def test_the_centre_of_an_outline_in_any_form_of_file(tmp_path, wrap):
    """x 12, y 23 from the corner of the first pixel is row 22.5, column 11.5 from its middle."""
    found = read(tmp_path, wrap(feature(polygon(SQUARE), isLocked=True)))
    assert mitoses(found) == [[22.5, 11.5]]
    assert len(found.by_image["01_01"].lookalikes) == 0 and found.notes == ()


@pytest.mark.parametrize("name", ["01_01.geojson", "01_01_mitoses.geojson", "01_01.json", "01_01_mitoses.geojson.gz"])
def test_the_image_is_named_by_the_file(tmp_path, name):
    content = json.dumps([feature(point(1, 2))]).encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    assert mitoses(read_qupath([tmp_path / name], Classes())) == [[1.5, 0.5]]


def test_the_centre_of_an_outline_is_rounded(tmp_path):
    """The sum over these corners is 912.4999999999999, which nobody would write into a CSV."""
    ring = [[912.5 + 8 * math.cos(angle), 300.25 + 8 * math.sin(angle)] for angle in np.linspace(0, 2 * np.pi, 17)]
    assert mitoses(read(tmp_path, [feature(polygon(ring))])) == [[299.75, 912.0]]


def test_an_evaluators_json_is_rejected(tmp_path):
    with pytest.raises(InputError, match=r"points in mm for evaluators; import the GeoJSON or, with csv, the CSV"):
        read(tmp_path, {"type": "Multiple points", "points": []}, name="01_01_mitoses.json")


def test_a_folder_stands_for_its_geojson_files(tmp_path):
    for name in ("01_01_mitoses.geojson", "02_01.geojson"):
        read(tmp_path, [feature(point(1, 2))], name=name)
    (tmp_path / "model.json").write_text("{}")
    assert read_qupath([tmp_path], Classes()).by_image.keys() == {"01_01", "02_01"}


@pytest.mark.parametrize(
    ("geometry", "expected"),
    [
        (point(0.5, 0.5), [[0, 0]]),
        ({"type": "MultiPoint", "coordinates": [[1, 2], [3, 4]]}, [[1.5, 0.5], [3.5, 2.5]]),
        (polygon(SQUARE[::-1]), [[22.5, 11.5]]),
        (polygon(SQUARE[:-1]), [[22.5, 11.5]]),  # not closed
        # An L of the squares 0..2 x 0..2 and 2..4 x 0..1: its centre of area is x 10/6, y 5/6.
        (polygon([[0, 0], [4, 0], [4, 1], [2, 1], [2, 2], [0, 2], [0, 0]]), [[5 / 6 - 0.5, 10 / 6 - 0.5]]),
        # A square of 16 px2 round x 2, y 2 with a hole of 4 px2 round x 3, y 3: (16 * 2 - 4 * 3) / 12 = 5/3.
        (
            polygon([[0, 0], [4, 0], [4, 4], [0, 4], [0, 0]], [[2, 2], [2, 4], [4, 4], [4, 2], [2, 2]]),
            [[5 / 3 - 0.5, 5 / 3 - 0.5]],
        ),
        # Two squares, of 1 and 4 px2, are one figure: x = (0.5 + 4 * 11) / 5.
        (
            {
                "type": "MultiPolygon",
                "coordinates": [
                    [[[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]]],
                    [[[10, 0], [12, 0], [12, 2], [10, 2], [10, 0]]],
                ],
            },
            [[0.9 - 0.5, 8.9 - 0.5]],
        ),
        ({"type": "GeometryCollection", "geometries": [polygon(SQUARE)]}, [[22.5, 11.5]]),
        (polygon([[3, 4], [3, 4], [3, 4]]), [[3.5, 2.5]]),
        (polygon([[3, 4], [5, 4], [3, 4]]), [[3.5, 3.5]]),
    ],
)
def test_each_geometry(tmp_path, geometry, expected):
    np.testing.assert_allclose(mitoses(read(tmp_path, [feature(geometry)])), expected, atol=0.001)


def test_a_small_outline_far_from_the_origin_keeps_its_centre(tmp_path):
    ring = [[80_000 + x, 90_000 + y] for x, y in ((0, 0), (0.2, 0), (0.2, 0.2), (0, 0.2), (0, 0))]
    np.testing.assert_allclose(mitoses(read(tmp_path, [feature(polygon(ring))])), [[89_999.6, 79_999.6]], atol=1e-6)


@pytest.mark.parametrize(
    "classification",
    [
        {"name": "Mitosis", "color": [1, 2, 3]},
        {"name": "mitoses", "colorRGB": -65536},  # 0.3
        {"names": ["Mitosis"], "color": [1, 2, 3]},  # 0.5
        "Mitosis",
    ],
)
def test_each_form_of_a_class(tmp_path, classification):
    assert len(mitoses(read(tmp_path, [feature(point(1, 2), classification)]))) == 1


def test_classes_are_sorted_and_others_are_listed(tmp_path):
    content = [
        feature(point(1, 2)),
        feature(point(3, 4), {"name": "Non-mitotic figure"}),
        feature(polygon(SQUARE), {"name": "Tumor"}),
        feature(polygon(SQUARE), {"name": "Tumor"}),
        feature(point(5, 6), {"names": ["Mitosis", "unsure"]}),
        feature(point(5, 6), None),
        feature(point(5, 6), {}),
    ]
    found = read(tmp_path, content)
    assert mitoses(found) == [[1.5, 0.5]]
    assert found.by_image["01_01"].lookalikes.tolist() == [[3.5, 2.5]]
    assert found.notes == ("5 annotations of other classes left out: Tumor (2), Unclassified (2), Mitosis: unsure (1)",)


def test_without_any_known_class_it_asks(tmp_path):
    content = [feature({"type": "MultiPoint", "coordinates": [[1, 2], [3, 4]]}, None), feature(point(1, 1), "Tumor")]
    with pytest.raises(
        InputError, match=r"no annotation of the class Mitosis, but of Unclassified \(2\), Tumor \(1\);"
    ):
        read(tmp_path, content)
    assert len(mitoses(read(tmp_path, content, Classes(mitosis=("Unclassified",))))) == 2


def test_images_with_other_classes_only_are_named(tmp_path):
    """Their annotations may be mitoses of a class that nobody has named."""
    (tmp_path / "01_01.geojson").write_text(json.dumps([feature(point(1, 2)), feature(polygon(SQUARE), "Tumor")]))
    (tmp_path / "01_02.geojson").write_text(json.dumps([feature(point(1, 2), "Look-alike"), feature(point(3, 4), "A")]))
    for number in range(3, 10):
        content = [feature(point(5, 6), "MF?"), feature(point(7, 8), "MF?"), feature(polygon(SQUARE), "Tumor")]
        (tmp_path / f"01_0{number}.geojson").write_text(json.dumps(content))
    found = read_qupath([tmp_path], Classes())
    named = ", ".join(f"01_0{number}: MF? (2), Tumor (1)" for number in range(3, 8))
    assert found.notes == (
        "23 annotations of other classes left out: MF? (14), Tumor (8), A (1)",
        f"7 images have annotations of other classes only, and are taken to have no mitosis: {named} and 2 more; if "
        "one of these classes is mitoses, import again and name it with --mitosis",
    )


def test_an_image_without_annotations_has_been_looked_at(tmp_path):
    assert mitoses(read(tmp_path, {"type": "FeatureCollection", "features": []})) == []


def test_what_marks_no_figure_is_counted(tmp_path):
    content = [
        feature(point(1, 2)),
        feature({"type": "LineString", "coordinates": [[1, 2], [3, 4]]}),
        feature(None),
        feature(polygon()),
        feature(polygon(SQUARE), objectType="tile"),
        feature(None, objectType="root"),
    ]
    found = read(tmp_path, content)
    assert mitoses(found) == [[1.5, 0.5]]
    assert found.notes == (
        "2 lines and empty outlines left out",
        "1 objects without a geometry left out",
        "1 tiles left out",
        "1 root objects left out",
    )


def test_the_nucleus_of_a_cell_counts(tmp_path):
    cell = feature(polygon([[0, 0], [90, 0], [90, 90], [0, 90], [0, 0]]), objectType="cell", measurements=[])
    assert mitoses(read(tmp_path, [cell | {"nucleusGeometry": polygon(SQUARE)}])) == [[22.5, 11.5]]


def test_children_are_read_and_an_object_that_is_listed_twice_counts_once(tmp_path):
    child = feature(point(1, 2), measurements={"Probability": 0.5}) | {"id": "child"}
    parent = feature(polygon(SQUARE), {"name": "Tumor"}, childObjects=[child])
    assert mitoses(read(tmp_path, [parent, child])) == [[1.5, 0.5]]


def test_two_files_of_one_image_are_rejected(tmp_path):
    paths = [tmp_path / "01_01.geojson", tmp_path / "01_01_mitoses.geojson"]
    for path in paths:
        path.write_text("[]")
    with pytest.raises(InputError, match=r"01_01_mitoses\.geojson: annotates 01_01, as .*01_01\.geojson does"):
        read_qupath(paths, Classes())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a JSON file; export it from QuPath as GeoJSON"),
        (b"[" * 100_000, "is not a JSON file"),
        (b'{"type": "Polygon", "coordinates": []}', "is JSON, but no GeoJSON with features"),
        (b'{"type": "FeatureCollection"}', "is a FeatureCollection without features"),
        (b"[1]", "object 1: is no GeoJSON feature"),
        (b"\x1f\x8b damaged", "is a damaged .gz file"),
    ],
)
def test_what_is_no_geojson_is_one_line(tmp_path, content, message):
    (tmp_path / "01_01.geojson").write_bytes(content)
    with pytest.raises(InputError, match=f"01_01.geojson: {message}"):
        read_qupath([tmp_path / "01_01.geojson"], Classes())


@pytest.mark.parametrize(
    "geometry",
    [
        point("1", 2),
        point(float("nan"), 2),
        point(1e300, 2),
        point(True, 2),
        {"type": "Point", "coordinates": [1]},
        {"type": "Polygon", "coordinates": [1, 2]},
        {"type": "Curve", "coordinates": [1, 2]},
        {"coordinates": [1, 2]},
        [1, 2],
    ],
)
def test_a_bad_geometry_names_the_object(tmp_path, geometry):
    with pytest.raises(InputError, match=r"01_01\.geojson: object 2: has ") as error:
        read(tmp_path, [feature(point(1, 2)), feature(geometry)])
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"absent\.geojson: no such file or folder"):
        read_qupath([tmp_path / "absent.geojson"], Classes())
    with pytest.raises(InputError, match=r"has no file that ends with \.geojson or \.geojson\.gz"):
        read_qupath([tmp_path], Classes())


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
PARTS = ["type", "id", "geometry", "coordinates", "properties", "classification", "objectType", "name", "names"]


@pytest.mark.slow  # many examples
@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(["Point", "MultiPoint", "Polygon", "MultiPolygon", "GeometryCollection", "LineString"]),
    st.dictionaries(st.sampled_from([*PARTS, "childObjects", "nucleusGeometry", "geometries"]), VALUES, max_size=3),
    st.integers(0, 2),
    VALUES,
)
def test_any_change_gives_a_line_or_a_result(tmp_path_factory, kind, changes, depth, value):
    item = feature({"type": kind, "coordinates": [SQUARE]})
    places = [item, item["geometry"], item["properties"]]
    places[depth].update(changes)
    if depth:
        item["geometry"]["coordinates"] = value
    folder = tmp_path_factory.getbasetemp()
    try:
        found = read(folder, [feature(point(1, 2)), item], name="fuzz.geojson")
    except InputError as error:
        assert str(error).count("\n") == 0 and "fuzz.geojson" in str(error)
    else:
        assert np.isfinite(found.by_image["fuzz"].mitoses).all()


@pytest.mark.slow  # many examples
@settings(max_examples=50, deadline=None)
@given(st.integers(0, 400), st.binary(max_size=3))
def test_damaged_bytes_give_a_line_or_a_result(tmp_path_factory, place, patch):
    content = json.dumps([feature(polygon(SQUARE)), feature(point(1, 2))]).encode()
    path = tmp_path_factory.getbasetemp() / "bytes.geojson"
    for data in (content, gzip.compress(content, mtime=0)):
        path.write_bytes(data[:place] + patch + data[place + len(patch) :])
        try:
            read_qupath([path], Classes())
        except InputError as error:
            assert str(error).count("\n") == 0
