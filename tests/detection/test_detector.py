"""The detector: one way from pixels to mitoses, one file. What `mitoscope detect` writes is in tests/commands."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from mitoscope.datasets.readers import read_image
from mitoscope.detection.detector import Detections, Detector
from mitoscope.detection.origin import Origin
from mitoscope.detection.stored import StoredFields
from mitoscope.errors import InputError
from mitoscope.learning.batches import Windows
from mitoscope.learning.scoring import pool_patches, score_patches
from mitoscope.params import Extract

MICRONS = 0.25


def everything(detector: Detector) -> Detector:
    """The same detector, which takes every candidate for a mitosis and suppresses next to none."""
    return replace(detector, threshold=0.0, detection=detector.detection.model_copy(update={"suppress_um": 1e-3}))


def score_image(detector: Detector, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The candidates of a field and their probabilities."""
    points, windows, _ = detector.propose(image, None, MICRONS)
    return points, detector.score(windows, np.zeros(len(points), np.int64))


def assert_same(first: Detections, second: Detections, atol: float = 0.0) -> None:
    np.testing.assert_array_equal(first.points, second.points)
    np.testing.assert_allclose(first.probabilities, second.probabilities, rtol=0, atol=atol)
    assert first.normalised == second.normalised


# From pixels to mitoses


def test_detection_is_propose_score_threshold_suppress_by_hand(detector, images):
    points, probabilities = score_image(detector, images[0])
    threshold = float(np.median(probabilities))
    left = [index for index in np.argsort(-probabilities, kind="stable") if probabilities[index] >= threshold]
    chosen: list[int] = []
    for index in left:
        apart = [np.linalg.norm(points[index] - points[other]) * MICRONS for other in chosen]
        if all(distance > 40 for distance in apart):
            chosen.append(index)
    detection = detector.detection.model_copy(update={"suppress_um": 40.0})
    found = replace(detector, threshold=threshold, detection=detection).detect(images[0], MICRONS)
    assert 1 < len(chosen) < len(left) < len(points)
    np.testing.assert_array_equal(found.points, points[chosen])
    np.testing.assert_array_equal(found.probabilities, probabilities[chosen])
    assert found.points.dtype == found.probabilities.dtype == np.float64


def test_stored_patches_and_images_have_the_same_scores(detector, patches, split, raw):
    """The score that the threshold was fitted to is the score of the field, its file and the fields beside it apart."""
    stored = StoredFields.read(patches, split, "validation")
    probabilities = detector.score(stored.windows, stored.field)
    names = stored.candidates.patient + "_" + stored.candidates.field
    assert len(set(names)) == 2
    for number, name in enumerate(names.unique()):
        points, mine = score_image(detector, read_image(raw / f"{name}.jpg"))
        inside = stored.field == number
        assert (names[inside] == name).all() and inside.sum() == len(points)
        # The store has the candidates near a mitosis first, so the order differs.
        theirs = stored.candidates.loc[inside, ["row", "col"]].to_numpy()
        same = np.linalg.norm(theirs[:, None] - points[None], axis=2).argmin(axis=1)
        np.testing.assert_allclose(points[same], theirs, atol=0.01)
        np.testing.assert_allclose(probabilities[inside], mine[same], rtol=0, atol=1e-5)
    assert probabilities.std() > 1e-4


def test_scanners_of_different_pixel_sizes_see_the_same_tissue(detectors, images):
    """One field as a scanner of 0.2273 um and one of 0.2456 um would show it: equal candidates, nearly equal scores."""
    detector = detectors["classifier"]
    found = []
    for microns in (0.2273, 0.2456):
        side = round(len(images[0]) * MICRONS / microns)
        shown = cv2.resize(images[0], (side, side), interpolation=cv2.INTER_CUBIC)
        scale = len(images[0]) * MICRONS / side  # um per pixel, exactly
        points, windows, _ = detector.propose(shown, None, scale)
        found.append((points * scale, detector.score(windows, np.zeros(len(points), np.int64))))
    (fine, fine_scores), (coarse, coarse_scores) = found
    distances = np.linalg.norm(fine[:, None] - coarse[None], axis=2)
    same = distances.min(axis=1) < 1  # um
    assert len(fine) == len(coarse) and same.mean() > 0.9
    pairs = fine_scores[same], coarse_scores[distances.argmin(axis=1)[same]]
    assert np.corrcoef(*pairs)[0, 1] > 0.9
    # As if both had the same pixels: other places, and scores of other tissue.
    wrong, _, _ = detector.propose(cv2.resize(images[0], (440, 440)), None, 0.2456)
    assert (np.linalg.norm(fine[:, None] - wrong[None] * 0.2456, axis=2).min(axis=1) < 1).mean() < 0.5


def test_a_score_depends_on_the_other_candidates_of_the_field_only_where_it_should(detectors, images):
    few = np.arange(5)
    for kind, detector in detectors.items():
        points, windows, _ = detector.propose(images[0], None, MICRONS)
        whole = detector.score(windows, np.zeros(len(points), np.int64))[few]
        part = detector.score(windows.take(few), np.zeros(5, np.int64))
        assert np.allclose(whole, part, rtol=0, atol=1e-5) == (kind == "classifier"), kind


def test_fields_may_be_mixed_and_the_progress_reaches_the_end(detector, images):
    proposed = [detector.propose(image, None, MICRONS) for image in images]
    counts = [len(field.points) for field in proposed]
    alone = [score_image(detector, image)[1] for image in images]
    order = np.random.default_rng(0).permutation(sum(counts))
    store = np.repeat([0, 1], counts)[order]
    record = np.concatenate([np.arange(count) for count in counts])[order]
    windows = Windows([field.windows.stores[0] for field in proposed], store, record)
    calls: list[tuple[int, int]] = []
    found = detector.score(windows, 7 - store, lambda *call: calls.append(call))  # whatever the fields' numbers are
    np.testing.assert_allclose(found, np.concatenate(alone)[order], rtol=0, atol=1e-5)
    assert calls[-1] == (sum(counts), sum(counts)) and calls == sorted(calls)


def test_single_patches_have_the_score_of_the_networks_own_head(detector, images, here):
    _, windows, _ = detector.propose(images[0], None, MICRONS)
    alone = score_patches(detector.model, windows, here, views=1)
    np.testing.assert_array_equal(detector.classify(windows), alone)


@pytest.mark.usefixtures("float32_detectors")
def test_a_score_is_the_heads_over_all_views_calibrated(detector, images, here):
    points, windows, _ = detector.propose(images[0], None, MICRONS)
    expected = {}
    for views in (1, 2):
        if detector.head is None:
            scores = score_patches(detector.model, windows, here, views=views)
        else:
            scores = detector.head.probabilities(pool_patches(detector.model, windows, here, views=views))
        expected[views] = scores if detector.calibration is None else detector.calibration.apply(scores)
    assert detector.detection.views == 2 and np.abs(expected[2] - expected[1]).max() > 1e-5
    found = detector.score(windows, np.zeros(len(points), np.int64))
    np.testing.assert_allclose(found, expected[2], rtol=0, atol=1e-9)


def test_detections_keep_their_distance_and_come_the_most_probable_first(detector, images):
    settings = detector.detection.model_copy(update={"suppress_um": 7.5})
    found = replace(detector, threshold=0.0, detection=settings).detect(images[0], MICRONS)
    count = len(score_image(detector, images[0])[0])
    assert 5 < len(found.points) < count  # two candidates lie 4.3 um apart
    distances = np.linalg.norm(found.points[:, None] - found.points[None], axis=2) * MICRONS
    assert distances[~np.eye(len(found.points), dtype=bool)].min() >= 7.5
    assert (np.diff(found.probabilities) <= 0).all()


def test_nothing_is_found_outside_the_mask(detectors, images):
    detector = everything(detectors["classifier"])
    mask = np.zeros(images[0].shape[:2], dtype=np.bool_)
    mask[:, 200:] = True
    inside, everywhere = detector.detect(images[0], MICRONS, mask), detector.detect(images[0], MICRONS)
    assert len(inside.points) and (inside.points[:, 1] >= 199).all()
    assert (everywhere.points[:, 1] < 199).any()
    assert detector.detect(images[0], MICRONS, np.zeros_like(mask)).points.shape == (0, 2)


def test_transparent_parts_have_no_candidates_and_ask_for_none(detectors, images):
    detector = everything(detectors["classifier"])
    opaque = np.zeros(images[0].shape[:2], dtype=np.bool_)
    opaque[:, 200:] = True
    proposed, masked = (
        detector.propose(images[0], mask, MICRONS, seen).points for mask, seen in ((None, opaque), (opaque, None))
    )
    assert len(proposed) == 8 < len(masked)  # 1500 per mm2 of 0.005 mm2
    np.testing.assert_array_equal(proposed, masked[:8])
    found = detector.detect(images[0], MICRONS, opaque=opaque)
    assert {*map(tuple, found.points)} <= {*map(tuple, proposed)} and len(found.points)


@pytest.mark.parametrize("shape", [(1, 1), (9, 31), (200, 210)])
def test_a_field_without_candidates_has_no_mitosis(detector, shape):
    white = np.full((*shape, 3), 255, np.uint8)
    found = everything(detector).detect(white, MICRONS)
    assert found.points.shape == (0, 2) and found.probabilities.shape == (0,) and not found.normalised


def test_whether_the_stain_was_normalised_is_said(detectors, images):
    detector = replace(detectors["classifier"], extract=Extract(patch_um=16, stain="macenko"))
    assert detector.detect(images[0], MICRONS).normalised
    assert not detector.detect(np.full((120, 120, 3), 255, np.uint8), MICRONS).normalised
    assert not detectors["classifier"].detect(images[0], MICRONS).normalised  # nobody asked for it


# Pixel sizes


def test_an_enlarged_image_has_the_same_mitoses_when_its_pixel_size_is_said(detector, images):
    large = images[0].repeat(2, axis=0).repeat(2, axis=1)
    detector = everything(detector)
    as_trained, enlarged = detector.detect(images[0]), detector.detect(large, MICRONS / 2)
    # Means of 16 pixels are rounded a little differently from means of 4, so close probabilities may change places.
    expected, found = (np.lexsort(mitoses.points.T) for mitoses in (as_trained, enlarged))
    np.testing.assert_allclose(enlarged.points[found], as_trained.points[expected] * 2 + 0.5, atol=0.02)
    tolerance = 0.1 * as_trained.probabilities.std()
    np.testing.assert_allclose(
        enlarged.probabilities[found], as_trained.probabilities[expected], rtol=0, atol=tolerance
    )
    assert len(detector.detect(large).points) != len(as_trained.points)  # four times the area


def test_another_pixel_size_is_used(detectors, images):
    """The field of a scanner with 0.3 um per pixel shows the same tissue, and nearly the same scores."""
    detector = everything(detectors["field head"])
    size = round(400 * MICRONS / 0.3)
    coarse = cv2.resize(images[0], (size, size), interpolation=cv2.INTER_AREA)
    expected, found = detector.detect(images[0], MICRONS), detector.detect(coarse, 0.3)
    points = (found.points + 0.5) * 400 / size - 0.5
    away = np.linalg.norm(expected.points[:, None] - points[None], axis=2)
    same = away.argmin(axis=1)
    close = away.min(axis=1) < 4  # px of 0.25 um
    assert close.mean() > 0.8
    difference = np.abs(expected.probabilities - found.probabilities[same])[close]
    assert np.median(difference) < 0.2 * expected.probabilities.std()
    # Taken for 0.25 um per pixel, the same image is a field of 0.7 times the area with smaller nuclei.
    assert len(detector.detect(coarse, MICRONS).points) < len(found.points)


@pytest.mark.parametrize(("microns", "fits"), [(None, True), (0.0625, True), (1.0, True), (1.01, False), (0.06, False)])
def test_pixels_far_from_those_of_the_training_are_rejected(detectors, images, microns, fits):
    detector = detectors["classifier"]
    if fits:
        assert detector.check_pixels(microns) == (microns or MICRONS)
        return
    with pytest.raises(InputError, match=rf"{microns} um per pixel: the detector was trained at 0\.25 um") as caught:
        detector.detect(images[0], microns)
    assert "\n" not in str(caught.value)


# Devices


@pytest.mark.usefixtures("float32_detectors")
def test_a_move_to_a_device_changes_nothing(detector, images):
    before = detector.detect(images[0])
    for name in ("cpu", *(["cuda"] if torch.cuda.is_available() else [])):
        moved = detector.to(torch.device(name))
        try:
            assert moved is detector and next(detector.model.parameters()).device.type == name
            assert_same(detector.detect(images[0]), before, atol=0 if name == "cpu" else 1e-4)
        finally:
            detector.to(torch.device("cpu"))


# What a detector knows

KNOWN = Origin(
    network="net",
    run_id="0123",
    start_weights="random",
    dataset="ours",
    dataset_digest="abc",
    synthetic=False,
    microns_per_pixel=0.25,
    patients={"train": ["01", "02"], "validation": ["03"]},
    images=["p01", "p02a", "p02b", "p03"],
)


@pytest.mark.parametrize(
    ("patients", "digest", "known"),
    [
        ({"01": ["p01"], "04": ["p04"]}, "abc", ["01"]),
        ({"03": ["new"], "02": ["new too"]}, "abc", ["02", "03"]),  # the same patients' other fields
        ({"01": ["other"], "03": ["another"]}, "def", []),  # another dataset numbers its patients alike
        ({"17": ["p04", "p02b"], "18": ["p05"]}, "def", ["17"]),  # the same pixels under another name
        ({"01": ["other"]}, "", []),  # a dataset that nobody hashed
        ({"01": []}, "abc", ["01"]),
        ({}, "abc", []),
    ],
)
def test_a_patient_is_known_by_dataset_and_name_or_by_the_pixels(patients, digest, known):
    assert KNOWN.known(patients, digest) == known


def test_without_a_hash_of_its_dataset_a_detector_knows_patients_by_their_pixels_alone():
    nameless = replace(KNOWN, dataset_digest="")
    assert nameless.known({"01": ["other"], "09": ["p01"]}, "") == ["09"]
