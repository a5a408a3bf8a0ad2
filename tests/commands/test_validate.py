"""`validate` prints what a dataset holds, and everything that is wrong with it, a line each."""

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.console import Console

from mitoscope.commands.validate import print_report, validate
from mitoscope.datasets.validation import Report, check_dataset
from mitoscope.errors import InputError
from tests.tables import read_rows

ROWS, COLUMNS = 150, 140


def encode(suffix: str, pixels: np.ndarray) -> bytes:
    return cv2.imencode(suffix, pixels)[1].tobytes()


def tissue() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (ROWS, COLUMNS, 3), dtype=np.uint8)


@pytest.fixture
def data(tmp_path) -> Path:
    """A valid dataset: patient 01 with two fields and three mitoses, patient 02 with one and one."""
    folder = tmp_path / "[red]data"  # rich would take this for a colour
    folder.mkdir()
    for name in ("01_01.tif", "01_02.png", "02_01.jpg"):
        (folder / name).write_bytes(encode(Path(name).suffix, tissue()))
    (folder / "dataset.yaml").write_text("microns_per_pixel: 0.25\n")
    (folder / "01_01.csv").write_text("10,20\n149,139\n")
    (folder / "01_02.csv").write_text("0,0\n")
    (folder / "02_01.csv").write_text("1,1\n")
    (folder / "01_02_cmask.png").write_bytes(encode(".png", tissue()[..., 0]))
    return folder


def spoil(data: Path) -> None:
    """Give it six problems, two of them images that cannot be read, and two warnings."""
    (data / "03_01.tif").write_bytes(encode(".tif", tissue())[:-300])
    (data / "03_02.jpg").write_bytes(encode(".jpg", tissue())[:-300])
    (data / "photo.tif").write_bytes(encode(".tif", tissue()))
    (data / "01_02_cmask.png").write_bytes(b"hello")
    (data / "01_01.csv").write_text("1,2\n150,1\nrow,col\n")
    (data / "01_03.csv").write_text("1,2\n")


def printed(report: Report, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    print_report(report, console)
    return console.file.getvalue().splitlines()


def test_a_valid_dataset_is_printed_as_tables_and_a_verdict(data, capsys):
    assert validate(data) == check_dataset(data)
    rows = read_rows(capsys.readouterr().out)
    assert ["01", "01_02", "140 x 150", "0.25", "dataset.yaml", "1", "0", "cmask"] in rows
    assert ["01", "2", "3"] in rows and ["02", "1", "1"] in rows
    assert rows[-1] == ["valid: 3 fields of 2 patients with 4 mitoses"]


def test_every_problem_stays_on_a_line_of_its_own_however_narrow_the_terminal(data):
    spoil(data)
    report = check_dataset(data)
    lines = printed(report, width=40)
    assert [line for line in lines if line.startswith("error: ")] == [f"error: {line}" for line in report.problems]
    assert len(report.warnings) == 2 and f"{data / '01_03.csv'}: belongs to no field" in report.warnings[0]
    assert [line for line in lines if line.startswith("warning: ")] == [f"warning: {line}" for line in report.warnings]
    assert lines[-1].startswith("invalid: 5 fields") and lines[-1].endswith("6 errors to fix")
    assert sum("unreadable" in line for line in printed(report, width=100)) == 2


def test_a_name_with_a_line_break_stays_on_one_line(data):
    (data / "two\nlines.tif").write_bytes(b"")
    (line,) = [line for line in printed(check_dataset(data), width=80) if "lines.tif" in line]
    assert r"two\nlines.tif" in line


def test_the_table_fits_into_80_columns_and_is_whole_in_a_pipe(data):
    rows = printed(check_dataset(data), width=80)
    assert "…" not in " ".join(rows) and max(map(len, rows)) <= 80
    heading = ["patient", "field", "size (px)", "um per px", "from", "mitoses", "look-alikes", "masks"]
    assert read_rows("\n".join(printed(check_dataset(data), width=1000)))[0] == heading  # no field has a domain


def test_a_folder_without_fields_is_invalid_and_a_missing_one_an_error(tmp_path, capsys):
    validate(tmp_path)
    assert "invalid: 0 fields" in capsys.readouterr().out
    with pytest.raises(InputError, match="no such folder"):
        validate(tmp_path / "missing")


def test_nothing_else_is_written_to_the_terminal(data, capfd):
    """OpenCV and its libraries like to complain there by themselves."""
    spoil(data)
    validate(data)
    written = capfd.readouterr()
    assert written.err == ""
    lines = [
        row[0] for row in read_rows(written.out) if len(row) == 1 and ": " in row[0]
    ]  # no word that a narrow table folded
    assert {line.split(": ")[0] for line in lines} == {"warning", "error", "invalid"}
    assert len(lines) == 2 + 6 + 1
