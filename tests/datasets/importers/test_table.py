"""Tables of centres as people and programs write them."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mitoscope.datasets.importers.classes import Classes
from mitoscope.datasets.importers.table import read_centres_table
from mitoscope.errors import InputError


def read(folder: Path, content, order=None, classes=None, name="01_01.csv"):
    """Write a table and read it."""
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_centres_table([folder / name], classes or Classes(), order)


def mitoses(found, image="01_01"):
    return found.by_image[image].mitoses.tolist()


@pytest.mark.parametrize(
    "content",
    [
        "row,col,probability\n20.00,10.00,0.767894\n",  # of `mitoscope detect`
        "x,y\n10,20\n",
        "X;Y;note\n10;20;a\n",
        "col\trow\n10\t20\n",
        "x y\n10 20\n",
        "x|y\n10|20\n",
        '"x","y"\n"10","20"\n',
        " ,Area,X,Y\n1,5,10,20\n",  # of ImageJ
        "Position X,Position Y,Unit\n10,20,px\n",
        "x_px,y_px\n10,20\n",
        "X (pixels),Y (pixels)\n10,20\n",
        "center_x,center_y\n10,20\n",
        "Image;Class;Centroid X px;Centroid Y px\n01_01;Mitosis;10,5;20,5\n",  # of QuPath, from the corner of the pixel
        "Centroid X µm,Centroid Y µm,Centroid X px,Centroid Y px\n2,5,10.5,20.5\n",
        "x,y\r10,20\r",
        "x,y,\n10,20,\n\n",
        "x,y\n10,20\n".encode("utf-16"),
        "x,y\n10,20\n".encode("utf-8-sig"),
        "Größe;x;y\n1;10;20\n".encode("latin-1"),
    ],
)
def test_columns_are_found_by_their_names(tmp_path, content):
    assert mitoses(read(tmp_path, content)) == [[20, 10]]


@pytest.mark.parametrize(
    "content", ["20;10,5", "20\t10,5", "20,10.5", "20 10.5", '"20","10.5"', "20,10.5,0.9", "20,10.5,"]
)
def test_without_a_header_the_order_is_asked_for(tmp_path, content):
    with pytest.raises(
        InputError, match=r"01_01\.csv: has no header, so nothing says which number is the row; .*--order"
    ):
        read(tmp_path, content)
    assert mitoses(read(tmp_path, content, "row,col")) == [[20, 10.5]]
    assert mitoses(read(tmp_path, content, "x,y")) == [[10.5, 20]]


def test_a_header_without_positions_is_shown(tmp_path):
    with pytest.raises(InputError, match="names no position in its header 'a, b', so nothing says"):
        read(tmp_path, "a,b\n1,2\n")
    assert mitoses(read(tmp_path, "a,b\n1,2\n", "x,y")) == [[2, 1]]


@pytest.mark.parametrize(
    "header", ["Centroid X µm,Centroid Y µm", "x (um),y (um)", "Position X [mm],Position Y [mm]", "x_microns,y_microns"]
)
def test_positions_that_are_not_in_px_are_rejected(tmp_path, header):
    with pytest.raises(InputError, match=r"column '.*' is not in px; export the positions in px, or divide them by"):
        read(tmp_path, f"{header}\n10,20\n", "x,y")


def test_two_columns_of_one_kind_are_rejected(tmp_path):
    with pytest.raises(InputError, match="has the columns row and y, both of which could be the row"):
        read(tmp_path, "row,col,y\n1,2,3\n")


@pytest.mark.parametrize("name", ["class", "Classification", "LABEL", "category", "Name"])
def test_a_column_of_classes_is_sorted(tmp_path, name):
    rows = ["1,2,mitosis", "3,4,hard negative", "5,6,Tumor", "7,8,"]
    found = read(tmp_path, "\n".join([f"row,col,{name}", *rows]))
    assert mitoses(found) == [[1, 2]] and found.by_image["01_01"].lookalikes.tolist() == [[3, 4]]
    assert found.notes == ("2 annotations of other classes left out: Tumor (1), Unclassified (1)",)


@pytest.mark.parametrize("name", ["Klasse", "type", "Label name", "majority", "is_mitosis"])
def test_a_column_of_classes_is_known_by_its_cells(tmp_path, name):
    found = read(tmp_path, f"x,y,id,{name}\n2,1,1,mitotic figure\n4,3,2,hard negative\n")
    assert mitoses(found) == [[1, 2]] and found.by_image["01_01"].lookalikes.tolist() == [[3, 4]]


def test_classes_without_a_header_are_known(tmp_path):
    found = read(tmp_path, "1,2,mitosis\n3,4,hard negative\n", "row,col")
    assert mitoses(found) == [[1, 2]] and found.by_image["01_01"].lookalikes.tolist() == [[3, 4]]


def test_the_name_decides_among_columns_of_classes(tmp_path):
    rows = "1,2,mitosis,mitosis\n3,4,mitosis,hard negative\n"
    assert mitoses(read(tmp_path, f"row,col,rater,class\n{rows}")) == [[1, 2]]
    with pytest.raises(
        InputError, match="has classes in the columns rater 1 and rater 2; name the one to take `class`"
    ):
        read(tmp_path, f"row,col,rater 1,rater 2\n{rows}")


def test_a_comment_that_is_a_class_decides_nothing(tmp_path):
    with pytest.raises(
        InputError, match="has classes in the columns comment; name the one to take `class`, and remove"
    ):
        read(tmp_path, "row,col,comment\n1,2,mitosis\n3,4,near the edge\n")
    content = "row,col,class,comment\n1,2,MF2,\n3,4,other,mitosis\n"
    assert mitoses(read(tmp_path, content, classes=Classes(mitosis=("MF2",)))) == [[1, 2]]


def test_the_usual_classes_are_known_beside_those_of_the_user(tmp_path):
    with pytest.raises(InputError, match=r"no annotation of the class MF2, but of mitotic figure \(1\)"):
        read(tmp_path, "x,y,Klasse\n2,1,mitotic figure\n", classes=Classes(mitosis=("MF2",)))


@pytest.mark.parametrize(("yes", "no"), [("1", "0"), ("True", "False")])
@pytest.mark.parametrize("name", ["is_mitosis", "mitotic", "GT", "target", "majority"])
def test_columns_of_yes_and_no_are_asked_for(tmp_path, name, yes, no):
    content = f"row,col,id,{name}\n1,2,1,{yes}\n3,4,0,{no}\n"
    with pytest.raises(InputError, match=f"column '{name}' may say which rows are mitoses; name its values, such as"):
        read(tmp_path, content)
    found = read(tmp_path, content, classes=Classes(mitosis=(yes,), lookalike=(no,)))
    assert mitoses(found) == [[1, 2]] and found.by_image["01_01"].lookalikes.tolist() == [[3, 4]]


def test_other_columns_are_ignored(tmp_path):
    assert mitoses(read(tmp_path, "row,col,id,score,comment\n1,2,1,1,sharp\n3,4,0,0,\n")) == [[1, 2], [3, 4]]


@pytest.mark.parametrize("header", ["x,y,width,height", "X,Y,W,H", "x,y,bbox_width,bbox_height"])
def test_boxes_are_not_centres(tmp_path, header):
    with pytest.raises(InputError, match=r"may be corners of boxes; give the centres, x \+ w.* and remove these two"):
        read(tmp_path, f"{header}\n100,200,50,50\n")


@pytest.mark.parametrize("header", ["center_x,center_y,width,height,a,b", "X,Y,BX,BY,Width,Height"])
def test_centres_of_boxes_are_centres(tmp_path, header):
    assert mitoses(read(tmp_path, f"{header}\n10,20,5,5,5,5\n")) == [[20, 10]]


def test_classes_that_are_numbers_are_asked_for(tmp_path):
    content = "row,col,label\n1,2,1\n3,4,0\n"
    with pytest.raises(
        InputError, match=r"no annotation of the class Mitosis, but of 1 \(1\), 0 \(1\); name the class"
    ):
        read(tmp_path, content)
    found = read(tmp_path, content, classes=Classes(mitosis=("1",), lookalike=("0",)))
    assert mitoses(found) == [[1, 2]] and found.by_image["01_01"].lookalikes.tolist() == [[3, 4]]


def test_a_table_of_many_images(tmp_path):
    content = "file,x,y\n01_01.tif,1,2\nsub\\02_01.tif,3,4\n01_01.tif,5,6\n"
    found = read(tmp_path, content, name="all.csv")
    assert found.by_image.keys() == {"01_01.tif", "sub/02_01.tif"}
    assert mitoses(found, "01_01.tif") == [[2, 1], [6, 5]]


def test_the_label_of_imagejs_results_is_the_image(tmp_path):
    header = " ,Label,Area,Mean,X,Y\n"
    rows = "1,01_01.tif,0,9,10,20\n2,sub/02_01.TIFF:0012-0034:5,0,9,30,40\n"
    found = read(tmp_path, header + rows, name="Results.csv")
    assert found.by_image.keys() == {"01_01.tif", "sub/02_01.TIFF"} and found.notes == ()
    assert mitoses(found, "01_01.tif") == [[20, 10]] and mitoses(found, "sub/02_01.TIFF") == [[40, 30]]
    found = read(tmp_path, header + "1,01_01,0,9,10,20\n", name="01_01_mitoses.csv")
    assert mitoses(found) == [[20, 10]]
    with pytest.raises(InputError, match=r"but of 01_01\.tif \(1\), Tumor \(1\)"):
        read(tmp_path, header + "1,01_01.tif,0,9,10,20\n2,Tumor,0,9,30,40\n")


def test_the_image_and_the_kind_are_in_the_name_of_the_file(tmp_path):
    for name in ("01_01.csv", "01_01_nonmitotic.csv", "02_01_mitoses.csv"):
        (tmp_path / name).write_text("x,y\n10,20\n")
    for name in ("summary.csv", "fields.csv", "notes.md"):
        (tmp_path / name).write_text("field,mitoses\na,1\n")
    found = read_centres_table([tmp_path], Classes())
    assert found.by_image.keys() == {"01_01", "02_01"}
    assert mitoses(found) == found.by_image["01_01"].lookalikes.tolist() == mitoses(found, "02_01") == [[20, 10]]


def test_a_table_in_a_folder_is_named_by_its_path(tmp_path):
    for patient in ("a", "b", ".hidden"):
        (tmp_path / patient).mkdir()
        (tmp_path / patient / "1_mitoses.csv").write_text("x,y\n10,20\n")
    assert read_centres_table([tmp_path], Classes()).by_image.keys() == {"a/1", "b/1"}


def test_two_tables_of_one_image_are_rejected(tmp_path):
    for name in ("01_01.csv", "01_01_mitoses.csv"):
        (tmp_path / name).write_text("x,y\n10,20\n")
    with pytest.raises(InputError, match=r"01_01_mitoses\.csv: annotates 01_01, as .*01_01\.csv does"):
        read_centres_table([tmp_path], Classes())


@pytest.mark.parametrize("content", ["", "\n\n", "row,col\n", "row,col,probability\n"])
def test_an_empty_table_is_an_image_without_mitoses(tmp_path, content):
    assert mitoses(read(tmp_path, content)) == []


def test_bad_rows_are_one_line(tmp_path):
    with pytest.raises(
        InputError, match=r"01_01\.csv: row 3: 'a,4' has no position in px \(and 2 more rows\); correct"
    ):
        read(tmp_path, "row,col\n1,2\na,4\n5\nnan,1\n")
    with pytest.raises(InputError, match="row 2: names no image"):
        read(tmp_path, "row,col,image\n1,2\n")


def test_what_is_no_table_is_one_line(tmp_path):
    with pytest.raises(InputError, match=r"01_01\.csv: is not a text file"):
        read(tmp_path, b"PK\x03\x04\x00\x00")
    with pytest.raises(InputError, match=r"01_01\.csv: is not a table \(field larger than field limit"):
        read(tmp_path, f'x,y\n"{"1" * 200_000}",2\n')
    with pytest.raises(InputError, match=r"--order y,x: is not known; expected row,col or x,y"):
        read(tmp_path, "1,2\n", "y,x")


@pytest.mark.parametrize("name", ["01_01_mitoses.json", "01_01.geojson", "01_01.geojson.gz"])
def test_json_is_no_table(tmp_path, name):
    with pytest.raises(
        InputError, match=rf"{name}: is JSON, not a table; give the CSV .* GeoJSON with `mitoscope import qupath`"
    ):
        read(tmp_path, '{"type": "Multiple points"}', name=name)


CELLS = st.text(max_size=6) | st.sampled_from(
    ["row", "col", "x", "y", "class", "image", "Mitosis", "1", "2,5", "1e400"]
)


@pytest.mark.slow  # many examples
@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.lists(CELLS, max_size=4), max_size=5),
    st.sampled_from([",", ";", "\t", " "]),
    st.sampled_from(["utf-8", "utf-16", "utf-8-sig"]),
    st.sampled_from([None, "row,col", "x,y"]),
    st.booleans(),
)
def test_any_table_gives_a_line_or_a_result(tmp_path_factory, rows, separator, encoding, order, named):
    text = io.StringIO()
    csv.writer(text, delimiter=separator).writerows([["x", "y", "class"], *rows] if named else rows)
    try:
        found = read(
            tmp_path_factory.getbasetemp(), text.getvalue().encode(encoding, "replace"), order, name="fuzz.csv"
        )
    except InputError as error:
        assert str(error).count("\n") == 0 and "fuzz.csv" in str(error)
    else:
        assert all(np.isfinite(annotations.mitoses).all() for annotations in found.by_image.values())
