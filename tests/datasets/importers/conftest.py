"""A dataset to import, a folder that no failed import may touch, and what both tell."""

import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from mitoscope.datasets.importers import Summary, Target
from mitoscope.errors import InputError
from tests.datasets.conftest import encode

ROWS, COLUMNS = 40, 48


def tissue(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (ROWS, COLUMNS, 3), dtype=np.uint8)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def source(tmp_path) -> Path:
    """Three fields of two patients with three mitoses, in Janowczyk's layout."""
    folder = tmp_path / "mitosis"
    folder.mkdir()
    mask = np.zeros((ROWS, COLUMNS), np.uint8)
    mask[5:15, 5:15] = 255
    for seed, name in enumerate(["01_01", "01_02", "02_01"]):
        (folder / f"{name}.tif").write_bytes(encode(".tif", tissue(seed)))
        for kind in ("brmask", "cmask", "pc"):
            (folder / f"{name}_{kind}.png").write_bytes(encode(".png", mask))
    (folder / "01_01.csv").write_text("10,10\n30,40\n")
    (folder / "01_02.csv").write_text("")
    (folder / "02_01.csv").write_text("12,8\n")
    return folder


@pytest.fixture
def out(tmp_path) -> Path:
    """An output folder in which something lies that no failed import may touch."""
    folder = tmp_path / "work" / "data"
    folder.mkdir(parents=True)
    (folder / "precious.txt").write_text("keep me")
    return folder


def pack(source: Path, archive: Path) -> Path:
    """Pack a folder under its own name, as people do."""
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
            for path in sorted(source.iterdir()):
                file.write(path, f"{source.name}/{path.name}")
    else:
        with tarfile.open(archive, {".tgz": "w:gz", ".tar": "w", ".xz": "w:xz"}[archive.suffix]) as file:
            file.add(source, source.name)
    return archive


def rejected(function, *arguments, out: Path) -> str:
    """The one line with which an import ends, having left nothing behind."""
    before = contents(out.parent)
    with pytest.raises(InputError) as caught:
        function(*arguments, Target(out, replace=True))
    message = str(caught.value)
    assert message.isprintable() and ".partial" not in message
    assert contents(out.parent) == before
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    return message


def notes(summary: Summary) -> tuple[str, ...]:
    """What an import says, without the line on pixel sizes, which the small images here do not give."""
    return tuple(note for note in summary.notes if not note.startswith("nothing gives the pixel size"))
