"""What options of the training are worth when all layers of AlexNet learn: writes training.csv in the project's folder.

Five folds of patients, each with both scanners. A network learns from the patients of four folds and scores those of
the fifth; nothing chooses an epoch. Thresholds and the table are those of ideas.py, which lies beside it.
"""

from collections.abc import Iterator
from pathlib import Path

import ideas
import numpy as np
import pandas as pd
import torch
from ideas import FIELDS, PATCHES, SETTINGS, SPLIT, SUBSETS, TESTED
from options import calibrated

from mitoscope.datasets.folds import number_folds
from mitoscope.detection.field_head import FieldHead
from mitoscope.detection.stored import read_samples
from mitoscope.evaluation.metrics import patch_scores
from mitoscope.learning.batches import PatchSet
from mitoscope.learning.devices import join
from mitoscope.learning.loop import fit
from mitoscope.learning.networks import PatchNetwork, build, start_state
from mitoscope.learning.scoring import pool_patches, score_patches
from mitoscope.params import Train
from mitoscope.progress import progress

FOLD = number_folds(FIELDS.count_mitoses(), 5, seed=0)
WEIGHTS = torch.load("models/imagenet/alexnet-imagenet1k-features-only.pth", weights_only=True)
MINING = {"start_epoch": 4, "every": 1, "lr_factor": 0.5}
CHANGES = {  # of head, trainable, near_um and mining
    "the start: pooled head, near_um 7.5, mining": ("pooled", "all", 7.5, MINING),
    "no mining": ("pooled", "all", 7.5, {}),
    "near_um 0": ("pooled", "all", 0.0, MINING),
    "the network's own head": ("classifier", "all", 7.5, MINING),
    "only the head learns": ("pooled", "head", 7.5, MINING),
}
FIRST = next(iter(CHANGES))


def trained(training: PatchSet, head: str, trainable: str, mining: dict[str, float]) -> PatchNetwork:
    """A network after six epochs of 4,096 patches."""
    settings = Train.model_validate(
        {
            "model": {"backbone": "alexnet", "head": head, "input_size": 96, "trainable": trainable},
            "sampling": {"samples_per_epoch": 4096, "stain_jitter": 0.2, "mining": mining},
            "optimisation": {"epochs": 6, "batch_size": 128, "patience": 6},
        }
    )
    state, _ = start_state("alexnet", WEIGHTS, 0, head)
    model = build({"backbone": "alexnet", "head": head, "patch_size": 60, "input_size": 96}, state)
    if trainable == "head":
        model.freeze_all_but_head()
    shown = training.windows.take(np.flatnonzero(training.labels)[:64])  # `fit` wants some; no epoch is chosen
    validation = PatchSet(shown, np.ones(64, np.int64))
    with join() as device, progress() as show:
        fit(
            model,
            training,
            validation,
            settings,
            device=device,
            measure=patch_scores,
            work=None,
            fingerprint="",
            on_batch=show,
        )
    return model


def scored(
    name: str, head: str, trainable: str, near_um: float, mining: dict[str, float]
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the candidates' held-out probabilities, by the network's head and, at the start, by a field head."""
    samples, rows = read_samples(PATCHES, SPLIT, *SUBSETS, near_um=near_um)
    by_network, by_field_head = np.zeros(len(TESTED)), np.zeros(len(TESTED))
    for fold in sorted(FOLD.unique()):
        patients = set(FOLD.index[fold == FOLD])
        learnt = np.flatnonzero(~rows.patient.isin(patients))
        mine = np.flatnonzero(np.isin(TESTED, list(patients)))
        training = PatchSet(samples.windows.take(learnt), samples.labels[learnt])
        model, tested = trained(training, head, trainable, mining), FIELDS.windows.take(mine)
        with join() as device:
            by_network[mine] = score_patches(model, tested, device, views=2)
            if name == FIRST:
                pooled = pool_patches(model, training.windows, device)
                regression = FieldHead.fit(pooled, training.windows.store, training.labels, SETTINGS.field_head)
                features = pool_patches(model, tested, device)
                for number in np.unique(FIELDS.field[mine]):
                    inside = FIELDS.field[mine] == number
                    by_field_head[mine[inside]] = regression.probabilities(features[inside])
        print(f"{name}: fold {fold}", flush=True)
    yield name, by_network
    yield f"{name}; calibrated", calibrated(by_network)
    if name == FIRST:
        yield f"{name}; field head, 1 view", by_field_head


if __name__ == "__main__":
    path = Path("training.csv")
    tables = [pd.read_csv(path, dtype={"patient": str})] if path.exists() else []
    done = set(tables[0].idea) if tables else set()
    for change, values in CHANGES.items():
        if f"{change}; calibrated" in done:
            continue
        for name, probabilities in scored(change, *values):
            tables.append(ideas.score(name, probabilities, ideas.best_of_others))
            tp, fp, fn = tables[-1][["tp", "fp", "fn"]].sum()
            print(f"{name}: F1 {200 * tp / (2 * tp + fp + fn):.1f}, AP {tables[-1].ap.mean():.3f}", flush=True)
            pd.concat(tables).round(4).to_csv(path, index=False)
