from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

from mitoscope.datasets.synthetic import draw_stain, render_field, synthesize

SIZE = 700


def read_rgb(path: Path) -> NDArray[np.uint8]:
    return cv2.cvtColor(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), cv2.COLOR_BGR2RGB)


def read_centres(image: Path) -> NDArray[np.float64]:
    table = image.with_suffix(".csv")
    return np.loadtxt(table, delimiter=",", ndmin=2) if table.exists() else np.empty((0, 2))


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two patients with two fields each, half as large as the sample's (1000 px)."""
    folder = tmp_path_factory.mktemp("synthetic")
    synthesize(folder, patients=2, size=SIZE)
    return folder


def test_the_folder_has_the_raw_layout(dataset: Path) -> None:
    assert sorted(files_of(dataset)) == [
        "01_01.csv", "01_01.jpg", "01_02.csv", "01_02.jpg", "02_01.csv", "02_01.jpg", "02_02.jpg", "dataset.yaml",
    ]  # fmt: skip
    description = yaml.safe_load((dataset / "dataset.yaml").read_text())
    assert set(description) == {
        "name", "source", "licence", "microns_per_pixel", "annotation_order", "synthetic",
    }  # fmt: skip
    assert description["microns_per_pixel"] == 0.25
    assert description["annotation_order"] == "row,col"
    assert description["synthetic"] is True


def test_fields_are_8_bit_rgb_with_centres_inside_and_apart(dataset: Path) -> None:
    for path in dataset.glob("*.jpg"):
        image, centres = read_rgb(path), read_centres(path)
        assert image.dtype == np.uint8
        assert image.shape == (SIZE, SIZE, 3)
        assert ((centres >= 0) & (centres < SIZE)).all()
        gaps = np.hypot(*(centres[:, None] - centres[None]).transpose(2, 0, 1))
        assert (gaps[~np.eye(len(centres), dtype=bool)] >= 45).all()


def test_a_field_without_mitosis_has_no_table(dataset: Path) -> None:
    assert (dataset / "02_02.jpg").exists()
    assert not (dataset / "02_02.csv").exists()


def test_the_default_set_stays_below_11_megabytes(dataset: Path) -> None:
    sizes = [path.stat().st_size for path in dataset.glob("*.jpg")]
    assert 24 * np.mean(sizes) * (1000 / SIZE) ** 2 < 11e6


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(tmp_path: Path) -> None:
    for name, seed in (("first", 3), ("again", 3), ("other", 4)):
        (tmp_path / name).mkdir()
        synthesize(tmp_path / name, seed=seed, patients=2, fields_per_patient=1, size=200)
    first, again, other = (files_of(tmp_path / name) for name in ("first", "again", "other"))
    assert first == again
    assert first["01_01.jpg"] != other["01_01.jpg"]


def test_a_field_does_not_depend_on_how_many_others_there_are(tmp_path: Path) -> None:
    (tmp_path / "few").mkdir()
    (tmp_path / "many").mkdir()
    synthesize(tmp_path / "few", patients=1, fields_per_patient=1, size=200)
    synthesize(tmp_path / "many", patients=2, fields_per_patient=2, size=200)
    assert files_of(tmp_path / "few").items() <= files_of(tmp_path / "many").items()


def test_each_field_is_reported_when_it_is_written(tmp_path: Path) -> None:
    names: list[str] = []
    synthesize(tmp_path, patients=1, fields_per_patient=2, size=200, on_field=names.append)
    assert names == ["01_01", "01_02"]


def test_patients_differ_in_colour(dataset: Path) -> None:
    first, second = (read_rgb(dataset / f"{name}_01.jpg").mean(axis=(0, 1)) for name in ("01", "02"))
    assert np.abs(first - second).max() > 5


def test_a_mitotic_figure_is_much_darker_than_its_surroundings() -> None:
    rng = np.random.default_rng(0)
    image, centres = render_field(rng, draw_stain(rng), size=500, mitoses=5, look_alikes=0)
    assert len(centres) == 5
    grey = image.mean(axis=2)
    for row, col in centres:
        window = grey[max(row - 24, 0) : row + 25, max(col - 24, 0) : col + 25]
        assert window.min() < 0.5 * np.median(grey)


def blue_ratio_peaks(image: NDArray[np.uint8], count: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The strongest peaks of the smoothed blue ratio: (N, 2) places at half resolution and (N,) heights."""
    half = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA).astype(np.float32)
    red, green, blue = cv2.split(half)
    ratio = 100 * blue / (1 + red + green) * 256 / (1 + red + green + blue)
    ratio = cv2.GaussianBlur(ratio, (0, 0), 2)
    places = np.argwhere(ratio == cv2.dilate(ratio, np.ones((11, 11))))
    heights = ratio[tuple(places.T)]
    strongest = np.argsort(-heights)[:count]
    return places[strongest], heights[strongest]


def test_colour_finds_the_mitoses_but_does_not_tell_them_from_the_look_alikes(dataset: Path) -> None:
    heights, hits, centres_in_all = [], [], 0
    for path in sorted(dataset.glob("*.jpg")):
        centres = read_centres(path) / 2
        places, field_heights = blue_ratio_peaks(read_rgb(path), count=95 * SIZE**2 // 1000**2)
        field_hits = np.zeros(len(places), bool)
        for centre in centres:  # the strongest peak near a centre is its one hit
            near = np.hypot(*(places - centre).T) <= 15
            field_hits[np.flatnonzero(near)[:1]] = True
        heights.append(field_heights)
        hits.append(field_hits)
        centres_in_all += len(centres)
    ranked = np.concatenate(hits)[np.argsort(-np.concatenate(heights))]
    precision = np.cumsum(ranked) / np.arange(1, len(ranked) + 1)
    assert ranked.sum() / centres_in_all >= 0.9
    assert (precision * ranked).sum() / centres_in_all < 0.5
