"""A set of two scanners: every length is in um and every area in mm2, from the images to the scores of each scanner."""

import contextlib
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mitoscope.datasets.annotations import write_centres
from mitoscope.datasets.patches import read_index, read_summary
from mitoscope.datasets.readers import encode_image, read_image
from mitoscope.detection.detector import Detector
from mitoscope.detection.stored import StoredFields
from mitoscope.histology.windows import rescale, resize
from mitoscope.paths import PATCHES, Outputs
from mitoscope.stages.detector import detector
from mitoscope.stages.evaluate import evaluate
from mitoscope.stages.extract import extract
from mitoscope.stages.search import search
from mitoscope.stages.split import split
from mitoscope.stages.train import train
from mitoscope.stages.weights import weights
from tests.conftest import NETWORK, tiny_params, write_params
from tests.stages.conftest import in_project

pytestmark = pytest.mark.slow

OUTPUTS = Outputs(NETWORK)
DRAWN = 0.25  # um per pixel
SCANNERS = {"01": ("Aperio", 0.2456), "02": ("Hamamatsu", 0.2273)}  # by field: each patient was scanned with both
TESTED = ("01_01", "01_02")


def scan(raw: Path, data: Path) -> None:
    """Show every field with the pixels of its scanner."""
    rows = ["file,microns_per_pixel,domain"]
    for path in sorted(raw.glob("*.jpg")):
        drawn = read_image(path)
        domain, microns = SCANNERS[path.stem.split("_")[1]]
        scanned = resize(drawn, DRAWN / microns)
        image = data / f"{path.stem}.png"
        image.write_bytes(encode_image(scanned, ".png"))
        if (table := path.with_suffix(".csv")).exists():
            centres = np.loadtxt(table, delimiter=",", ndmin=2)
            write_centres(image.with_suffix(".csv"), rescale(centres, drawn.shape, scanned.shape))
        rows.append(f"{image.name},{microns},{domain}")
    (data / "fields.csv").write_text("\n".join(rows))


@pytest.fixture(scope="module")
def _scanned(raw: Path, _store_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scanned")
    (folder / "data").mkdir()
    scan(raw, folder / "data")
    with in_project(folder, _store_folder):
        write_params(tiny_params())
        split()
        extract()
        for stage in (search, weights, train, detector):
            stage(NETWORK)
        replace(Detector.load(OUTPUTS.detector), threshold=0.4).save(OUTPUTS.detector)  # its own finds hardly anything
        evaluate(NETWORK)
    return folder


@pytest.fixture
def facts(_scanned: Path) -> Iterator[dict[str, Any]]:
    """The working directory: the set after all stages, only to be read. Returns what `extract` knows of each field."""
    with contextlib.chdir(_scanned):
        yield read_summary(PATCHES)["fields"]


def test_a_field_has_the_area_and_the_candidates_of_its_tissue(facts):
    index = read_index(PATCHES)
    found = index[index.source == "candidate"].groupby(index.patient + "_" + index.field).size()
    for name, fact in facts.items():
        assert (fact["domain"], fact["microns_per_pixel"]) == SCANNERS[name.split("_")[1]]
        assert fact["area_mm2"] == pytest.approx(fact["height"] * fact["width"] * fact["microns_per_pixel"] ** 2 / 1e6)
        assert fact["area_mm2"] == pytest.approx(0.01, rel=0.002)
        assert found[name] == math.ceil(1500 * fact["area_mm2"])


def test_a_window_shows_the_same_tissue_from_either_scanner(facts, _extracted):
    index = read_index(PATCHES)
    for name in TESTED:
        mitoses = (index.source == "annotation") & (index.patient + "_" + index.field == name)
        drawn, scanned = (
            np.load(folder / PATCHES / f"{name}.npy")[index[mitoses].record].astype(int)
            for folder in (_extracted, Path())
        )
        assert np.abs(scanned - drawn).mean() < 4 < np.abs(scanned - np.roll(drawn, 2, axis=1)).mean()


def test_each_scanner_has_scores_of_its_own(facts):
    metrics = json.loads((OUTPUTS.evaluated / "metrics.json").read_text())["fields"]
    fields = pd.read_csv(OUTPUTS.evaluated / "fields.csv", dtype=str)
    assert (fields.patient + "_" + fields.field).tolist() == list(TESTED)
    assert list(metrics["domains"]) == fields.domain.tolist() == ["Aperio", "Hamamatsu"]
    for name, scores in zip(TESTED, metrics["domains"].values(), strict=True):
        assert scores["area_mm2"] == facts[name]["area_mm2"] and scores["mitoses"] > 0
        assert scores["detections_per_mm2"] == pytest.approx(scores["detections"] / facts[name]["area_mm2"])
    for count in ("mitoses", "detections", "tp", "fp", "fn", "area_mm2"):
        assert metrics[count] == pytest.approx(sum(scores[count] for scores in metrics["domains"].values()))


def test_the_detector_proposes_in_an_image_what_was_stored(facts):
    stored, made = StoredFields.read(PATCHES, OUTPUTS.split, "test"), Detector.load(OUTPUTS.detector)
    assert made.origin.microns_per_pixel == pytest.approx(0.23645)  # the median of both
    for number, name in enumerate(TESTED):
        points, windows, _ = made.propose(read_image(Path(f"data/{name}.png")), None, facts[name]["microns_per_pixel"])
        there = stored.candidates[stored.field == number].sort_values(["row", "col"])
        order = np.lexsort((points[:, 1], points[:, 0]))
        np.testing.assert_allclose(points[order], there[["row", "col"]], atol=0.006)
        np.testing.assert_array_equal(windows.read(order), stored.windows.read(there.index.to_numpy()))
