"""Tables are read as people write them, and what is no table is rejected in one line."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitoscope.datasets.tables import read_table
from mitoscope.errors import InputError
from tests.datasets.conftest import refusal


@pytest.mark.parametrize(
    ("content", "separator", "decimal"),
    [
        ("a,b\n1.5,2\n", ",", "."),
        ("a;b\n1,5;2\n", ";", ","),
        ("a;b\n1.5;2\n", ";", "."),
        ("a\tb\n1,5\t2\n", "\t", ","),
        ('"a","b"\r\n"1.5","2"\r\n', ",", "."),
        ("\n a , b \r\r1.5 , 2\r", ",", "."),
        (b"\xef\xbb\xbfa,b\n1.5,2", ",", "."),
        ("a,b\n1.5,2\n".encode("utf-16"), ",", "."),
        (",,\na,b\n1.5,2\n;;\n", ",", "."),
    ],
)
def test_cells_are_found_whatever_wrote_them(tmp_path, content, separator, decimal):
    path = tmp_path / "table.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    table = read_table(path)
    (_, header), (_, cells) = table.rows
    assert (header, table.separator, table.decimal) == (["a", "b"], separator, decimal)
    assert [table.number(cell) for cell in cells] == [1.5, 2.0]


def test_rows_keep_the_numbers_of_their_lines(tmp_path):
    (tmp_path / "table.csv").write_text("a,b\n\n1,2\n\n\n3,4\n")
    assert [number for number, _ in read_table(tmp_path / "table.csv").rows] == [1, 3, 6]


def test_umlauts_of_old_spreadsheets_are_read(tmp_path):
    (tmp_path / "table.csv").write_bytes("Präparat,1".encode("latin-1"))
    assert read_table(tmp_path / "table.csv").rows == [(1, ["Präparat", "1"])]


@pytest.mark.parametrize("cell", ["", "x", "nan", "inf", "1,5", "0x10", "1 2"])
def test_what_is_no_finite_number_is_none(tmp_path, cell):
    (tmp_path / "table.csv").write_text("1.5,2\n")
    assert read_table(tmp_path / "table.csv").number(cell) is None


@pytest.mark.parametrize("content", [b"\x00\x01", b"\x89PNG\r\n\x1a\n", bytes(range(128, 256))])
def test_binary_content_is_rejected(tmp_path, content):
    (tmp_path / "table.csv").write_bytes(content)
    assert "is not a text file" in refusal(read_table, tmp_path / "table.csv")


def test_a_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "table.csv")
    assert "is a pipe, a socket or a device" in refusal(read_table, tmp_path / "table.csv")


@given(content=st.binary(max_size=80))
def test_any_content_is_a_table_or_an_error(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(content)
    try:
        table = read_table(path)
    except InputError:
        return
    assert all(isinstance(cell, str) for _, cells in table.rows for cell in cells)
