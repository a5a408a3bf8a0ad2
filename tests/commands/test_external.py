"""The external test: the stage's scores of whole fields, on any labelled folder, of patients nobody has seen."""

import json
import shutil
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from mitoscope import __version__
from mitoscope.cli import app
from mitoscope.commands.external import evaluate_folder
from mitoscope.datasets.conflicts import hash_pixels
from mitoscope.datasets.readers import read_image
from mitoscope.detection.detector import Detector
from mitoscope.errors import InputError
from mitoscope.params import Evaluate
from mitoscope.paths import Outputs
from tests.conftest import NETWORK, Params, small_detector

DATA, MODEL, OUT = Path("theirs"), Path("detector.pt"), Path("out")
FILES = {"objects.csv", "fields.csv", "froc.csv", "fields.png", "errors.png", "overlays"}
FILES |= {"metrics.json", "intervals.json", "test.json"}


@pytest.fixture
def theirs(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working directory: the fields of patients 01 and 02 in a folder, and a detector of chance; no project."""
    monkeypatch.chdir(tmp_path)
    DATA.mkdir()
    for path in [*raw.glob("01_*"), *raw.glob("02_*"), raw / "dataset.yaml"]:
        shutil.copy(path, DATA)
    small_detector().save(MODEL)


def run(data: Path = DATA, model: Path = MODEL, out: Path = OUT) -> None:
    evaluate_folder(data, model=str(model), out=out, settings=Evaluate(bootstrap=100))


def read(name: str) -> Params:
    content: Params = json.loads((OUT / f"{name}.json").read_text())
    return content


def scores() -> Params:
    fields: Params = read("metrics")["fields"]
    return fields


def table(name: str, out: Path = OUT) -> pd.DataFrame:
    return pd.read_csv(out / f"{name}.csv", dtype={"patient": str, "field": str})


def know(**origin: object) -> None:
    """Give the detector an origin that knows something."""
    detector = Detector.load(MODEL)
    replace(detector, origin=replace(detector.origin, **origin)).save(MODEL)


def refuse(match: str) -> None:
    """Test; nothing may come of it, and the reason is one line."""

    def everything() -> dict[Path, bytes]:
        return {path: path.read_bytes() if path.is_file() else b"" for path in Path().rglob("*")}

    before = everything()
    with pytest.raises(InputError, match=match) as caught:
        run()
    assert "\n" not in str(caught.value)
    assert everything() == before


@pytest.mark.slow
def test_the_test_patients_of_a_project_get_the_scores_of_the_stage(evaluated_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    DATA.mkdir()
    for path in [*(evaluated_folder / "data").glob("01_*"), evaluated_folder / "data/dataset.yaml"]:
        shutil.copy(path, DATA)
    run(model=evaluated_folder / Outputs(NETWORK).detector)
    stage = evaluated_folder / Outputs(NETWORK).evaluated
    for name in ("metrics", "intervals"):
        assert read(name) == {"fields": json.loads((stage / f"{name}.json").read_text())["fields"]}
    for name in ("objects", "fields", "froc"):
        pd.testing.assert_frame_equal(table(name), table(name, stage))
    tested = json.loads((stage / "test_set.json").read_text())
    assert read("test")["test_set"]["digest"] == tested["digest"]
    assert {path.name for path in OUT.iterdir()} == FILES
    for picture in ("errors.png", "overlays/01_01.jpg", "overlays/01_02.jpg"):
        assert (OUT / picture).read_bytes() == (stage / picture).read_bytes()


@pytest.mark.slow
def test_the_table_is_that_of_compare_and_the_evidence_says_what_was_done(theirs, capsys):
    run()
    shown = " ".join(capsys.readouterr().out.split())
    assert "Whole fields of the test patients, synthetic data: mitoses found within 7.5 um" in shown
    found = scores()
    assert f"{NETWORK} {found['mitoses']} in 4 fields {100 * found['precision']:.1f}" in shown
    counts = f"{found['tp']} found, {found['fp']} false, {found['fn']} missed. All results are in out"
    assert f"Mitoses: {found['mitoses']} in 4 fields of 2 patients; {counts}" in shown
    assert "The threshold, 0.400, is that of the detector, which was trained on synthetic data." in shown
    assert set(read("intervals")["fields"]) >= {"precision", "recall", "f1", "ap"}

    evidence, detector = read("test"), Detector.load(MODEL)
    assert evidence["version"] == __version__
    options = {"data": "theirs", "detector": "detector.pt", "out": "out", "bootstrap": 100, "seed": 0}
    assert evidence["options"] == options
    assert evidence["detector_sha256"] == sha256(MODEL.read_bytes()).hexdigest()
    assert evidence["origin"]["run_id"] == detector.origin.run_id and evidence["threshold"] == found["threshold"] == 0.4
    assert evidence["test_set"]["patients"] == ["01", "02"]
    assert evidence["pixel_sizes"]["01_01"] == {"microns": 0.25, "source": "dataset.yaml"}


# What the detector knows is no test.


@pytest.mark.parametrize("name", ["02_01", "09_09"])
def test_an_image_that_the_detector_knows_is_rejected_under_any_name(theirs, name):
    known = DATA / f"{name}.png"  # stored anew, without loss
    image = read_image(DATA / "02_01.jpg")
    for path in DATA.glob("02_01.*"):
        path.unlink()
    cv2.imwrite(str(known), image[..., ::-1])
    know(images=[hash_pixels(image)])
    patient = name[:2]
    refuse(
        rf"theirs: detector\.pt has learnt from patient {patient}, or its threshold was chosen there; leave them out"
    )


@pytest.mark.slow
def test_patients_are_known_by_name_in_the_same_dataset_only(theirs):
    know(patients={"train": ["01"], "validation": ["02"]}, dataset_digest="1" * 32 + ".dir")
    run()  # their 01 and 02 are other people
    shutil.rmtree(OUT)
    Path("theirs.dvc").write_text(f"outs: [{{md5: {'1' * 32}.dir, path: theirs}}]\n")
    refuse(r"theirs: detector\.pt has learnt from patients 01, 02, or its threshold was chosen there")


# What a folder may hold.


@pytest.mark.slow
def test_every_field_has_its_own_pixel_size_and_domain(theirs):
    run()
    plain, objects = scores(), table("objects")
    for name in ("01_01", "01_02"):  # the same tissue by a scanner with pixels of half the size
        path = DATA / f"{name}.jpg"
        image = cv2.imread(str(path))
        cv2.imwrite(str(path.with_suffix(".png")), cv2.resize(image, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST))
        path.unlink()
        centres = pd.read_csv(path.with_suffix(".csv"), header=None)
        (centres * 2 + 0.5).to_csv(path.with_suffix(".csv"), header=False, index=False)
    lines = [f"{name}.png,0.125,fine" for name in ("01_01", "01_02")] + [
        f"02_0{field}.jpg,0.25,plain" for field in "12"
    ]
    (DATA / "fields.csv").write_text("\n".join(["file,microns_per_pixel,domain", *lines]) + "\n")
    run()
    finer = scores()
    assert finer["area_mm2"] == pytest.approx(plain["area_mm2"]) and finer["mitoses"] == plain["mitoses"]
    # Means of 16 pixels are rounded a little differently from means of 4, so some scores differ in the third digit.
    assert finer["f1"] == pytest.approx(plain["f1"], abs=0.05)
    fine, coarse = (
        frame[frame.patient == "01"].sort_values(["field", "row", "col"]) for frame in (table("objects"), objects)
    )
    assert fine.label.sum() == coarse.label.sum() > 0
    assert set(finer["domains"]) == {"fine", "plain"} == set(read("intervals")["fields"]["domains"])
    assert read("test")["pixel_sizes"]["01_02"] == {"microns": 0.125, "source": "fields.csv"}


@pytest.mark.slow
def test_a_mask_holds_the_candidates(theirs):
    mask = np.zeros((400, 400), np.uint8)
    mask[:200] = 255
    for name in ("01_01", "01_02", "02_01", "02_02"):
        cv2.imwrite(str(DATA / f"{name}_cmask.png"), mask)
    run()
    objects = table("objects")
    assert (objects.row[objects.probability > 0] < 200).all()


def test_a_folder_without_mitoses_has_false_positives_only(theirs, capsys):
    for path in DATA.glob("*.csv"):
        path.unlink()
    run()
    found = scores()
    assert found["mitoses"] == found["tp"] == 0 < found["fp"] == found["detections"]
    assert not {"recall", "f1", "ap", "reachable"} & set(found) and read("intervals")["fields"] == {"domains": {}}
    assert found["detections_per_mm2"] == pytest.approx(found["fp"] / 0.04)
    assert "There are no mitoses, so recall, F1 and intervals are undefined." in capsys.readouterr().out


@pytest.mark.slow
def test_a_folder_with_nothing_to_find_has_no_objects(theirs):
    for path in DATA.glob("*_*"):
        path.unlink()
    cv2.imwrite(str(DATA / "01_01.png"), np.full((200, 200, 3), 255, np.uint8))
    run()
    assert scores()["detections"] == 0 and table("objects").empty and table("froc").empty


@pytest.mark.slow
def test_one_patient_has_scores_without_intervals(theirs, capsys):
    for path in DATA.glob("02_*"):
        path.unlink()
    run()
    assert {"recall", "f1", "ap"} < set(scores()) and read("intervals")["fields"] == {"domains": {}}
    assert "One patient gives no intervals." in capsys.readouterr().out


@pytest.mark.slow
def test_a_pixel_size_that_nothing_gives_is_said(theirs, capsys):
    (DATA / "dataset.yaml").unlink()
    run()
    said = " ".join(capsys.readouterr().out.split())
    assert "nothing gives the pixel size of the fields; 0.25 um is assumed. Write microns_per_pixel into" in said
    assert "Whole fields of the test patients, theirs data" in said


def test_a_bad_file_is_named(theirs):
    (DATA / "02_01.jpg").write_bytes((DATA / "02_01.jpg").read_bytes()[:2000])
    refuse(r"theirs/02_01\.jpg: ")
    (DATA / "02_01.jpg").unlink()
    (DATA / "02_02.csv").write_text("here\n")
    refuse(r"theirs/02_02\.csv: row 1: 'here' is not two numbers")


def test_pixels_far_from_the_detectors_are_rejected(theirs):
    (DATA / "dataset.yaml").write_text("microns_per_pixel: 1.5\n")
    refuse(r"theirs/01_01\.jpg: 1\.5 um per pixel: the detector was trained at 0\.25 um .*\(dataset\.yaml gives it\)")


def test_an_image_of_two_patients_is_rejected(theirs):
    shutil.copy(DATA / "01_01.jpg", DATA / "03_01.jpg")
    refuse(r"theirs/03_01\.jpg: has the pixels of 01_01\.jpg, which is of another patient")


# The output folder.


@pytest.mark.slow
def test_an_earlier_test_is_replaced_as_a_whole(theirs):
    run()
    (OUT / "notes.txt").write_text("mine")
    before = scores()
    for path in DATA.glob("02_*"):
        path.unlink()
    run()
    assert scores() != before and {path.name for path in OUT.iterdir()} == FILES
    assert sorted(path.name for path in (OUT / "overlays").iterdir()) == ["01_01.jpg", "01_02.jpg"]


@pytest.mark.slow
def test_an_earlier_test_stays_when_the_next_one_is_rejected(theirs):
    run()
    know(images=[hash_pixels(read_image(DATA / "01_01.jpg"))])
    refuse("has learnt from patient 01")


@pytest.mark.parametrize("name", ["notes.txt", "test.json"])
def test_a_folder_of_something_else_stays(theirs, name):
    OUT.mkdir()
    (OUT / name).write_text("{}")
    refuse(
        {"notes.txt": r"--out out: has files, but no test\.json", "test.json": r"out/test\.json: is no file of"}[name]
    )


@pytest.mark.parametrize("out", [DATA, DATA / "out", Path()])
def test_the_folder_of_the_fields_is_no_output_folder(theirs, out):
    with pytest.raises(InputError, match="lies in the folder of the fields, or around it"):
        run(out=out)


# The command line.


@pytest.mark.slow
def test_it_is_a_form_of_evaluate_that_needs_no_project(theirs):
    arguments = ["evaluate", "--data", str(DATA), "--detector", str(MODEL), "--out", str(OUT), "--bootstrap", "200"]
    assert CliRunner().invoke(app, [*arguments, "--seed", "3"]).exit_code == 0
    options = read("test")["options"]
    assert (options["bootstrap"], options["seed"]) == (200, 3)


@pytest.mark.parametrize(
    "arguments",
    ["", "--data x --detector y", "--out x --fold 0 --data x --detector y", "small --data x", "small --seed 1"],
)
def test_the_two_forms_exclude_each_other(arguments):
    error = CliRunner().invoke(app, ["evaluate", *arguments.split()]).exception
    assert isinstance(error, InputError) and str(error).startswith("evaluate: give NETWORK [--fold K] in a project, or")
