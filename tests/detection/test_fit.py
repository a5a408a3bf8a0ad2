"""What makes a detector of trained weights: a field head or a calibration, and then the threshold."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch

from mitoscope.detection.calibration import Calibration
from mitoscope.detection.detector import Detector
from mitoscope.detection.field_head import FieldHead
from mitoscope.detection.fit import InnerFolds, fit_detector
from mitoscope.detection.stored import StoredFields, read_samples
from mitoscope.evaluation.metrics import best_threshold
from mitoscope.learning.batches import PatchSet, Windows
from mitoscope.learning.networks import PatchNetwork
from mitoscope.learning.scoring import pool_patches, score_patches
from mitoscope.params import CalibrationSettings, Detection, Extract, FieldHeadSettings
from tests.disks import full_disk

EXTRACT = Extract(patch_um=16)


@pytest.fixture(scope="module")
def training(patches, split) -> PatchSet:
    return read_samples(patches, split, "train")[0]


@pytest.fixture(scope="module")
def validation(patches, split) -> StoredFields:
    return StoredFields.read(patches, split, "validation")


class Unread:
    """Windows that nobody may look at."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, record: int, /) -> npt.NDArray[np.uint8]:
        raise AssertionError("the training patches were read")


UNREAD = PatchSet(Windows.of(Unread()), np.array([0, 1, 0, 1]))


@pytest.fixture
def fit(here, detectors, tmp_path) -> Callable[..., tuple[Detector, pd.DataFrame]]:
    """`fit_detector` with all but what a test is about."""

    def call(
        detection: Detection,
        validation: StoredFields,
        *,
        training: PatchSet = UNREAD,
        inner: InnerFolds | None = None,
        cache: Path | None = None,
        model: PatchNetwork = detectors["classifier"].model,
        show: Callable[[str, int, int], None] = lambda *_: None,
    ) -> tuple[Detector, pd.DataFrame]:
        return fit_detector(
            model,
            training,
            validation,
            inner=inner,
            extract=EXTRACT,
            detection=detection,
            patch_threshold=0.25,
            origin=detectors["classifier"].origin,
            device=here,
            cache=cache,
            work=tmp_path,
            show=show,
        )

    return call


def f1(objects: pd.DataFrame, threshold: float) -> float:
    found = objects.probability >= threshold
    matched = int(objects.label[found].sum())
    return 2 * matched / (int(found.sum()) + int(objects.label.sum()))


# By hand


def small_field(
    model: PatchNetwork, here: Any, mitoses: Sequence[int], *, apart: float = 100
) -> tuple[StoredFields, npt.NDArray[np.float64]]:
    """A field of five candidates in a row; `mitoses` are the ranks of those that are one, 5 = one that nothing reaches.

    Returns:
        The field, and the five probabilities from the highest to the lowest.
    """
    pixels = np.random.default_rng(0).integers(0, 256, (5, 46, 46, 3)).astype(np.uint8)
    probabilities = score_patches(model, Windows.of(pixels), here)
    pixels, probabilities = (each[np.argsort(-probabilities)] for each in (pixels, probabilities))
    columns = np.arange(6) * apart
    points = pd.DataFrame({"patient": "P", "field": "1", "row": 50.0, "col": columns})
    field = StoredFields(
        windows=Windows.of(pixels),
        candidates=points[:5],
        truths=points.iloc[list(mitoses)],
        microns_per_pixel={"P_1": 0.25},
        areas_mm2={"P_1": 1.0},
        domains={"P_1": ""},
        images={"P": ["pixels"]},
    )
    return field, probabilities


@pytest.mark.parametrize(
    ("mitoses", "taken", "best"),
    [
        ([0, 1], 2, 1.0),
        ([0, 1, 3], 4, 6 / 7),  # the four first: 3 of 4 and none missed; the two first: 2 of 2, one missed: 4 / 5
        ([0, 1, 3, 5], 4, 6 / 8),  # one more is missed, whatever the threshold
        ([0, 4], 1, 2 / 3),  # the first alone; all five give 4 / 7
        ([4], 5, 1 / 3),
    ],
)
def test_the_threshold_by_hand(fit, detectors, here, mitoses, taken, best):
    field, probabilities = small_field(detectors["classifier"].model, here, mitoses)
    fitted, objects = fit(Detection(), field)
    lower = probabilities[taken] if taken < 5 else 0.0
    assert fitted.threshold == pytest.approx((probabilities[taken - 1] + lower) / 2, abs=1e-9)
    assert f1(objects, fitted.threshold) == pytest.approx(best)


def test_what_is_suppressed_counts_for_nothing(fit, detectors, here):
    """At 2 um from one another the first two are one detection, and so are the next two."""
    field, probabilities = small_field(detectors["classifier"].model, here, [0], apart=10)
    fitted, objects = fit(Detection(suppress_um=3.0), field)
    np.testing.assert_allclose(objects.probability, probabilities[[0, 2, 4]], atol=1e-9)
    assert fitted.threshold == pytest.approx((probabilities[0] + probabilities[2]) / 2, abs=1e-9)


def test_the_calibration_by_hand(fit, detectors, here):
    field, probabilities = small_field(detectors["classifier"].model, here, [0, 1])
    settings = CalibrationSettings(percentiles=(25, 75), prior_candidates=0)
    fitted, _ = fit(Detection(calibration=settings), field)
    odds = np.log(probabilities / (1 - probabilities))
    assert fitted.calibration == Calibration(settings, pytest.approx(odds[3]), pytest.approx(odds[1]))


# In the small project


@pytest.mark.parametrize("refit", [False, True])
def test_the_threshold_is_the_best_for_the_scores_that_the_detector_gives(fit, pooled, training, validation, refit):
    fitted, objects = fit(Detection(views=2, refit_fields=refit), validation, model=pooled, training=training)
    assert (fitted.head is not None, fitted.calibration is not None) == (refit, not refit)
    again = validation.objects(fitted.score(validation.windows, validation.field), 7.5)
    pd.testing.assert_frame_equal(again, objects, check_exact=False, rtol=0, atol=1e-9)
    best = f1(objects, fitted.threshold)
    assert 0 < best < 1
    assert best == pytest.approx(max(f1(objects, probability) for probability in objects.probability if probability))


def test_the_calibration_is_of_the_scores_before_it(fit, validation):
    fitted, objects = fit(Detection(), validation)
    probabilities = replace(fitted, calibration=None).score(validation.windows, validation.field)
    fields = [probabilities[validation.field == number] for number in (0, 1)]
    assert fitted.calibration == Calibration.fit(fields, CalibrationSettings())
    # The threshold is one of calibrated scores.
    raw = validation.objects(probabilities, 7.5)
    assert np.abs(np.sort(objects.probability) - np.sort(raw.probability)).max() > 1e-6
    assert fitted.threshold != best_threshold(raw.label.to_numpy(), raw.probability.to_numpy())[0]


def test_the_field_head_is_fitted_to_the_training_patches(fit, pooled, here, training, validation):
    settings = FieldHeadSettings(inverse_penalty=0.01, hard_fraction=0.5, prior_candidates=10)
    detection = Detection(refit_fields=True, views=4, field_head=settings)
    fitted, _ = fit(detection, validation, model=pooled, training=training)
    features = pool_patches(pooled, training.windows, here, views=4)
    expected = FieldHead.fit(features, training.windows.store, training.labels, settings)
    assert fitted.head is not None and fitted.head.settings == settings
    np.testing.assert_allclose(fitted.head.weights, expected.weights, atol=1e-6)
    assert fitted.head.bias == pytest.approx(expected.bias, abs=1e-6)


@pytest.fixture(scope="module")
def everybody(patches, split) -> tuple[PatchSet, StoredFields, InnerFolds]:
    """The samples and fields of three patients, each one inner fold."""
    (samples, rows), fields = (
        read(patches, split, "train", "validation") for read in (read_samples, StoredFields.read)
    )
    number = {patient: fold for fold, patient in enumerate(sorted(set(rows.patient)))}
    assert len(number) == 3
    inner = (table.patient.map(number).to_numpy() for table in (rows, fields.candidates))
    return samples, fields, InnerFolds(*inner)


@pytest.mark.usefixtures("float32_detectors")
def test_with_inner_folds_the_head_learns_from_all_and_the_threshold_from_who_was_left_out(
    fit, pooled, here, everybody
):
    samples, fields, inner = everybody
    settings = FieldHeadSettings(inner_folds=3)
    detection = Detection(refit_fields=True, field_head=settings)
    fitted, objects = fit(detection, fields, training=samples, inner=inner, model=pooled)

    def head(inside: npt.NDArray[np.bool_]) -> FieldHead:
        features = pool_patches(pooled, samples.windows.take(np.flatnonzero(inside)), here)
        return FieldHead.fit(features, samples.windows.store[inside], samples.labels[inside], settings)

    assert fitted.head is not None
    np.testing.assert_allclose(fitted.head.weights, head(inner.samples >= 0).weights, atol=1e-5)
    expected = np.zeros(len(fields.windows))
    for fold in range(3):
        inside = np.flatnonzero(inner.candidates == fold)
        alone = replace(fitted, head=head(inner.samples != fold)).score(
            fields.windows.take(inside), fields.field[inside]
        )
        expected[inside] = alone
    held_out = fields.objects(expected, 7.5)
    pd.testing.assert_frame_equal(objects, held_out, check_exact=False, rtol=0, atol=1e-4)
    assert f1(objects, fitted.threshold) == pytest.approx(max(f1(objects, p) for p in objects.probability if p))
    known = fields.objects(fitted.score(fields.windows, fields.field), 7.5)
    assert f1(known, fitted.threshold) > f1(objects, fitted.threshold)  # what the head has learnt is no test


def test_a_patient_with_candidates_alone_is_scored_too(fit, pooled, everybody):
    """All windows of a patient's small fields may touch the border: candidates, but no samples to learn from."""
    samples, fields, inner = everybody
    some = inner.samples != 1
    fewer = PatchSet(samples.windows.take(np.flatnonzero(some)), samples.labels[some])
    detection = Detection(refit_fields=True, field_head=FieldHeadSettings(inner_folds=3))
    inner = InnerFolds(inner.samples[some], inner.candidates)
    _, objects = fit(detection, fields, training=fewer, inner=inner, model=pooled)
    patient = fields.candidates.patient[inner.candidates == 1].iloc[0]
    assert (objects.probability[objects.patient == patient] > 0).any()


def test_kept_features_give_the_same_detector(fit, pooled, everybody, tmp_path):
    samples, fields, inner = everybody
    detection = Detection(refit_fields=True, field_head=FieldHeadSettings(inner_folds=3))
    anew, _ = fit(detection, fields, training=samples, inner=inner, model=pooled)
    kept, _ = fit(detection, fields, training=samples, inner=inner, model=pooled, cache=tmp_path / "cache")
    again, _ = fit(detection, fields, training=samples, inner=inner, model=pooled, cache=tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == len(fields.windows.stores) == 6
    np.testing.assert_array_equal(again.head.weights, kept.head.weights)
    assert again.threshold == kept.threshold == pytest.approx(anew.threshold, abs=1e-3)


def test_a_full_disk_ends_the_fit_of_a_field_head(fit, pooled, training, validation, tmp_path):
    detection = Detection(refit_fields=True)
    with full_disk(), pytest.raises(OSError, match="File too large"):
        fit(detection, validation, model=pooled, training=training)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("views", [1, 4])
def test_other_views_train_nothing_and_read_no_training_patch(fit, detectors, validation, views):
    model = detectors["classifier"].model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fitted, _ = fit(Detection(views=views), validation)  # with UNREAD for training
    assert fitted.detection.views == views and not fitted.model.training
    for name, tensor in fitted.model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert not any(parameter.grad is not None for parameter in fitted.model.parameters())


def test_views_change_the_scores(fit, validation):
    once, _ = fit(Detection(views=1), validation)
    turned, _ = fit(Detection(views=4), validation)
    assert once.calibration != turned.calibration


def test_the_rest_is_handed_over_as_it_is(fit, detectors, validation):
    calls: list[tuple[str, int, int]] = []
    fitted, _ = fit(Detection(suppress_um=5), validation, show=lambda *call: calls.append(call))
    assert fitted.extract == EXTRACT and fitted.patch_threshold == 0.25 and fitted.detection.suppress_um == 5
    assert fitted.origin == detectors["classifier"].origin
    assert next(fitted.model.parameters()).device.type == "cpu"
    label = f"{fitted.origin.network} validation fields"
    assert calls[-1] == (label, len(validation.windows), len(validation.windows))


def test_a_fitted_detector_survives_its_file(fit, pooled, training, validation, tmp_path):
    fitted, _ = fit(Detection(refit_fields=True), validation, model=pooled, training=training)
    fitted.save(tmp_path / "detector.pt")
    loaded = Detector.load(tmp_path / "detector.pt")
    assert loaded.threshold == fitted.threshold and loaded.calibration == fitted.calibration
    np.testing.assert_array_equal(
        loaded.score(validation.windows, validation.field), fitted.score(validation.windows, validation.field)
    )


def test_validation_fields_without_a_mitosis_give_no_threshold(fit, validation):
    with pytest.raises(ValueError, match="a threshold needs at least one mitosis"):
        fit(Detection(), replace(validation, truths=validation.truths[:0]))
