"""Centres read back as they were written, and whatever is wrong with them is refused in one line."""

import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mitoscope.datasets.annotations import (
    distance_to_nearest,
    read_centres,
    read_lookalikes,
    scan_centres,
    write_centres,
)
from mitoscope.datasets.fields import FieldOfView
from tests.datasets.conftest import COLUMNS, ROWS, SHAPE, encode, refusal, tissue


def field_with_csv(folder: Path, content: str | bytes) -> FieldOfView:
    field = FieldOfView(folder / "01_02.tif", "01", "02")
    field.annotation.write_bytes(content if isinstance(content, bytes) else content.encode())
    return field


@pytest.mark.parametrize("start", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_rows_are_row_and_col_whatever_wrote_them(tmp_path, start, end):
    field = field_with_csv(tmp_path, start + end.join(["12,34", "", " 5.5 , 6 ", "0,0", "59,49"]) + end)
    assert read_centres(field, SHAPE).tolist() == [[12, 34], [5.5, 6], [0, 0], [59, 49]]


@pytest.mark.parametrize(
    "content",
    [
        "12;34\n5,5;6\n",
        "12\t34\n5.5\t6\n",
        '"12","34"\n"5.5","6"\n',
        "12,34,\n5.5,6,\n,,\n",
        "row,col,probability\n12,34,0.9\n5.5,6,0.8\n",
        "id;x;y\na;34;12\nb;6;5,5\n",
        "12,34\r\n5.5,6\r\n".encode("utf-16"),
    ],
    ids=["semicolons", "tabs", "quotes", "commas at the end", "written by detect", "x and y named", "UTF-16"],
)
def test_unambiguous_forms_are_read(tmp_path, content):
    assert read_centres(field_with_csv(tmp_path, content), SHAPE).tolist() == [[12, 34], [5.5, 6]]


def test_thousands_of_bad_rows_are_one_line_with_a_hint(tmp_path):
    field = field_with_csv(tmp_path, "Centroid X,Centroid Y,Class\n" + "1,2,Mitosis\n" * 5000)
    centres, (problem,) = scan_centres(field, SHAPE)
    assert len(centres) == 0 and "row 1: 'Centroid X,Centroid Y,Class' is not two numbers" in problem
    assert "`mitoscope import csv` reads other forms" in problem and problem.endswith("(and 5000 more rows)")


def test_a_table_with_classes_is_for_the_importer(tmp_path):
    field = field_with_csv(tmp_path, "X,Y,label\n10,20,mitosis\n11,21,hard negative\n")
    message = refusal(read_centres, field, SHAPE)
    assert "has a column 'label'; `mitoscope import csv` sorts centres by their class" in message


@pytest.mark.parametrize(
    ("name", "cells"),
    [("Klasse", ["mitotic figure", "hard negative"]), ("name", ["a", "Mitosis"]), ("is_mitosis", ["1", "0"])],
)
def test_classes_are_known_by_the_cells(tmp_path, name, cells):
    field = field_with_csv(tmp_path, f"x,y,{name}\n10,20,{cells[0]}\n11,21,{cells[1]}\n")
    assert f"has a column '{name}'; `mitoscope import csv` sorts" in refusal(read_centres, field, SHAPE)


def test_other_columns_are_ignored(tmp_path):
    field = field_with_csv(tmp_path, "x,y,id,score,comment\n10,20,1,1,sharp\n11,21,0,0,\n")
    assert read_centres(field, SHAPE).tolist() == [[20, 10], [21, 11]]


def test_a_cell_beyond_the_header_may_be_a_class(tmp_path):
    field = field_with_csv(tmp_path, "x,y\n10,20,,hard negative\n")
    assert "has a column 'number 4'" in refusal(read_centres, field, SHAPE)


@pytest.mark.parametrize("sides", ["width,height", "W,H"])
def test_boxes_are_not_centres(tmp_path, sides):
    field = field_with_csv(tmp_path, f"x,y,{sides}\n10,20,5,5\n")
    assert "may be corners of boxes; give the centres, x + w" in refusal(read_centres, field, SHAPE)


def test_lookalikes_stand_in_a_file_of_their_own(tmp_path):
    field = field_with_csv(tmp_path, "1,2\n")
    assert read_lookalikes(field, SHAPE).shape == (0, 2)
    field.lookalikes.write_text("30,40\n")
    assert field.lookalikes.name == "01_02_nonmitotic.csv"
    assert read_lookalikes(field, SHAPE).tolist() == [[30, 40]] and read_centres(field, SHAPE).tolist() == [[1, 2]]
    field.lookalikes.write_text("30,400\n")
    assert str(field.lookalikes) in refusal(read_lookalikes, field, SHAPE)


def test_x_y_order_is_turned_into_row_col(tmp_path):
    field = field_with_csv(tmp_path, "34,55\n1,2\n")
    assert read_centres(field, SHAPE, "x,y").tolist() == [[55, 34], [2, 1]]
    assert "annotation_order" in refusal(read_centres, field_with_csv(tmp_path, "34,55\n"), SHAPE, "row,col")


@pytest.mark.parametrize("content", ["", "\n\n", "\ufeff"])
def test_an_empty_csv_means_no_mitosis(tmp_path, content):
    assert read_centres(field_with_csv(tmp_path, content), SHAPE).shape == (0, 2)


def test_no_csv_and_no_discs_mean_no_mitosis(tmp_path):
    assert read_centres(FieldOfView(tmp_path / "01_02.tif", "01", "02"), SHAPE).shape == (0, 2)


@pytest.mark.parametrize(
    "row",
    [
        "nan,5",
        "5,inf",
        "-inf,5",
        "5,",
        ",5",
        "5",
        "5,6,7",
        "row,col",
        "5;6",
        "5 6",
        "01_02,30",
        "0x10,5",
        "\x1b[31m,5",
    ],
)
def test_a_row_that_is_not_two_numbers_is_rejected(tmp_path, row):
    field = field_with_csv(tmp_path, f"1,2\n\n{row}\n")
    message = refusal(read_centres, field, SHAPE)
    assert message.startswith(f"{field.annotation}: row 3: ")
    assert "is not two numbers; expected `row,col`" in message and message.isprintable()


@pytest.mark.parametrize("row", ["60,5", "5,50", "-1,5", "5,-0.5", "1e300,5"])
def test_a_row_outside_the_image_is_rejected(tmp_path, row):
    field = field_with_csv(tmp_path, f"1,2\n{row}\n")
    message = refusal(read_centres, field, SHAPE)
    assert message.startswith(f"{field.annotation}: row 2: ") and "outside the image of 60 rows and 50" in message


def test_the_same_centre_twice_is_rejected(tmp_path):
    field = field_with_csv(tmp_path, "1,2\n3,4\n1.0,2.0\n")
    assert f"{field.annotation}: row 3: the same centre as row 1" in refusal(read_centres, field, SHAPE)


@pytest.mark.parametrize("content", [b"\x00\x01\x02\x03", bytes(range(128, 256)), encode(".png", tissue())])
def test_binary_garbage_is_rejected(tmp_path, content):
    field = field_with_csv(tmp_path, content)
    assert f"{field.annotation}: is not a text file" in refusal(read_centres, field, SHAPE)


def test_text_garbage_is_rejected_in_a_short_line(tmp_path):
    field = field_with_csv(tmp_path, b"\x00" * 200_000)
    assert len(refusal(read_centres, field, SHAPE)) < len(str(field.annotation)) + 400


def test_a_folder_in_place_of_the_csv_is_rejected(tmp_path):
    field = FieldOfView(tmp_path / "01_02.tif", "01", "02")
    field.annotation.mkdir()
    assert f"{field.annotation}: cannot be read" in refusal(read_centres, field, SHAPE)


def test_scanning_goes_on_after_a_bad_row(tmp_path):
    field = field_with_csv(tmp_path, "1,2\nx,y\n99,1\n3,4\n1,2\n")
    centres, problems = scan_centres(field, SHAPE)
    assert centres.tolist() == [[1, 2], [3, 4]]
    assert [problem.split(": ")[1] for problem in problems] == ["row 2", "row 3", "row 5"]


def test_discs_are_centres_where_there_is_no_csv(tmp_path):
    field = FieldOfView(tmp_path / "01_02.tif", "01", "02")
    discs = np.zeros(SHAPE, np.uint8)
    for row, col in [(10, 30), (45, 7)]:
        cv2.circle(discs, (col, row), 4, 255, -1)
    field.mask("pc").write_bytes(encode(".png", discs))
    assert read_centres(field, SHAPE).tolist() == [[10, 30], [45, 7]]
    assert "make both equal" in refusal(read_centres, field, (ROWS, COLUMNS + 1))
    field.annotation.write_text("1,2\n")
    assert read_centres(field, SHAPE).tolist() == [[1, 2]]


coordinate = st.floats(0, 1e6, exclude_max=True) | st.integers(0, 10**6 - 1).map(float)


@settings(max_examples=60, deadline=None)
@given(centres=st.lists(st.tuples(coordinate, coordinate), unique=True, max_size=20), swapped=st.booleans())
def test_centres_read_back_equal(tmp_path_factory, centres, swapped):
    field = FieldOfView(tmp_path_factory.getbasetemp() / "77_01.tif", "77", "01")
    written = np.array(centres, float).reshape(-1, 2)
    write_centres(field.annotation, written[:, ::-1] if swapped else written)
    read = read_centres(field, (10**6, 10**6), "x,y" if swapped else "row,col")
    assert np.array_equal(read, written)


def test_distances_of_many_points_need_no_table_of_all_pairs():
    rng = np.random.default_rng(0)
    points, centres = rng.uniform(0, 5000, (20_000, 2)), rng.uniform(0, 5000, (5000, 2))
    tracemalloc.start()
    try:
        distances = distance_to_nearest(points, centres)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert distances.shape == (20_000,) and distances.dtype == np.float64
    assert peak < 20e6  # all pairs: 1.6 GB
    some = rng.choice(len(points), 500, replace=False)
    expected = [np.hypot(*(centres - point).T).min() for point in points[some]]
    np.testing.assert_allclose(distances[some], expected, rtol=1e-12)


def test_distances_to_or_of_nothing():
    assert np.isnan(distance_to_nearest(np.zeros((3, 2)), np.empty((0, 2)))).all()
    assert distance_to_nearest(np.empty((0, 2)), np.zeros((3, 2))).shape == (0,)
    assert distance_to_nearest(np.empty((0, 2)), np.empty((0, 2))).shape == (0,)
