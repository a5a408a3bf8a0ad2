"""Detection in any field: the same as evaluation's, in files that other tools open."""

import hashlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import mlflow
import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
from typer.testing import CliRunner

from mitoscope.cli import app
from mitoscope.commands.detect import detect
from mitoscope.detection.detector import Detector
from mitoscope.detection.field_head import FieldHead
from mitoscope.detection.stored import read_samples
from mitoscope.errors import InputError
from mitoscope.files import exclusive
from mitoscope.learning.checkpoints import save_network
from mitoscope.learning.devices import Device
from mitoscope.learning.networks import build
from mitoscope.learning.scoring import pool_patches
from mitoscope.params import Detection
from mitoscope.paths import PATCHES, Outputs
from mitoscope.serving import model as serving
from mitoscope.stages.evaluate import evaluate
from tests.conftest import NETWORK, small_detector
from tests.disks import full_disk

MODEL = f"models/{NETWORK}/detector.pt"
FIELD = Path("data/01_01.jpg")
OUT = Path("out")


@pytest.fixture(scope="module")
def _file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("detector") / "detector.pt"
    small_detector("the run").save(path)
    return path


@pytest.fixture
def ready(raw: Path, _file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working directory: one field and a detector of chance, as in a project, and no MLflow store."""
    monkeypatch.chdir(tmp_path)
    for source, target in ((raw / FIELD.name, FIELD), (_file, Path(MODEL))):
        target.parent.mkdir(parents=True)
        shutil.copy(source, target)


def found(name: str) -> pd.DataFrame:
    return pd.read_csv(OUT / f"{name}_mitoses.csv")


def run(*images: Path, model: str = MODEL, microns: float | None = None, **options: bool) -> int:
    return detect(images, model=model, out=OUT, microns_per_pixel=microns, **options)


def summary() -> pd.DataFrame:
    return pd.read_csv(OUT / "summary.csv").set_index("field")


def another_detector() -> str:
    """A detector with another threshold; returns its name."""
    replace(Detector.load(Path(MODEL)), threshold=0.9).save(Path("other.pt"))
    return "other.pt"


def write_tagged(path: Path, microns: float) -> None:
    """Write the field as a TIFF that says its pixel size."""
    pixels = cv2.cvtColor(cv2.imread(str(FIELD)), cv2.COLOR_BGR2RGB)
    per_cm = 1e4 / microns
    tifffile.imwrite(path, pixels, photometric="rgb", resolution=(per_cm, per_cm), resolutionunit="CENTIMETER")


def refit(here: Device) -> None:
    """Give the detector a head of whole fields, fitted to the training patches, and many views."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build({"backbone": NETWORK, "head": "pooled", "patch_size": 32, "input_size": 32})
    detection = Detection(views=8, refit_fields=True)
    training, _ = read_samples(PATCHES, Outputs(NETWORK).split, "train")
    features = pool_patches(model, training.windows, here)
    head = FieldHead.fit(features, training.windows.store, training.labels, detection.field_head)
    made = replace(Detector.load(Path(MODEL)), model=model, detection=detection, head=head, calibration=None)
    made.save(Path(MODEL))


@pytest.mark.parametrize("by_field_head", [True, False], ids=["field head, 8 views", "calibrated"])
def test_detection_finds_what_evaluation_found(trained, here, by_field_head):
    """With scores that depend on all candidates of a field."""
    if by_field_head:
        refit(here)
    assert (Detector.load(Path(MODEL)).calibration is None) == by_field_head
    evaluate(NETWORK)
    objects = pd.read_csv(f"results/evaluate/{NETWORK}/objects.csv", dtype={"patient": str, "field": str})
    fields = pd.read_csv(f"results/evaluate/{NETWORK}/fields.csv", dtype={"patient": str, "field": str})
    names = [f"{row.patient}_{row.field}" for row in fields.itertuples()]
    assert run(*(Path("data", f"{name}.jpg") for name in names)) == 0
    summary = pd.read_csv(OUT / "summary.csv").set_index("field")
    assert objects.predicted.sum() > 0
    for row, name in zip(fields.itertuples(), names, strict=True):
        expected = objects.query("patient == @row.patient and field == @row.field and predicted == 1")
        mine = found(name)
        np.testing.assert_allclose(mine[["row", "col"]], expected[["row", "col"]], atol=0.02)
        np.testing.assert_allclose(mine.probability, expected.probability, atol=1e-5)
        points = json.loads((OUT / f"{name}_mitoses.geojson").read_text())["features"]
        assert len(points) == len(mine) == summary.mitoses[name] == row.detections
        assert summary.per_2mm2[name] == pytest.approx(2 * row.detections / 0.01)
        assert cv2.imread(str(OUT / f"{name}_overlay.jpg")).shape[1] >= 400
    assert summary.mitoses["all"] == fields.detections.sum()


def test_a_field_may_have_any_size_and_format(ready):
    shapes = {"pixel": (1, 1), "strip": (9, 31), "wide": (20, 300), "odd": (333, 211)}
    rng = np.random.default_rng(0)
    paths = {
        f"{name}{suffix[1:]}": Path(f"{name}{suffix[1:]}{suffix}")
        for name in shapes
        for suffix in (".png", ".tif", ".jpg")
    }
    for name, path in paths.items():
        cv2.imwrite(str(path), rng.integers(0, 256, (*shapes[name[:-3]], 3)).astype(np.uint8))
    assert run(*paths.values()) == 0
    summary = pd.read_csv(OUT / "summary.csv").set_index("field")
    for name in paths:
        rows, columns = shapes[name[:-3]]
        places = found(name)
        assert (places.row.between(-1, rows) & places.col.between(-1, columns)).all()
        assert (summary.height[name], summary.width[name], summary.mitoses[name]) == (rows, columns, len(places))
    assert summary.mitoses["all"] == summary.mitoses[:-1].sum() > 0


@pytest.mark.parametrize("colour", [0, 128, 255])
def test_a_field_of_one_colour_has_no_mitosis(ready, colour):
    cv2.imwrite("flat.png", np.full((200, 200, 3), colour, np.uint8))
    assert run(Path("flat.png")) == 0
    assert found("flat").empty


def test_an_enlarged_field_gives_the_same_places(ready):
    """At 0.125 um a pixel the field has four times the pixels and shows the same tissue."""
    image = cv2.imread("data/01_01.jpg")
    cv2.imwrite("large.png", cv2.resize(image, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST))
    cv2.imwrite("plain.png", image)
    run(Path("large.png"), microns=0.125)
    run(Path("plain.png"))
    areas = pd.read_csv(OUT / "summary.csv").set_index("field").area_mm2
    assert areas["large"] == areas["plain"]
    # Means of 16 pixels are rounded a little differently from means of 4, so scores this close may change places.
    large, plain = (found(name).sort_values(["row", "col"]) for name in ("large", "plain"))
    assert len(large) == len(plain) > 0
    np.testing.assert_allclose(large[["row", "col"]], plain[["row", "col"]] * 2 + 0.5, atol=0.02)


def test_what_is_no_field_is_reported_and_the_others_are_done(ready, capsys):
    Path("notes.tif").write_text("no image")
    Path("short.jpg").write_bytes(FIELD.read_bytes()[:2000])
    images = [Path("notes.tif"), FIELD, Path("short.jpg"), Path("absent.png")]
    assert run(*images) == 3
    said = capsys.readouterr().out
    for name in ("notes.tif", "short.jpg", "absent.png"):
        assert said.count(f"skipped: {name}") == 1
    assert {path.name for path in OUT.iterdir()} == {
        "01_01_mitoses.csv",
        "01_01_mitoses.geojson",
        "01_01_overlay.jpg",
        "summary.csv",
        "model.json",
    }
    arguments = ["detect", *map(str, images), "--model", MODEL, "--out", str(OUT)]
    assert CliRunner().invoke(app, arguments).exit_code == 1

    Path("01_01.png").write_text("no image")  # of the same name as one that was done before
    assert run(Path("01_01.png")) == 1
    assert "its files in --out are from an earlier call" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("out", ["notes.txt", "notes.txt/detected"])
def test_what_is_no_folder_is_rejected_before_any_work(ready, out):
    Path("notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"--out .*: notes\.txt is a file, not a folder"):
        detect([FIELD], model=MODEL, out=Path(out), microns_per_pixel=None)
    assert Path("notes.txt").read_text() == "mine"


def test_a_name_is_shown_as_it_is(ready, capsys):
    shutil.copy("data/01_01.jpg", "[bold] 1.jpg")
    assert run(Path("[bold] 1.jpg")) == 0
    assert "[bold] 1" in capsys.readouterr().out


def test_a_mask_beside_the_field_holds_the_candidates(ready, capsys):
    run(FIELD)
    everywhere = found("01_01")
    assert "candidates from the mask" not in capsys.readouterr().out
    mask = np.zeros((400, 400), np.uint8)
    mask[:200] = 255
    cv2.imwrite("data/01_01_cmask.png", mask)
    run(FIELD)
    upper = found("01_01")
    assert len(upper) and (upper.row < 200).all() and (everywhere.row >= 200).any()
    assert "data/01_01.jpg: candidates only from the mask next to it" in capsys.readouterr().out


def test_too_little_tissue_to_normalise_the_stain_is_said(ready, capsys):
    detector = Detector.load(Path(MODEL))
    settings = detector.extract.model_copy(update={"stain": "macenko"})
    replace(detector, extract=settings).save(Path("normalising.pt"))
    cv2.imwrite("white.png", np.full((120, 120, 3), 255, np.uint8))
    assert run(Path("white.png"), FIELD, model="normalising.pt") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert said.count("too little tissue for stain normalisation; left unchanged") == 1
    assert "white.png: too little tissue" in said


def test_what_was_found_says_by_which_model(ready, capsys):
    run(FIELD)
    evidence = json.loads((OUT / "model.json").read_text())
    assert (evidence["model"], evidence["threshold"]) == (MODEL, 0.4)
    assert evidence["detector_sha256"] == hashlib.sha256(Path(MODEL).read_bytes()).hexdigest()
    assert evidence["origin"]["run_id"] == "the run" and evidence["origin"]["network"] == NETWORK
    assert evidence["extract"]["patch_um"] == 16 and evidence["detection"]["views"] == 2
    said = capsys.readouterr().out
    assert "threshold 0.400" in said and "0.25 um per pixel" in said and "trained on synthetic data" in said


def test_the_pixel_size_of_the_images_is_used(ready):
    run(FIELD, microns=0.5)
    row = pd.read_csv(OUT / "summary.csv").iloc[0]
    assert (row.microns_per_pixel, row.pixel_size_from) == (0.5, "--microns-per-pixel")
    assert row.area_mm2 == pytest.approx(0.04)


def test_pixels_far_from_the_models_are_rejected(ready):
    with pytest.raises(InputError, match=r"1\.5 um per pixel: the detector was trained at 0\.25 um"):
        run(FIELD, microns=1.5)
    assert not OUT.exists()


def test_looking_for_a_run_where_there_is_no_store_makes_none(ready, no_mlflow_environment):
    with pytest.raises(InputError, match=r"there is no MLflow store .*mlflow\.db; run this in the project's folder"):
        run(FIELD, model="runs:/0123/detector")
    assert not Path("mlflow.db").exists()


def test_a_logged_detector_is_found_by_its_run(trained, mlflow_store):
    with mlflow.start_run(trained):
        info = mlflow.pyfunc.log_model(
            name="detector",
            python_model=serving.__file__,
            artifacts={"detector": MODEL},
            pip_requirements=[],
        )
    run(FIELD)
    expected = found("01_01")
    mlflow.register_model(info.model_uri, "mitoscope-detect-test")
    client = mlflow.MlflowClient()
    client.set_registered_model_alias("mitoscope-detect-test", "champion", "1")
    for model in (f"runs:/{trained}/detector", f"models:/{info.model_id}", "models:/mitoscope-detect-test@champion"):
        assert run(FIELD, model=model) == 0
        pd.testing.assert_frame_equal(found("01_01"), expected)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("absent.pt", r"absent\.pt: no such model file; give a file"),
        ("runs:/0123456789abcdef", r"runs:/0123456789abcdef: this is a run, not a model; add /detector"),
        ("data/01_01.jpg", r"01_01\.jpg: is truncated, or is not a checkpoint .*; give models/<network>/detector\.pt"),
    ],
)
def test_a_model_that_is_not_there_is_named(ready, model, message):
    with pytest.raises(InputError, match=message):
        run(FIELD, model=model)
    assert not OUT.exists()


def test_a_model_that_the_store_lacks_is_named(ready, mlflow_store):
    for model in ("runs:/0123456789abcdef/detector", "models:/nothing@champion"):
        with pytest.raises(InputError, match=f"{model}: no such model in the MLflow store"):
            run(FIELD, model=model)
    assert not OUT.exists()


def test_the_weights_of_a_training_are_rejected(ready):
    save_network(Path("best.pt"), Detector.load(Path(MODEL)).model, run_id="the run", threshold=0.5)
    with pytest.raises(InputError, match=r"best\.pt: contains weights, not a detector.*; give models/<network>"):
        run(FIELD, model="best.pt")
    assert not OUT.exists()


def test_two_images_of_one_name_are_rejected(ready):
    with pytest.raises(InputError, match=r"elsewhere/01_01\.png: data/01_01\.jpg has the same name"):
        run(FIELD, Path("elsewhere/01_01.png"))
    assert not OUT.exists()


def test_a_second_call_with_the_same_model_adds_to_the_summary(ready):
    shutil.copy(FIELD, "b.jpg")
    shutil.copy(FIELD, "c.jpg")
    run(FIELD, Path("b.jpg"), evaluator=True)
    before = summary()
    run(Path("c.jpg"), Path("b.jpg"), microns=0.5)
    after = summary()
    assert set(after.index) == {"01_01", "b", "c", "all"}
    assert after.mitoses["all"] == after.mitoses[:-1].sum()
    pd.testing.assert_series_equal(after.loc["01_01"], before.loc["01_01"])
    assert after.microns_per_pixel["b"] == 0.5 and len(found("b")) == after.mitoses["b"]


def test_a_call_without_the_evaluators_format_keeps_its_files_true(ready, capsys):
    run(FIELD, evaluator=True)
    before = (OUT / "01_01_mitoses.json").read_text()
    capsys.readouterr()
    run(FIELD, microns=0.5)
    said = "out: has 01_01_mitoses.json; this call writes such files too, as with --evaluator"
    assert capsys.readouterr().out.count(said) == 1
    points = json.loads((OUT / "01_01_mitoses.json").read_text())["points"]
    assert len(points) == len(found("01_01")) and points != json.loads(before)["points"]
    run(FIELD, replace=True)
    assert not (OUT / "01_01_mitoses.json").exists()


def test_results_of_another_model_are_not_mixed(ready):
    """One of the two would be described wrongly by model.json."""
    shutil.copy(FIELD, "b.jpg")
    other = another_detector()
    run(FIELD, Path("b.jpg"))
    before = {path.name: path.read_bytes() for path in OUT.iterdir()}
    with pytest.raises(
        InputError, match=rf"--out out: has results of another model, {MODEL}; use another --out, or re"
    ):
        run(FIELD, model=other)
    assert {path.name: path.read_bytes() for path in OUT.iterdir()} == before

    run(FIELD, model=other, replace=True)
    assert json.loads((OUT / "model.json").read_text())["model"] == other
    assert set(summary().index) == {"01_01", "all"} and not list(OUT.glob("b_*"))
    run(FIELD)  # nothing of the other model would stay
    assert json.loads((OUT / "model.json").read_text())["threshold"] == 0.4


def test_the_same_model_under_another_name_is_the_same(ready):
    shutil.copy(MODEL, "copy.pt")
    run(FIELD)
    shutil.copy(FIELD, "b.jpg")
    run(Path("b.jpg"), model="copy.pt")
    assert set(summary().index) == {"01_01", "b", "all"}


def test_a_summary_of_somebody_else_is_not_replaced(ready):
    OUT.mkdir()
    (OUT / "summary.csv").write_text("mine\n")
    with pytest.raises(InputError, match=r"summary\.csv: is no summary that this version of `mitoscope detect` wrote"):
        run(FIELD)
    assert (OUT / "summary.csv").read_text() == "mine\n"


def test_files_of_somebody_else_stay(ready):
    """Whatever their names, and with --replace too."""
    run(FIELD)
    theirs = {OUT / "survey_mitoses.csv": "mine", OUT / "survey_mitoses.geojson": "mine"}
    for path, content in theirs.items():
        path.write_text(content)
    run(FIELD, model=another_detector(), replace=True)
    assert {path: path.read_text() for path in theirs} == theirs
    (OUT / "summary.csv").write_text("mine\n")
    with pytest.raises(InputError, match=r"summary\.csv: is no summary .*; use another --out"):
        run(FIELD, replace=True)
    assert (OUT / "summary.csv").read_text() == "mine\n"


def test_a_corrected_geojson_is_not_replaced(ready, capsys):
    shutil.copy(FIELD, "b.jpg")
    run(FIELD, Path("b.jpg"))
    corrected = OUT / "01_01_mitoses.geojson"
    corrected.write_text('{"type": "FeatureCollection", "features": []}')
    before = corrected.read_bytes()
    capsys.readouterr()
    assert run(FIELD, Path("b.jpg")) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert f"skipped: {corrected}: is not as `mitoscope detect` wrote it" in said and "--replace" in said
    assert corrected.read_bytes() == before and set(summary().index) == {"01_01", "b", "all"}
    assert run(FIELD, replace=True) == 0
    assert corrected.read_bytes() != before


def test_two_calls_do_not_write_into_one_folder(ready):
    with (
        exclusive(OUT / ".detect.lock", ""),
        pytest.raises(InputError, match=r"out/\.detect\.lock: another `mitoscope"),
    ):
        run(FIELD)
    assert run(FIELD) == 0


def test_a_field_of_one_pixel_can_be_done_again(ready):
    cv2.imwrite("pixel.png", np.full((1, 1, 3), 128, np.uint8))
    for _ in range(2):
        assert run(Path("pixel.png")) == 0
    assert summary().area_mm2["pixel"] == pytest.approx(6.25e-8)


def test_a_folder_of_images_is_named_before_any_work(ready):
    with pytest.raises(InputError, match=r"^data: is a folder; give its images, such as data/\*\.tif$"):
        run(Path("data"), model="absent.pt")


def test_results_are_not_written_among_the_images(ready):
    with pytest.raises(InputError, match=r"--out data: is the folder of '01_01\.jpg'; choose another"):
        detect([FIELD], model=MODEL, out=Path("data"), microns_per_pixel=None)
    assert [path.name for path in Path("data").iterdir()] == ["01_01.jpg"]


def test_overlays_of_an_earlier_call_are_no_fields(ready, capsys):
    run(FIELD)
    overlay = OUT / "01_01_overlay.jpg"
    shutil.copy(FIELD, "mine_overlay.jpg")  # a field that is only named so
    assert detect([overlay, Path("mine_overlay.jpg")], model=MODEL, out=Path("b"), microns_per_pixel=None) == 0
    assert f"1 overlays of an earlier call left out, such as {overlay}" in capsys.readouterr().out
    assert (Path("b") / "mine_overlay_mitoses.csv").exists() and not list(Path("b").glob("01_01*"))
    with pytest.raises(InputError, match=r"1 overlays of an earlier call left out, .*; give the fields themselves"):
        detect([overlay], model=MODEL, out=Path("b"), microns_per_pixel=None)


def test_a_folder_that_cannot_be_written_to_is_named_before_any_work(ready, monkeypatch):
    def refuse(dir):
        raise PermissionError(13, "Permission denied", f"{dir}/tmp123")

    Path("readonly").mkdir()
    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(InputError, match=r"--out readonly/new: .*readonly cannot be written to \(Permission denied\)"):
        detect([FIELD], model="absent.pt", out=Path("readonly/new"), microns_per_pixel=None)


def test_ctrl_c_leaves_what_is_done_and_says_so(ready, monkeypatch, capsys):
    names = ["a", "b", "c"]
    for name in names:
        shutil.copy(FIELD, f"{name}.jpg")
    one = Detector.detect

    def detect_once(self, *arguments):
        monkeypatch.setattr(Detector, "detect", stop)
        return one(self, *arguments)

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Detector, "detect", detect_once)
    with pytest.raises(KeyboardInterrupt):
        run(*(Path(f"{name}.jpg") for name in names))
    said = " ".join(capsys.readouterr().out.split())
    assert (
        "stopped: 1 of 3 images are done, and are in out/summary.csv; the same command does all of them again" in said
    )
    assert set(summary().index) == {"a", "all"}
    assert json.loads((OUT / "model.json").read_text())["model"] == MODEL
    assert {path.name for path in OUT.glob("*_mitoses.csv")} == {"a_mitoses.csv"}
    monkeypatch.setattr(Detector, "detect", one)
    assert run(*(Path(f"{name}.jpg") for name in names)) == 0
    assert set(summary().index) == {*names, "all"}


def test_a_full_disk_leaves_what_is_done_and_names_the_folder(ready, monkeypatch, capsys):
    shutil.copy(FIELD, "b.jpg")
    run(FIELD)
    before = {path.name for path in OUT.iterdir()}
    with pytest.raises(OSError, match="File too large") as error, full_disk():
        run(Path("b.jpg"))
    assert error.value.filename == "out"
    assert "stopped: 0 of 1 images are done" in capsys.readouterr().out
    assert {path.name for path in OUT.iterdir()} - {".detect.lock"} == before
    assert set(summary().index) == {"01_01", "all"}


@pytest.mark.parametrize("shape", [(8, 66_000), (66_000, 8)])
def test_an_image_that_is_too_long_for_a_jpeg_has_a_png_overlay(ready, capsys, shape):
    cv2.imwrite("long.png", np.full((*shape, 3), 230, np.uint8))
    assert run(Path("long.png")) == 0
    assert {path.name for path in OUT.iterdir()} == {
        *("long_mitoses.csv", "long_mitoses.geojson", "long_overlay.png", "summary.csv", "model.json")
    }
    assert "too large for a JPEG; the overlay is long_overlay.png" in " ".join(capsys.readouterr().out.split())


def test_each_image_has_its_own_pixel_size(ready, capsys):
    """The order is fields.csv, the file, dataset.yaml; one line for each size and source."""
    folder = Path("set")
    (folder / "05").mkdir(parents=True)
    for name, microns in (("a", 0.25), ("b", 0.5), ("c", 0.5)):
        write_tagged(folder / f"{name}.tif", microns)
    for name in ("d", "e", "f", "05/g"):
        shutil.copy(FIELD, folder / f"{name}.jpg")
    (folder / "dataset.yaml").write_text("microns_per_pixel: 0.3\n")
    (folder / "fields.csv").write_text("file,patient,field,microns_per_pixel\nc.tif,1,1,0.4\n05/g.jpg,1,2,0.45\n")
    assert run(*sorted(folder.rglob("*.[jt]*"))) == 0
    rows = summary()
    assert rows.microns_per_pixel[:-1].to_dict() == {
        "a": 0.25,
        "b": 0.5,
        "c": 0.4,
        "d": 0.3,
        "e": 0.3,
        "f": 0.3,
        "g": 0.45,
    }
    assert rows.pixel_size_from[["b", "c", "d", "g"]].tolist() == ["file", "fields.csv", "dataset.yaml", "fields.csv"]
    assert rows.area_mm2["b"] == pytest.approx(4 * rows.area_mm2["a"])
    said = capsys.readouterr().out.splitlines()
    assert "pixel size 0.25 um, from the file: a" in said
    assert "pixel size 0.3 um, from dataset.yaml: d, e, f" in said
    assert (
        "warning: 2 of 7 images say another pixel size than dataset.yaml; theirs is used. a: 0.25 um in the file, "
        in (" ".join(said))
    )
    assert sum(line.startswith("pixel size") for line in said) == 5 and sum("warning" in line for line in said) == 2


def test_an_option_that_files_disagree_with_is_one_warning(ready, capsys):
    for name in "abc":
        write_tagged(Path(f"{name}.tif"), 0.5)
    write_tagged(Path("d.tif"), 0.255)
    run(*(Path(f"{name}.tif") for name in "abcd"), microns=0.25)
    said = capsys.readouterr().out
    assert said.count("warning") == 1
    assert (
        "3 of 4 images say another pixel size than --microns-per-pixel; the option's is used. a: 0.5 um in the" in said
    )
    assert "pixel size 0.25 um, from --microns-per-pixel: 4 images" in said


def test_an_image_with_pixels_far_from_the_models_is_skipped(ready, capsys):
    Path("dataset.yaml").write_text("microns_per_pixel: 1.5\n")
    shutil.copy(FIELD, "coarse.jpg")
    assert run(Path("coarse.jpg"), FIELD) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "skipped: coarse.jpg: 1.5 um per pixel: the detector was trained at 0.25 um" in said
    assert "(dataset.yaml gives it)" in said
    assert set(summary().index) == {"01_01", "all"}


def test_without_any_pixel_size_the_models_is_said(ready, capsys):
    run(FIELD)
    assert "nothing gives the pixel size of 01_01; the model's, 0.25 um, is assumed" in capsys.readouterr().out
    assert summary().pixel_size_from["01_01"] == "model"


def test_transparent_parts_have_no_candidates_and_no_area(ready, capsys):
    image = cv2.cvtColor(cv2.imread(str(FIELD)), cv2.COLOR_BGR2BGRA)
    image[:100, :, 3] = 0
    cv2.imwrite("part.png", image)
    image[..., 3] = 0
    cv2.imwrite("nothing.png", image)
    assert run(Path("part.png"), Path("nothing.png"), FIELD) == 1
    assert len(found("part")) and (found("part").row >= 100).all() and (found("01_01").row < 100).any()
    rows = summary()
    assert rows.area_mm2["part"] == pytest.approx(0.75 * rows.area_mm2["01_01"])
    said = " ".join(capsys.readouterr().out.split())
    assert "part.png: 25% of it is transparent; this part has no candidates and does not count as area" in said
    assert "skipped: nothing.png: is transparent everywhere" in said


def test_points_and_the_evaluators_format_are_options(ready):
    run(FIELD, points=True, evaluator=True, microns=0.5)
    geometries = [item["geometry"] for item in json.loads((OUT / "01_01_mitoses.geojson").read_text())["features"]]
    assert {geometry["type"] for geometry in geometries} == {"Point"}
    points = json.loads((OUT / "01_01_mitoses.json").read_text())["points"]
    mine = found("01_01")
    assert len(points) == len(mine) > 0
    np.testing.assert_allclose([point["point"][0] for point in points], mine.col * 0.0005, atol=1e-5)


def test_odd_files_do_not_stop_the_others(ready, monkeypatch):
    """A file without the right to read it, a pipe, names with a line break, and one that is no text."""
    shutil.copy(FIELD, "two\nlines.jpg")
    Path("notes\n.png").write_text("no image")
    os.mkfifo("pipe.png")
    raw = os.fsdecode(b"caf\xe9.jpg")
    shutil.copy(FIELD, raw)
    shutil.copy(FIELD, "secret.jpg")
    path_open, access = Path.open, os.access  # root may read everything

    def refuse(path, *arguments, **options):
        if path.name == "secret.jpg":
            raise PermissionError(13, "Permission denied", str(path))
        return path_open(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr(os, "access", lambda path, *rest: "secret" not in os.fsdecode(path) and access(path, *rest))
    images = ["two\nlines.jpg", "notes\n.png", "pipe.png", "secret.jpg", raw, str(FIELD)]
    done = CliRunner().invoke(app, ["detect", *images, "--model", MODEL, "--out", str(OUT)])
    assert done.exit_code == 1
    lines = done.output.splitlines()
    assert sum(line.startswith("skipped: ") for line in lines) == 3
    assert "skipped: secret.jpg: cannot be read (Permission denied)" in lines
    assert any(line.startswith(r"skipped: notes\n.png: is not an image") for line in lines)
    assert any(line.startswith("skipped: pipe.png: is a pipe") for line in lines)
    assert set(summary().index) == {r"two\nlines", r"caf\udce9", "01_01", "all"}
