"""Ideas for the field head on ten patients, each against the preset: writes ideas.csv in the project's folder.

Every patient is scored by a head that was fitted to the nine others, and gets the threshold that is best for the scores
that these nine get in the same way. Features are kept in .work/ideas.
"""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from mitoscope.detection import field_head
from mitoscope.detection.field_head import FieldHead
from mitoscope.detection.stored import StoredFields, read_samples
from mitoscope.evaluation.metrics import best_threshold, object_ap
from mitoscope.learning.devices import join
from mitoscope.learning.features import pool_cached
from mitoscope.learning.networks import build, start_state
from mitoscope.params import read_params
from mitoscope.progress import progress

SETTINGS = read_params().detection_of("alexnet")
SPLIT, PATCHES = Path("results/split.csv"), Path("patches")
SUBSETS = ("train", "validation", "test")
SAMPLES, ROWS = read_samples(PATCHES, SPLIT, *SUBSETS, near_um=7.5)
FIELDS = StoredFields.read(PATCHES, SPLIT, *SUBSETS)
LEARNT, TESTED = ROWS.patient.to_numpy(), FIELDS.candidates.patient.to_numpy()
PATIENTS = sorted(set(LEARNT))
SAMPLE_FIELDS = SAMPLES.windows.store

Threshold = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], float]
"""Of the labels and scores of all objects, and which of them are of other patients, and of the same scanner."""


@cache
def features(network: str, patch_px: int, views: int) -> tuple[np.ndarray, np.ndarray]:
    """The features of the samples and of the candidates; patches are enlarged to 128 px."""
    source = torch.load(f"models/imagenet/{network}-imagenet1k-features-only.pth", weights_only=True)
    state, _ = start_state(network, source, 0, "pooled")
    model = build({"backbone": network, "head": "pooled", "patch_size": patch_px, "input_size": 128}, state)
    folder = Path(f".work/ideas/{network}-{patch_px}-128-{views}")
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    with join() as device, progress() as show:
        for windows in (SAMPLES.windows, FIELDS.windows):
            out = np.zeros((len(windows), model.pooled.channels), np.float32)
            pool_cached(
                model, windows, device, views=views, cache=folder, out=out, on_batch=lambda *n: show(network, *n)
            )
            found.append(out)
    return found[0], found[1]


def held_out(
    learnt: np.ndarray,
    tested: np.ndarray,
    by_patient: bool = False,
    kept: np.ndarray | None = None,
    left_out: tuple[str, ...] | None = None,
    **changes: float,
) -> np.ndarray:
    """The probabilities of the candidates, each by a head that was fitted without its patient.

    With `kept`, (M,) bool, only these samples are learnt from. With `left_out`, one head is fitted without all of these
    patients, and scores only them.
    """
    settings, probabilities = SETTINGS.field_head.model_copy(update=changes), np.zeros(len(tested))
    groups = np.searchsorted(PATIENTS, LEARNT) if by_patient else SAMPLE_FIELDS
    for patients in [(patient,) for patient in PATIENTS] if left_out is None else [left_out]:
        others, mine = ~np.isin(LEARNT, patients), np.flatnonzero(np.isin(TESTED, patients))
        rows = np.flatnonzero(others if kept is None else others & kept)
        head = FieldHead.fit(learnt[rows].copy(), groups[rows], SAMPLES.labels[rows], settings)
        by = TESTED if by_patient else FIELDS.field
        for group in np.unique(by[mine]):
            part = mine[by[mine] == group]
            probabilities[part] = head.probabilities(tested[part])
    return probabilities


def patients_weigh_the_same(learnt: np.ndarray, tested: np.ndarray) -> np.ndarray:
    """As `held_out`, but all patients of a class have the same total weight, not all fields."""
    by_field, owner = field_head._weights, dict(zip(SAMPLE_FIELDS, np.searchsorted(PATIENTS, LEARNT), strict=True))
    field_head._weights = lambda fields, labels: by_field(np.array([owner[field] for field in fields]), labels)
    try:
        return held_out(learnt, tested)
    finally:
        field_head._weights = by_field


def mean_odds(*probabilities: np.ndarray) -> np.ndarray:
    """The probabilities of the mean log-odds of several heads."""
    return expit(np.mean([logit(np.clip(one, 1e-12, 1 - 1e-12)) for one in probabilities], axis=0))


def best_of_others(labels: np.ndarray, scores: np.ndarray, others: np.ndarray, same: np.ndarray) -> float:
    """The threshold that is best for the other patients' held-out scores."""
    return best_threshold(labels[others], scores[others])[0]


def best_of_scanner(labels: np.ndarray, scores: np.ndarray, others: np.ndarray, same: np.ndarray) -> float:
    """The same, of the patients of the same scanner only."""
    return best_threshold(labels[others & same], scores[others & same])[0]


def expected_f1(labels: np.ndarray, scores: np.ndarray, others: np.ndarray, same: np.ndarray) -> float:
    """The threshold with the highest F1 that calibrated probabilities of the patient's own detections expect."""
    seen = others & (scores > 0)  # a missed mitosis without a detection has no score
    calibrated = IsotonicRegression(out_of_bounds="clip").fit(scores[seen], labels[seen])
    mine = scores[~others & (scores > 0)]
    return _highest(mine, calibrated.predict(mine))


def expected_f1_platt(labels: np.ndarray, scores: np.ndarray, others: np.ndarray, same: np.ndarray) -> float:
    """As `expected_f1`, calibrated by a logistic curve."""
    odds, seen = logit(np.clip(scores, 1e-9, 1 - 1e-9))[:, None], others & (scores > 0)
    calibrated = LogisticRegression(C=1e6).fit(odds[seen], labels[seen])
    mine = ~others & (scores > 0)
    return _highest(scores[mine], calibrated.predict_proba(odds[mine])[:, 1])


def _highest(scores: np.ndarray, chances: np.ndarray) -> float:
    order = np.argsort(-scores)
    expected = 2 * np.cumsum(chances[order]) / (np.arange(1, len(order) + 1) + chances.sum())
    return float(scores[order][expected.argmax()])


def ideas() -> Iterator[tuple[str, np.ndarray, Threshold]]:
    """Yield each idea with its probabilities and its way to a threshold."""
    alexnet = features("alexnet", 60, 4)
    preset = held_out(*alexnet)
    yield "the preset", preset, best_of_others
    yield "threshold of the same scanner's patients", preset, best_of_scanner
    yield "threshold by expected F1, isotonic", preset, expected_f1
    yield "threshold by expected F1, Platt", preset, expected_f1_platt
    yield "standardised by patient", held_out(*alexnet, by_patient=True), best_of_others
    yield "patients of equal weight", patients_weigh_the_same(*alexnet), best_of_others
    yield "three times the penalty", held_out(*alexnet, inverse_penalty=0.0003), best_of_others
    yield "second fit to all negatives", held_out(*alexnet, hard_fraction=1.0), best_of_others
    for name, other in (("MobileNetV2", ("mobilenet_v2", 60, 2)), ("patches of 9.8 µm", ("alexnet", 40, 2))):
        second = features(*other)
        alone = held_out(*second)
        yield f"{name} alone", alone, best_of_others
        both = [np.hstack(pair) for pair in zip(alexnet, second, strict=True)]
        yield f"{name} and the preset side by side", held_out(*both), best_of_others
        yield f"{name} and the preset, mean log-odds", mean_odds(preset, alone), best_of_others


def score(name: str, probabilities: np.ndarray, threshold: Threshold) -> pd.DataFrame:
    """A row per patient."""
    objects = FIELDS.objects(probabilities, SETTINGS.suppress_um)
    labels, scores = objects.label.to_numpy(), objects.probability.to_numpy()
    rows = []
    for patient in PATIENTS:
        others = (objects.patient != patient).to_numpy()
        same = (objects.patient.str[0] == patient[0]).to_numpy()
        cut = threshold(labels, scores, others, same)
        found, truth = scores[~others] >= cut, labels[~others] == 1
        counts = {"tp": found & truth, "fp": found & ~truth, "fn": ~found & truth}
        ap = object_ap(labels[~others], scores[~others], 0.0, None)
        rows.append(
            {"idea": name, "patient": patient} | {key: int(one.sum()) for key, one in counts.items()} | {"ap": ap}
        )
    return pd.DataFrame(rows)


if __name__ == "__main__":
    tables = []
    for name, probabilities, threshold in ideas():
        tables.append(score(name, probabilities, threshold))
        tp, fp, fn = tables[-1][["tp", "fp", "fn"]].sum()
        print(f"{name}: F1 {200 * tp / (2 * tp + fp + fn):.1f}", flush=True)
    pd.concat(tables).round(4).to_csv("ideas.csv", index=False)
