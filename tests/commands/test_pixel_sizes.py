"""The pixel sizes of the images of a call: which source goes first, and what is said."""

from pathlib import Path

import pytest

from mitoscope.commands.pixel_sizes import PixelSizes
from mitoscope.errors import InputError

MODEL = 0.25


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A dataset with both files; fields.csv gives the size of a.tif only."""
    (tmp_path / "fields.csv").write_text("file,patient,field,microns_per_pixel\na.tif,1,1,0.4\nb.tif,1,2,\n")
    (tmp_path / "dataset.yaml").write_text("microns_per_pixel: 0.3\n")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "tag", "expected"),
    [
        ("a.tif", 0.5, (0.4, "fields.csv")),
        ("b.tif", 0.5, (0.5, "file")),
        ("b.tif", None, (0.3, "dataset.yaml")),
        ("unlisted.tif", None, (0.3, "dataset.yaml")),
    ],
)
def test_a_dataset_has_its_own_rules(folder, name, tag, expected):
    assert PixelSizes(None, MODEL).find(folder / name, tag) == expected


def test_the_option_goes_first_and_reads_nothing(folder):
    (folder / "fields.csv").write_text("broken")
    assert PixelSizes(0.6, MODEL).find(folder / "a.tif", 0.5) == (0.6, "--microns-per-pixel")
    with pytest.raises(InputError, match=r"fields\.csv: has no column `file`"):
        PixelSizes(None, MODEL).find(folder / "a.tif", 0.5)


def test_outside_of_a_dataset_the_file_and_then_the_model_give_it(tmp_path):
    sizes = PixelSizes(None, MODEL)
    assert sizes.find(tmp_path / "a.tif", 0.5) == (0.5, "file")
    assert sizes.find(tmp_path / "a.tif", None) == (MODEL, "model")
    (tmp_path / "dataset.yaml").write_text("name: without a size\n")
    assert PixelSizes(None, MODEL).find(tmp_path / "a.tif", None) == (MODEL, "model")


def test_the_folder_above_counts_if_its_table_names_the_image(folder):
    (folder / "05").mkdir()
    (folder / "fields.csv").write_text("file,patient,field,microns_per_pixel\n05/1.tif,5,1,0.4\n05/2.tif,5,2,\n")
    sizes = PixelSizes(None, MODEL)
    assert sizes.find(folder / "05/1.tif", None) == (0.4, "fields.csv")
    assert sizes.find(folder / "05/2.tif", None) == (0.3, "dataset.yaml")
    assert sizes.find(folder / "05/3.tif", None) == (MODEL, "model")


def test_the_nearest_table_that_names_the_image_counts(folder):
    """As in extract, which takes images at any depth."""
    (folder / "s/05").mkdir(parents=True)
    (folder / "fields.csv").write_text("file,microns_per_pixel\ns/05/1.tif,0.4\ns/05/2.tif,0.45\n")
    (folder / "s/fields.csv").write_text("file,microns_per_pixel\n05/2.tif,0.5\n")
    sizes = PixelSizes(None, MODEL)
    assert sizes.find(folder / "s/05/1.tif", 0.3) == (0.4, "fields.csv")
    assert sizes.find(folder / "s/05/2.tif", 0.3) == (0.5, "fields.csv")
    assert sizes.find(folder / "s/05/3.tif", None) == (MODEL, "model")


@pytest.mark.parametrize("name", ["dataset.yaml", "fields.csv"])
def test_a_file_of_another_program_is_named_with_the_remedy(tmp_path, name):
    (tmp_path / name).write_text("train: images/train\nval: images/val\n")
    said = rf"{name}: .*; correct it, or give the pixel size with --microns-per-pixel$"
    with pytest.raises(InputError, match=said):
        PixelSizes(None, MODEL).find(tmp_path / "a.tif", 0.5)
    sizes = PixelSizes(0.6, MODEL)
    size = sizes.find(tmp_path / "a.tif", 0.5)
    sizes.note(tmp_path / "a.tif", "a", 0.5, size)
    assert size == (0.6, "--microns-per-pixel")


def test_sizes_that_look_equal_are_one_line(tmp_path):
    sizes = PixelSizes(None, MODEL)
    for name, tag in (("a", 0.25001), ("b", 0.24999), ("c", 0.2503)):
        sizes.note(tmp_path / name, name, tag, sizes.find(tmp_path / name, tag))
    assert sizes.lines() == ["pixel size 0.25 um, from the file: a, b", "pixel size 0.2503 um, from the file: c"]


def test_equal_sizes_are_one_line(folder):
    sizes = PixelSizes(None, MODEL)
    for name, tag in (("a", 0.4), ("b", None), ("c", None), ("d", None), ("e", None), ("f", 0.3)):
        size = sizes.find(folder / f"{name}.tif", tag)
        sizes.note(folder / f"{name}.tif", name, tag, size)
    assert sizes.lines() == [
        "pixel size 0.4 um, from fields.csv: a",
        "pixel size 0.3 um, from dataset.yaml: 4 images",
        "pixel size 0.3 um, from the file: f",
    ]
    assert sizes.warnings() == []


@pytest.mark.parametrize(("tag", "warned"), [(0.287, False), (0.313, False), (0.284, True), (0.316, True)])
def test_a_difference_of_more_than_5_percent_is_warned_of(folder, tag, warned):
    sizes = PixelSizes(None, MODEL)
    sizes.note(folder / "b.tif", "b", tag, sizes.find(folder / "b.tif", tag))
    assert bool(sizes.warnings()) == warned
