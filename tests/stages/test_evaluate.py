"""The scores are those of the predictions that are written, and what a detector knows is no test."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn.metrics import f1_score

from mitoscope.datasets.patches import read_patients, read_summary
from mitoscope.detection.detector import Detector
from mitoscope.detection.stored import StoredFields
from mitoscope.errors import InputError
from mitoscope.files import write_json
from mitoscope.paths import DATA, PATCHES, Outputs
from mitoscope.stages.evaluate import evaluate
from mitoscope.stages.extract import extract
from mitoscope.stages.split import split
from mitoscope.tracking.provenance import dataset_digest
from tests.conftest import NETWORK, Params, small_detector, tiny_params, write_params
from tests.stages.conftest import in_project

pytestmark = pytest.mark.slow

OUTPUTS = Outputs(NETWORK)
OUT = OUTPUTS.evaluated
THRESHOLD = 0.4  # a network this young finds hardly anything at its own


def read(path: Path) -> Params:
    content: Params = json.loads(path.read_text())
    return content


def table(name: str, out: Path = OUT) -> pd.DataFrame:
    return pd.read_csv(out / f"{name}.csv", dtype={"patient": str, "field": str})


def patients_tested() -> pd.DataFrame:
    rows = pd.read_csv(OUTPUTS.split, dtype={"patient": str})
    return rows[rows.subset == "test"]


@pytest.fixture(scope="module")
def _evaluated(_detected: Path, _store_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluated")
    shutil.copytree(_detected, folder, dirs_exist_ok=True)
    with in_project(folder, _store_folder):
        replace(Detector.load(OUTPUTS.detector), threshold=THRESHOLD).save(OUTPUTS.detector)
        evaluate(NETWORK)
    return folder


@pytest.fixture
def evaluated(_evaluated: Path, mlflow_store: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The working directory: the small project after all stages, only to be read. Returns the id of its run."""
    monkeypatch.chdir(_evaluated)
    run_id: str = read(OUTPUTS.trained)["run_id"]
    return run_id


# What the stage writes and logs.


def test_the_stage_writes_and_logs_one_set_of_scores(evaluated, mlflow_store):
    predictions, metrics = table("predictions"), read(OUT / "metrics.json")["patches"]
    assert set(predictions.patient) == set(patients_tested().patient) and set(predictions.network) == {NETWORK}
    assert predictions.name.is_unique and predictions.name.str.startswith(predictions.patient.iloc[0] + "_").all()
    assert (predictions.name.str.contains("_class1_") == (predictions.label == 1)).all()
    assert predictions.probability.between(0, 1).all() and predictions.probability.nunique() > 1

    # One truth: metrics, predictions and confusion agree, and so does the run.
    assert metrics["threshold"] == read(OUTPUTS.trained)["threshold"]
    assert (predictions.predicted == (predictions.probability >= metrics["threshold"])).all()
    assert metrics["f1"] == pytest.approx(f1_score(predictions.label, predictions.predicted, zero_division=0))
    assert (metrics["mitoses"], metrics["negatives"]) == (predictions.label.sum(), (predictions.label == 0).sum())
    confusion = table("confusion")
    words = np.array(["negative", "mitosis"])
    assert (confusion.actual == words[predictions.label]).all()
    assert (confusion.predicted == words[predictions.predicted]).all()
    client = mlflow.MlflowClient(mlflow_store)
    run = client.get_run(evaluated)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["test/auc"] == round(metrics["auc"], 4)
    assert run.data.metrics["test_at_half/f1"] == round(metrics["at_half"]["f1"], 4)
    files = {item.path for item in client.list_artifacts(evaluated, "tables")}
    assert files == {f"tables/{name}.csv" for name in ("predictions", "objects", "fields")}
    assert cv2.imread(str(OUT / "patches.png")).shape[1] > 1000


def test_the_field_level_has_one_truth_too(evaluated, mlflow_store):
    objects, fields, metrics = table("objects"), table("fields"), read(OUT / "metrics.json")["fields"]
    tested = patients_tested()
    assert set(objects.patient) == set(fields.patient) == set(tested.patient)
    assert set(objects.network) == set(fields.network) == set(table("froc").network) == {NETWORK}
    assert len(fields) == tested.fields.sum() == metrics["fields"]
    assert objects.label.sum() == fields.mitoses.sum() == tested.mitoses.sum() == metrics["mitoses"]
    assert metrics["threshold"] == THRESHOLD and (objects.predicted == (objects.probability >= THRESHOLD)).all()
    for column in ("detections", "tp", "fp", "fn"):
        assert metrics[column] == fields[column].sum()
    assert metrics["tp"] + metrics["fp"] == metrics["detections"] > 0
    assert metrics["tp"] + metrics["fn"] == metrics["mitoses"]
    assert metrics["f1"] == pytest.approx(f1_score(objects.label, objects.predicted, zero_division=0))
    assert metrics["recall"] <= metrics["reachable"] <= 1
    assert metrics["area_mm2"] == pytest.approx(0.01 * len(fields))
    assert metrics["mitoses_per_mm2"] == pytest.approx(metrics["mitoses"] / metrics["area_mm2"])

    pictures = sorted(path.name for path in (OUT / "overlays").iterdir())
    assert pictures == [f"{row.patient}_{row.field}.jpg" for row in fields.itertuples()]
    assert cv2.imread(str(OUT / "overlays" / pictures[0])).shape[1] >= 400
    assert cv2.imread(str(OUT / "errors.png")) is not None
    client = mlflow.MlflowClient(mlflow_store)
    logged = client.get_run(evaluated).data.metrics
    assert logged["test_fields/f1"] == round(metrics["f1"], 4)
    model = {metric.key: metric.value for metric in mlflow.get_logged_model(read(OUTPUTS.detected)["model_id"]).metrics}
    assert model["test_fields/f1"] == round(metrics["f1"], 4)
    assert {Path(item.path).name for item in client.list_artifacts(evaluated, "pictures/overlays")} == set(pictures)
    learned = {"mined.png", f"{NETWORK}.png"}
    files = {Path(item.path).name for item in client.list_artifacts(evaluated, "pictures") if not item.is_dir}
    assert files - learned == {"patches.png", "fields.png", "errors.png"}


def test_the_scores_are_the_detectors(evaluated):
    """Those of `classify` and `score`, whatever else the stage writes."""
    detector, stored = Detector.load(OUTPUTS.detector), StoredFields.read(PATCHES, OUTPUTS.split, "test")
    objects = stored.objects(detector.score(stored.windows, stored.field), detector.detection.suppress_um)
    np.testing.assert_allclose(table("objects").probability, objects.probability, atol=1e-6)
    assert detector.detection.views == 2


def test_the_curves_end_where_they_must(evaluated):
    pr, roc = table("pr"), table("roc")
    assert list(pr) == ["network", "recall", "precision", "threshold"]
    assert list(roc) == ["network", "fpr", "tpr", "threshold"]
    assert pr.recall.iloc[0] == 1 and pr.recall.is_monotonic_decreasing
    assert roc[["fpr", "tpr"]].iloc[0].tolist() == [0, 0] and roc[["fpr", "tpr"]].iloc[-1].tolist() == [1, 1]


def test_the_test_set_is_described(evaluated):
    described, facts = read(OUT / "test_set.json"), read_summary(PATCHES)["fields"]
    assert {name: described[name] for name in ("run_id", "model_id")} == {
        name: read(OUTPUTS.detected)[name] for name in ("run_id", "model_id")
    }
    assert described["patients"] == ["01"] and described["fields"] == ["01_01", "01_02"]
    assert described["images"] == {"01": [facts[name]["pixels_sha256"] for name in described["fields"]]}
    assert described["dataset_digest"] == dataset_digest(DATA, read_summary(PATCHES)["digest"])
    assert len(described["digest"]) == 64


def test_a_threshold_near_one_counts_as_predicted(trained):
    """A saturated network's probabilities differ in the seventh digit only; rounding must not decide."""
    threshold = 0.99999975
    detector = small_detector(trained, patch_threshold=threshold)
    head = list(detector.model.parameters())[-1]
    head.data[:] = head.data.new_tensor([-100.0, 15.0])  # probabilities of 0.9999997 and so
    detector.save(OUTPUTS.detector)
    evaluate(NETWORK)
    predictions, metrics = table("predictions"), read(OUT / "metrics.json")["patches"]
    assert (predictions.predicted == (predictions.probability >= threshold)).all()
    assert predictions.probability.between(0.999999, 1, inclusive="neither").all()
    assert metrics["recall"] == pytest.approx(predictions.predicted[predictions.label == 1].mean())


def test_a_fold_reads_and_writes_its_own_folder_only(trained, capsys):
    split(fold=1)
    fold = Outputs(NETWORK, 1)
    for own, path in (
        (OUTPUTS.trained, fold.trained),
        (OUTPUTS.detected, fold.detected),
        (OUTPUTS.detector, fold.detector),
    ):
        path.parent.mkdir(parents=True)
        own.rename(path)  # so that the project's own are not read
    OUTPUTS.split.unlink()

    def others() -> dict[Path, bytes]:
        paths = (path for path in Path().rglob("*") if path.is_file() and not path.is_relative_to(fold.root))
        return {path: path.read_bytes() for path in paths if path.parts[0] != ".work"}

    before = others()
    capsys.readouterr()
    evaluate(NETWORK, fold=1)
    assert others() == before
    tested = read_patients(fold.split)["test"]
    assert tested == ["02"] == read(fold.evaluated / "test_set.json")["patients"]
    assert set(table("predictions", fold.evaluated).patient) == set(table("fields", fold.evaluated).patient) == {"02"}
    metrics = read(fold.evaluated / "metrics.json")["fields"]
    assert mlflow.get_run(trained).data.metrics["test_fields/f1"] == round(metrics["f1"], 4)
    assert f"{NETWORK}, test fields, synthetic data, 4 mitoses of 1 patient:" in capsys.readouterr().out


# What is refused, before anything is written or logged.


def refuse(match: str, run_id: str) -> None:
    """Evaluate; nothing may come of it."""

    def everything() -> tuple[dict[Path, bytes], dict[str, float]]:
        files = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
        return files, mlflow.get_run(run_id).data.metrics

    before = everything()
    with pytest.raises(InputError, match=match) as caught:
        evaluate(NETWORK)
    assert "\n" not in str(caught.value)
    assert everything() == before


@pytest.mark.parametrize(
    ("fold", "forgotten"),  # fold 1 tests the validation patient, fold 2 one of the training's
    [(1, {}), (1, {"images": []}), (2, {"images": []}), (2, {"patients": {"train": [], "validation": []}})],
    ids=["validation", "validation by name", "training by name", "training by pixels"],
)
def test_a_detector_that_knows_a_test_patient_is_rejected(detected, fold, forgotten):
    """By dataset and name, and by the pixels: each is enough."""
    detector = Detector.load(OUTPUTS.detector)
    replace(detector, origin=replace(detector.origin, **forgotten)).save(OUTPUTS.detector)
    write_params(tiny_params() | {"split": {"folds": 4, "fold": fold}})
    split()
    said = f"split.csv: patient 0{fold + 1} is tested, but models/{NETWORK}/detector.pt has learnt from this patient"
    refuse(f"{said}.*run `dvc repro evaluate@{NETWORK}`", detector.origin.run_id)


def test_a_known_patient_is_known_under_another_name_in_another_dataset(detected):
    origin = Detector.load(OUTPUTS.detector).origin
    for path in DATA.glob("02_*"):  # the validation patient
        path.rename(path.with_name(path.name.replace("02_", "09_")))
    description = DATA / "dataset.yaml"
    description.write_text(yaml.safe_dump(yaml.safe_load(description.read_text()) | {"name": "another"}))
    write_params(tiny_params() | {"split": {"folds": 4, "fold": 3}})
    extract()
    split()
    assert dataset_digest(DATA, read_summary(PATCHES)["digest"]) != origin.dataset_digest
    refuse(r"split\.csv: patient 09 is tested, but .*detector\.pt has learnt from this patient", origin.run_id)


@pytest.mark.parametrize("stage", ["train", "detector"])
def test_a_detector_of_another_training_is_rejected(detected, stage):
    path = {"train": OUTPUTS.trained, "detector": OUTPUTS.detected}[stage]
    report = read(path)
    run_id = report["run_id"]
    write_json(path, report | {"run_id": "0" * 32})
    said = rf"detector\.pt: is from run {run_id}, but {path} is from run {'0' * 32}; run `dvc repro detector@{NETWORK}`"
    refuse(said, run_id)


@pytest.mark.parametrize("missing", ["trained", "detected", "detector"])
def test_what_has_not_been_run_yet_is_named(detected, missing):
    run_id = read(OUTPUTS.trained)["run_id"]
    path: Path = getattr(OUTPUTS, missing)
    path.unlink()
    refuse(f"{path}: no such file; run `dvc repro detector@{NETWORK}` first", run_id)


def test_a_run_that_the_store_lacks_is_named(detected):
    run_id, lost = read(OUTPUTS.trained)["run_id"], "0" * 32
    detector = Detector.load(OUTPUTS.detector)
    replace(detector, origin=replace(detector.origin, run_id=lost)).save(OUTPUTS.detector)
    for path in (OUTPUTS.trained, OUTPUTS.detected):
        write_json(path, read(path) | {"run_id": lost})
    refuse(f"there is no run {lost}, in which the network was trained", run_id)
