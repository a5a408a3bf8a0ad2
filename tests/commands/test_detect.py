"""Detection in any field: the same as evaluation's, in files that other tools open."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import cv2
import mlflow
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from mitoscope.cli import app
from mitoscope.commands.detect import detect
from mitoscope.detection import detector as field_detection
from mitoscope.detection.field_head import fit_head
from mitoscope.errors import InputError
from mitoscope.learning.checkpoints import load, save
from mitoscope.learning.devices import Place
from mitoscope.learning.networks import build, start_state
from mitoscope.learning.scoring import pool_patches
from mitoscope.serving import pyfunc as serving
from mitoscope.stages.evaluate import evaluate
from mitoscope.stages.subsets import read_samples
from tests.conftest import NETWORK

MODEL = f"models/{NETWORK}/best.pt"
OUT = Path("out")


def found(name: str) -> pd.DataFrame:
    return pd.read_csv(OUT / f"{name}_mitoses.csv")


def run(*images: Path, model: str = MODEL, microns: float | None = None) -> int:
    return detect(images, model=model, out=OUT, microns_per_pixel=microns)


def refit(here: Place) -> None:
    """Put a network with a head of whole fields, fitted to the training patches, in place of the trained one."""
    description = {"arch": "alexnet", "head": "pooled", "patch_size": 32, "input_size": 64}
    network = build(description, start_state("alexnet", None, seed=0, head="pooled")[0])
    training, _ = read_samples("train")
    head = fit_head(pool_patches(network, training, here, views=16), training.store, training.labels)
    content = load(Path(MODEL)) | description | {"state": network.network.state_dict(), "field_head": asdict(head)}
    content["fields"] |= {"refit_fields": True, "views": 16}
    save(Path(MODEL), content)


@pytest.mark.parametrize("refitted", [False, True])
def test_detection_finds_what_evaluation_found(trained, refitted, here, monkeypatch):
    monkeypatch.setattr(field_detection, "_AT_ONCE", 7)  # of 15 candidates: a part is not the field
    if refitted:
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


@pytest.mark.parametrize("shape", [(1, 1), (9, 31), (20, 300), (333, 211)])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
def test_a_field_may_have_any_size(trained, shape, suffix):
    path = Path(f"any{suffix}")
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8))
    assert run(path) == 0
    places = found("any")
    assert (places.row.between(-1, shape[0]) & places.col.between(-1, shape[1])).all()
    assert pd.read_csv(OUT / "summary.csv").mitoses.tolist() == [len(places)] * 2


@pytest.mark.parametrize("colour", [0, 128, 255])
def test_a_field_of_one_colour_has_no_mitosis(trained, colour):
    cv2.imwrite("flat.png", np.full((200, 200, 3), colour, np.uint8))
    assert run(Path("flat.png")) == 0
    assert found("flat").empty


def test_an_enlarged_field_gives_the_same_places(trained):
    """At 0.125 um a pixel the field has four times the pixels and shows the same tissue."""
    image = cv2.imread("data/01_01.jpg")
    cv2.imwrite("large.png", cv2.resize(image, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST))
    cv2.imwrite("plain.png", image)
    run(Path("large.png"), microns=0.125)
    area = pd.read_csv(OUT / "summary.csv").area_mm2[0]
    run(Path("plain.png"))
    assert area == pd.read_csv(OUT / "summary.csv").area_mm2[0]
    large, plain = found("large"), found("plain")
    assert len(large) == len(plain) > 0
    np.testing.assert_allclose(large[["row", "col"]], plain[["row", "col"]] * 2 + 0.5, atol=0.02)


def test_what_is_no_field_is_reported_and_the_others_are_done(trained, capsys):
    Path("notes.tif").write_text("no image")
    Path("short.jpg").write_bytes(Path("data/01_01.jpg").read_bytes()[:2000])
    images = [Path("notes.tif"), Path("data/01_01.jpg"), Path("short.jpg"), Path("absent.png")]
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
    assert "its files in --out are of an earlier call" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("out", ["notes.txt", "notes.txt/detected"])
def test_what_is_no_folder_is_refused_before_any_work(trained, out):
    Path("notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"--out .*: notes\.txt is a file, not a folder"):
        detect([Path("data/01_01.jpg")], model=MODEL, out=Path(out), microns_per_pixel=None)
    assert Path("notes.txt").read_text() == "mine"


def test_a_name_is_shown_as_it_is(trained, capsys):
    shutil.copy("data/01_01.jpg", "[bold] 1.jpg")
    assert run(Path("[bold] 1.jpg")) == 0
    assert "[bold] 1" in capsys.readouterr().out


def test_a_mask_beside_the_field_holds_the_candidates(trained):
    run(Path("data/01_01.jpg"))
    everywhere = found("01_01")
    mask = np.zeros((400, 400), np.uint8)
    mask[:200] = 255
    cv2.imwrite("data/01_01_cmask.png", mask)
    run(Path("data/01_01.jpg"))
    upper = found("01_01")
    assert 0 < len(upper) < len(everywhere) and (upper.row < 200).all()


def test_what_was_found_says_by_which_model(trained, capsys):
    run(Path("data/01_01.jpg"))
    evidence = json.loads((OUT / "model.json").read_text())
    assert (evidence["model"], evidence["threshold"], evidence["microns_per_pixel"]) == (MODEL, 0.4, 0.25)
    said = capsys.readouterr().out
    assert "threshold 0.400" in said and "0.25 um per pixel" in said and "trained on synthetic data" in said


def test_pixels_far_from_the_models_are_refused(trained):
    with pytest.raises(InputError, match=r"--microns-per-pixel 1\.5: the model knows 0\.25 um"):
        run(Path("data/01_01.jpg"), microns=1.5)


def test_looking_for_a_run_where_there_is_no_store_makes_none(trained, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with pytest.raises(InputError, match=r"there is no MLflow store .*mlflow\.db; run this in the project's folder"):
        run(Path("data/01_01.jpg"), model="runs:/0123/best")
    assert not Path("mlflow.db").exists()


def test_a_logged_model_is_found_by_its_run(trained, mlflow_store):
    with mlflow.start_run(trained):
        info = mlflow.pyfunc.log_model(
            name="best",
            python_model=serving.__file__,
            artifacts={"network": MODEL},
            pip_requirements=[],
        )
    run(Path("data/01_01.jpg"))
    expected = found("01_01")
    mlflow.register_model(info.model_uri, "mitoscope-detect-test")
    client = mlflow.MlflowClient()
    client.set_registered_model_alias("mitoscope-detect-test", "champion", "1")
    for model in (f"runs:/{trained}/best", f"models:/{info.model_id}", "models:/mitoscope-detect-test@champion"):
        assert run(Path("data/01_01.jpg"), model=model) == 0
        pd.testing.assert_frame_equal(found("01_01"), expected)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("absent.pt", r"absent\.pt: no such model file; give a file"),
        ("runs:/0123456789abcdef/best", r"runs:/0123456789abcdef/best: no such model in the MLflow store"),
        ("runs:/0123456789abcdef", r"runs:/0123456789abcdef: names a run, not its model; add /best"),
        ("models:/nothing@champion", r"models:/nothing@champion: no such model in the MLflow store"),
        ("data/01_01.jpg", r"01_01\.jpg: is no checkpoint"),
    ],
)
def test_a_model_that_is_not_there_is_named(trained, model, message):
    with pytest.raises(InputError, match=message):
        run(Path("data/01_01.jpg"), model=model)
    assert not OUT.exists()


def test_a_model_without_settings_for_fields_is_refused(trained):
    content = load(Path(MODEL))
    del content["fields"]
    save(Path("old.pt"), content)
    with pytest.raises(InputError, match=r"old\.pt: .* train it again with `dvc repro`"):
        run(Path("data/01_01.jpg"), model="old.pt")


def test_a_model_from_before_there_was_a_choice_of_heads_and_views_detects_as_it_did(trained):
    content = load(Path(MODEL))
    content["fields"]["views"] = 1
    save(Path("new.pt"), content)
    del content["fields"]["views"], content["head"]
    save(Path("old.pt"), content)
    found = []
    for model in ("new.pt", "old.pt"):
        run(Path("data/01_01.jpg"), model=model)
        found.append((OUT / "01_01_mitoses.csv").read_text())
    assert found[0] == found[1] and found[0].count("\n") > 1


def test_two_images_of_one_name_are_refused(trained):
    with pytest.raises(InputError, match=r"elsewhere/01_01\.png: data/01_01\.jpg has the same name"):
        run(Path("data/01_01.jpg"), Path("elsewhere/01_01.png"))
    assert not OUT.exists()
