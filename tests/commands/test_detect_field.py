"""A task of detection: whatever becomes of its process, it only ever writes into a folder of its own."""

from pathlib import Path

import pytest

from mitoscope.commands.detect_field import FieldResult, Task, detect_field, load_detector
from mitoscope.commands.pixel_sizes import PixelSizes
from mitoscope.errors import InputError
from tests.conftest import small_detector
from tests.disks import full_disk


@pytest.fixture
def task(tmp_path: Path) -> Task:
    """A detector of chance, and a folder for unfinished results."""
    detector = small_detector()
    out = tmp_path / "out"
    (out / ".unfinished").mkdir(parents=True)
    return Task(lambda: detector, PixelSizes(None, 0.25), False, False, "", out, out / ".unfinished")


def test_a_task_that_is_done_twice_gives_the_same_in_another_folder(task, raw):
    first, second = (detect_field(task, raw / "01_01.jpg") for _ in range(2))
    assert isinstance(first, FieldResult) and isinstance(second, FieldResult) and first.count == second.count
    files = [{path.name: path.read_bytes() for path in done.files.iterdir()} for done in (first, second)]
    assert files[0] == files[1] and len(files[0]) == 3 and first.files != second.files
    assert [path.name for path in task.out.iterdir()] == [".unfinished"]


def test_a_bad_image_gives_its_line_back(task, tmp_path):
    (tmp_path / "notes.tif").write_text("no image")
    error = detect_field(task, tmp_path / "notes.tif")
    assert isinstance(error, InputError) and "notes.tif: is not an image" in str(error)
    assert not list(task.folder.iterdir())


def test_a_full_disk_names_the_output_folder(task, raw):
    with pytest.raises(OSError, match="File too large") as error, full_disk():
        detect_field(task, raw / "01_01.jpg")
    assert error.value.filename == str(task.out)


def test_a_process_loads_a_detector_once(tmp_path):
    path = tmp_path / "detector.pt"
    small_detector().save(path)
    first = load_detector(path, "its hash")
    path.unlink()
    assert load_detector(path, "its hash") is first
    with pytest.raises(InputError, match=r"detector\.pt"):
        load_detector(path, "the hash of another")
