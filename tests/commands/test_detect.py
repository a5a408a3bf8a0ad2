"""Detection in any field: the same as evaluation's, in files that other tools open."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from mitoscope.cli import app
from mitoscope.commands.detect import detect
from mitoscope.detection.detector import Detector
from mitoscope.detection.field_head import FieldHead
from mitoscope.detection.stored import read_samples
from mitoscope.errors import InputError
from mitoscope.learning.checkpoints import save_network
from mitoscope.learning.devices import Device
from mitoscope.learning.networks import build
from mitoscope.learning.scoring import pool_patches
from mitoscope.params import Detection
from mitoscope.paths import PATCHES, Outputs
from mitoscope.serving import model as serving
from mitoscope.stages.evaluate import evaluate
from tests.conftest import NETWORK, settle_batch_norms, small_detector

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


def run(*images: Path, model: str = MODEL, microns: float | None = None) -> int:
    return detect(images, model=model, out=OUT, microns_per_pixel=microns)


def refit(here: Device) -> None:
    """Give the detector a head of whole fields, fitted to the training patches, and many views."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build({"backbone": NETWORK, "head": "pooled", "patch_size": 32, "input_size": 32})
    settle_batch_norms(model)
    detection = Detection(views=16, refit_fields=True)
    training, _ = read_samples(PATCHES, Outputs(NETWORK).split, "train")
    features = pool_patches(model, training.windows, here)
    head = FieldHead.fit(features, training.windows.store, training.labels, detection.field_head)
    replace(Detector.load(Path(MODEL)), model=model, detection=detection, head=head).save(Path(MODEL))


def test_detection_finds_what_evaluation_found(trained, here):
    """With scores that depend on all candidates of a field, each turned in many ways and calibrated."""
    refit(here)
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
    area = pd.read_csv(OUT / "summary.csv").area_mm2[0]
    run(Path("plain.png"))
    assert area == pd.read_csv(OUT / "summary.csv").area_mm2[0]
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
def test_what_is_no_folder_is_refused_before_any_work(ready, out):
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
    assert (evidence["model"], evidence["threshold"], evidence["microns_per_pixel"]) == (MODEL, 0.4, 0.25)
    assert evidence["origin"]["run_id"] == "the run" and evidence["origin"]["network"] == NETWORK
    assert evidence["extract"]["patch_um"] == 16 and evidence["detection"]["views"] == 2
    said = capsys.readouterr().out
    assert "threshold 0.400" in said and "0.25 um per pixel" in said and "trained on synthetic data" in said


def test_the_pixel_size_of_the_images_is_used(ready):
    run(FIELD, microns=0.5)
    assert json.loads((OUT / "model.json").read_text())["microns_per_pixel"] == 0.5
    assert pd.read_csv(OUT / "summary.csv").area_mm2[0] == pytest.approx(0.04)


def test_pixels_far_from_the_models_are_refused(ready):
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


def test_the_weights_of_a_training_are_refused(ready):
    save_network(Path("best.pt"), Detector.load(Path(MODEL)).model, run_id="the run", threshold=0.5)
    with pytest.raises(InputError, match=r"best\.pt: contains weights, not a detector .*; give models/<network>"):
        run(FIELD, model="best.pt")
    assert not OUT.exists()


def test_two_images_of_one_name_are_refused(ready):
    with pytest.raises(InputError, match=r"elsewhere/01_01\.png: data/01_01\.jpg has the same name"):
        run(FIELD, Path("elsewhere/01_01.png"))
    assert not OUT.exists()
