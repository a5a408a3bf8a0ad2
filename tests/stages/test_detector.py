"""A detector is made of trained weights alone: other settings of detection train nothing."""

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow.entities import LoggedModel

from mitoscope.datasets.patches import read_index, read_patients, read_summary
from mitoscope.detection import fit
from mitoscope.detection.calibration import Calibration
from mitoscope.detection.detector import Detector
from mitoscope.detection.fit import fit_detector
from mitoscope.detection.stored import StoredFields, read_samples
from mitoscope.errors import InputError
from mitoscope.evaluation.metrics import best_threshold, scores
from mitoscope.files import write_json
from mitoscope.learning.checkpoints import save_network
from mitoscope.learning.networks import build
from mitoscope.params import Detection
from mitoscope.paths import DATA, PATCHES, WORK, Outputs
from mitoscope.stages.detector import detector
from mitoscope.stages.split import split
from mitoscope.tracking.models import detector_file
from mitoscope.tracking.provenance import dataset_digest
from tests.conftest import NETWORK, Params, write_params
from tests.stages.conftest import mined_params

pytestmark = pytest.mark.slow

OUTPUTS = Outputs(NETWORK)


def read(path: Path) -> Params:
    content: Params = json.loads(path.read_text())
    return content


def set_detection(**entries: object) -> None:
    params = mined_params()
    params["detection"][NETWORK] |= entries
    write_params(params)


def logged_detectors(run_id: str) -> list[LoggedModel]:
    """The newest one first."""
    experiment = mlflow.get_run(run_id).info.experiment_id
    newest = [{"field_name": "creation_timestamp", "ascending": False}]
    models: list[LoggedModel] = mlflow.search_logged_models(
        [experiment], f"source_run_id = '{run_id}'", order_by=newest, output_format="list"
    )
    return models


def test_the_detector_holds_what_params_say_and_where_it_comes_from(detected):
    trained, report = read(OUTPUTS.trained), read(OUTPUTS.detected)
    made = Detector.load(OUTPUTS.detector)
    assert made.detection == Detection(views=2) and made.head is None and made.calibration is not None
    assert made.extract.chosen() == read_summary(PATCHES)["settings"]
    assert made.threshold == report["threshold"] > 0 and made.patch_threshold == trained["threshold"]
    assert (report["run_id"], report["network"]) == (trained["run_id"], NETWORK)
    assert report["settings"] == Detection(views=2).model_dump(mode="json")
    assert set(report["validation_fields"]) == {"precision", "recall", "f1", "ap"}

    origin = made.origin
    assert (origin.network, origin.run_id, origin.start_weights) == (NETWORK, trained["run_id"], "random")
    assert (origin.synthetic, origin.microns_per_pixel) == (True, 0.25) and origin.dataset.startswith("synthetic")
    assert origin.dataset_digest == dataset_digest(DATA, read_summary(PATCHES)["digest"])
    patients = read_patients(OUTPUTS.split)
    assert origin.patients == {subset: patients[subset] for subset in ("train", "validation")} != {}
    fields = read_summary(PATCHES)["fields"]
    tested = patients["test"]
    assert len(fields) == 8 and len(tested) == 1
    known = {facts["pixels_sha256"] for name, facts in fields.items() if name.split("_")[0] not in tested}
    assert len(origin.images) == 6 and set(origin.images) == known


def test_the_logged_model_is_the_same_detector(detected):
    report = read(OUTPUTS.detected)
    run_id = report["run_id"]
    with detector_file(f"runs:/{run_id}/detector") as path:
        assert path.read_bytes() == OUTPUTS.detector.read_bytes()
        assert Detector.load(path).threshold == report["threshold"]
    metrics = {metric.key: metric.value for metric in mlflow.get_logged_model(report["model_id"]).metrics}
    for name, value in (report["validation_fields"] | {"threshold": report["threshold"]}).items():
        assert metrics[f"validation_fields/{name}"] == pytest.approx(value)
    run = mlflow.get_run(run_id)
    assert run.data.metrics["validation_fields/f1"] == pytest.approx(report["validation_fields"]["f1"])
    assert run.info.status == "FINISHED"


def test_the_threshold_belongs_to_the_scores_that_detection_gives(detected):
    """Scored again as the file says, the validation fields give its spread and its threshold."""
    made, stored = Detector.load(OUTPUTS.detector), StoredFields.read(PATCHES, OUTPUTS.split, "validation")
    raw = replace(made, calibration=None)

    def spread(scored: Detector) -> Calibration:
        scores = scored.score(stored.windows, stored.field)
        fields = [scores[stored.field == number] for number in np.unique(stored.field)]
        return Calibration.fit(fields, made.detection.calibration)

    assert spread(raw) == made.calibration
    # A network this young gives nearly the same to all.
    assert spread(replace(raw, detection=replace_views(made, 1))) != made.calibration
    objects = stored.objects(made.score(stored.windows, stored.field), made.detection.suppress_um)
    labels, probabilities = objects.label.to_numpy(), objects.probability.to_numpy()
    assert best_threshold(labels, probabilities)[0] == made.threshold
    found, truth = probabilities >= made.threshold, labels == 1
    report = read(OUTPUTS.detected)["validation_fields"]
    assert report["recall"] == pytest.approx((found & truth).sum() / truth.sum())
    assert report["precision"] == pytest.approx((found & truth).sum() / found.sum())


def replace_views(made: Detector, views: int) -> Detection:
    return Detection.model_validate(made.detection.model_dump() | {"views": views})


def test_other_views_make_another_detector_and_train_nothing(detected):
    before, weights, old = read(OUTPUTS.detected), OUTPUTS.weights.read_bytes(), OUTPUTS.detector.read_bytes()
    run = mlflow.get_run(before["run_id"])
    set_detection(views=1)
    detector(NETWORK)
    after = read(OUTPUTS.detected)
    assert OUTPUTS.weights.read_bytes() == weights and OUTPUTS.detector.read_bytes() != old
    assert Detector.load(OUTPUTS.detector).detection.views == after["settings"]["views"] == 1
    assert after["run_id"] == before["run_id"] and after["model_id"] != before["model_id"]
    models = logged_detectors(before["run_id"])
    assert {before["model_id"], after["model_id"]} <= {model.model_id for model in models}
    assert models[0].model_id == after["model_id"]  # runs:/.../detector
    now = mlflow.get_run(before["run_id"])
    assert now.info.status == "FINISHED" and now.info.end_time == run.info.end_time
    assert now.data.tags == run.data.tags and now.data.params == run.data.params


def test_a_refitted_head_travels_with_the_detector_and_gives_its_threshold(detected):
    params = mined_params()
    params["train"][NETWORK]["model"]["head"] = "pooled"
    params["detection"][NETWORK] |= {"refit_fields": True, "views": 1}
    write_params(params)
    model = build({"backbone": NETWORK, "head": "pooled", "patch_size": 32, "input_size": 32})
    save_network(OUTPUTS.weights, model, run_id=read(OUTPUTS.trained)["run_id"], threshold=0.5, epoch=1)
    detector(NETWORK)
    made = Detector.load(OUTPUTS.detector)
    assert made.head is not None and made.calibration is None and made.detection.refit_fields
    assert len(made.head.weights) == model.pooled.channels
    stored = StoredFields.read(PATCHES, OUTPUTS.split, "validation")
    probabilities = made.score(stored.windows, stored.field)
    objects = stored.objects(probabilities, made.detection.suppress_um)
    assert best_threshold(objects.label.to_numpy(), objects.probability.to_numpy())[0] == made.threshold
    plain = replace(made, head=None).score(stored.windows, stored.field)
    assert abs(plain - probabilities).max() > 0.01


def test_weights_of_another_run_are_rejected(detected):
    before = OUTPUTS.detector.read_bytes()
    write_json(OUTPUTS.trained, read(OUTPUTS.trained) | {"run_id": "0" * 32})
    said = (
        rf"best\.pt: is from another training than results/train/{NETWORK}\.json; run `dvc repro train@{NETWORK}` first"
    )
    with pytest.raises(InputError, match=said):
        detector(NETWORK)
    assert OUTPUTS.detector.read_bytes() == before


def test_another_split_than_the_trainings_is_rejected(detected):
    before = OUTPUTS.detector.read_bytes()
    write_params(mined_params() | {"split": {"folds": 4, "fold": 1}})
    split()
    said = rf"split\.csv: {NETWORK} was trained with another split; run `dvc repro train@{NETWORK}` first"
    with pytest.raises(InputError, match=said):
        detector(NETWORK)
    assert OUTPUTS.detector.read_bytes() == before


def test_a_run_that_the_store_lacks_leaves_the_old_report(detected):
    before = read(OUTPUTS.detected)
    lost = "0" * 32
    model = Detector.load(OUTPUTS.detector).model
    save_network(OUTPUTS.weights, model, run_id=lost, threshold=0.5, epoch=1)
    write_json(OUTPUTS.trained, read(OUTPUTS.trained) | {"run_id": lost})
    with pytest.raises(InputError, match=f"there is no run {lost}"):
        detector(NETWORK)
    assert read(OUTPUTS.detected) == before


@pytest.mark.parametrize("missing", ["trained", "weights"])
def test_an_untrained_network_is_named(detected, missing):
    getattr(OUTPUTS, missing).unlink()
    with pytest.raises(InputError, match=rf"{NETWORK}.* has not been trained; run `dvc repro train@{NETWORK}` first"):
        detector(NETWORK)


def test_a_fold_has_files_of_its_own(detected):
    """Fold 1 of the cross-validation, with the weights of the project's own split."""
    split(fold=1)
    fold, patients = Outputs(NETWORK, 1), read_patients(Outputs(NETWORK, 1).split)
    model = Detector.load(OUTPUTS.detector).model
    report = read(OUTPUTS.trained) | {"patients": {name: patients[name] for name in ("train", "validation")}}
    save_network(fold.weights, model, run_id=report["run_id"], threshold=0.5, epoch=1)
    write_json(fold.trained, report)
    own = (OUTPUTS.trained, OUTPUTS.weights, OUTPUTS.detected, OUTPUTS.detector, OUTPUTS.split)
    for path in own:
        path.unlink()
    detector(NETWORK, fold=1)
    assert (
        Detector.load(fold.detector).origin.patients
        == report["patients"]
        == {"train": ["01", "04"], "validation": ["03"]}
    )
    assert read(fold.detected)["network"] == NETWORK
    assert not any(path.exists() for path in own)


def freeze(**field_head: int) -> None:
    """Set a frozen network with a field head, and write its weights and report as a training does."""
    params = mined_params()
    params["train"][NETWORK]["model"] |= {"head": "pooled", "trainable": "head"}
    params["detection"][NETWORK] |= {"refit_fields": True, "views": 1}
    params["detection"][NETWORK]["field_head"] = field_head
    write_params(params)
    model = build({"backbone": NETWORK, "head": "pooled", "patch_size": 32, "input_size": 32})
    trained = read(OUTPUTS.trained)
    save_network(OUTPUTS.weights, model, run_id=trained["run_id"], threshold=0.5, epoch=1)
    write_json(OUTPUTS.trained, trained | {"trainable": "head"})


@pytest.mark.parametrize("folds", [2, 5])  # 5: one for each of the three patients
def test_with_inner_folds_everybody_but_the_test_patients_is_learnt_from(detected, monkeypatch, folds):
    calls = []

    def noted(model, samples, fields, **options):
        fitted, objects = fit_detector(model, samples, fields, **options)
        calls.append((fields, options["inner"], objects))
        return fitted, objects

    monkeypatch.setattr(fit, "fit_detector", noted)
    freeze(inner_folds=folds)
    detector(NETWORK)
    ((fields, inner, objects),) = calls
    patients, made = read_patients(OUTPUTS.split), Detector.load(OUTPUTS.detector)
    known = {*patients["train"], *patients["validation"]}
    near_um = mined_params()["train"][NETWORK]["sampling"].get("near_um", 0)
    _, rows = read_samples(PATCHES, OUTPUTS.split, "train", "validation", near_um=near_um)
    pairs = {*zip(rows.patient, inner.samples, strict=True)}
    pairs |= {*zip(fields.candidates.patient, inner.candidates, strict=True)}
    assert len(pairs) == len(known) == 3  # one fold for all of a patient
    assert {patient for patient, _ in pairs} == known and {fold for _, fold in pairs} == set(range(min(folds, 3)))
    (cache,) = (WORK / "features" / NETWORK).iterdir()
    assert {path.name.split("_")[0] for path in cache.iterdir()} == known
    assert made.detection.field_head.inner_folds == folds
    mine = objects[objects.patient.isin(patients["validation"])]
    expected = scores("fields", mine.label.to_numpy(), mine.probability.to_numpy(), made.threshold)
    assert read(OUTPUTS.detected)["validation_fields"] == pytest.approx(expected)


def test_features_of_other_weights_are_not_used_and_go_after_a_day(detected):
    freeze(inner_folds=3)
    detector(NETWORK)
    (first,) = (WORK / "features" / NETWORK).iterdir()
    freeze(inner_folds=3)  # with other random weights
    detector(NETWORK)
    (second,) = {*(WORK / "features" / NETWORK).iterdir()} - {first}
    assert {path.name for path in first.iterdir()} == {path.name for path in second.iterdir()}
    day_before_yesterday = time.time() - 2 * 86_400
    os.utime(first, (day_before_yesterday, day_before_yesterday))
    detector(NETWORK)
    assert [*(WORK / "features" / NETWORK).iterdir()] == [second]


def test_inner_folds_need_two_patients_with_mitoses(detected):
    freeze(inner_folds=2)
    index = read_index(PATCHES)
    (validating,) = read_patients(OUTPUTS.split)["validation"]
    index[(index.patient == validating) | (index.label == 0)].to_csv(PATCHES / "index.csv", index=False)
    before = OUTPUTS.detector.read_bytes()
    with pytest.raises(
        InputError, match=rf"detection\.{NETWORK}\.field_head\.inner_folds: with 2, all mitoses to learn"
    ):
        detector(NETWORK)
    assert OUTPUTS.detector.read_bytes() == before


def test_inner_folds_need_a_network_that_was_trained_as_a_frozen_one(detected):
    freeze(inner_folds=3)
    write_json(OUTPUTS.trained, read(OUTPUTS.trained) | {"trainable": "all"})
    with pytest.raises(
        InputError, match=rf"{NETWORK}\.json: all layers of {NETWORK} were trained, .*; run `dvc repro train"
    ):
        detector(NETWORK)
