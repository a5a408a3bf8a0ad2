"""The settings chosen on inner folds, too: writes nested.csv in the project's folder.

For each patient, the settings and the threshold are those that are best for the nine others, scored by heads that have
seen neither this patient nor the one they score. A head that learnt from the nine others then scores the patient.
"""

from itertools import combinations

import ideas
import numpy as np
import pandas as pd
from ideas import FIELDS, PATIENTS, SETTINGS, TESTED
from joblib import Parallel, delayed
from options import annotated, features

from mitoscope.evaluation.metrics import best_threshold
from mitoscope.progress import progress

Choice = tuple[np.ndarray, np.ndarray, dict[str, object]]
"""Features of the samples and of the candidates, and further arguments of `ideas.held_out`."""


def choices() -> dict[str, Choice]:
    """Return the settings among which to choose."""
    by_views = features()
    both = [np.hstack(pair) for pair in zip(by_views["4 views"], ideas.features("mobilenet_v2", 60, 2), strict=True)]
    return {
        "the preset": (*by_views["4 views"], {}),
        "1 view": (*by_views["1 view"], {}),
        "8 views": (*by_views["8 views"], {}),
        "near_um 0": (*by_views["4 views"], {"kept": annotated()}),
        "three times the penalty": (*by_views["4 views"], {"inverse_penalty": 0.0003}),
        "MobileNetV2 and the preset side by side": (both[0], both[1], {}),
    }


def inner_and_outer(choice: Choice) -> dict[str, np.ndarray]:
    """For each patient, the probabilities of all candidates by heads that have not seen this patient."""
    learnt, tested, options = choice
    with progress() as show:
        pairs = list(combinations(PATIENTS, 2))
        fitted = Parallel(n_jobs=2, return_as="generator")(
            delayed(ideas.held_out)(learnt, tested, left_out=pair, **options) for pair in pairs
        )
        found = {}
        for done, (pair, probabilities) in enumerate(zip(pairs, fitted, strict=True)):
            found[pair] = found[pair[::-1]] = probabilities
            show("pairs of patients", done + 1, len(pairs))
    outer = ideas.held_out(learnt, tested, **options)
    result = {}
    for patient in PATIENTS:
        result[patient] = np.where(patient == TESTED, outer, 0)
        for other in PATIENTS:
            if other != patient:
                result[patient] = np.where(other == TESTED, found[patient, other], result[patient])
    return result


def main() -> None:
    """Score every patient with the settings that the others choose."""
    rows = []
    for name, choice in choices().items():
        for patient, probabilities in inner_and_outer(choice).items():
            objects = FIELDS.objects(probabilities, SETTINGS.suppress_um)
            labels, scores = objects.label.to_numpy(), objects.probability.to_numpy()
            mine = (objects.patient == patient).to_numpy()
            threshold, inner_f1 = best_threshold(labels[~mine], scores[~mine])
            found, truth = scores[mine] >= threshold, labels[mine] == 1
            counts = {"tp": found & truth, "fp": found & ~truth, "fn": ~found & truth}
            rows.append(
                {"settings": name, "patient": patient, "inner_f1": inner_f1}
                | {key: int(one.sum()) for key, one in counts.items()}
            )
        print(f"{name}: F1 {f1(pd.DataFrame(rows).query('settings == @name')):.1f}", flush=True)
    table = pd.DataFrame(rows)
    best = table.groupby("patient").inner_f1.idxmax()
    table["chosen"] = table.index.isin(best)
    table.round(4).to_csv("nested.csv", index=False)
    print(table[table.chosen].to_string(index=False))
    print(f"chosen on inner folds: F1 {f1(table[table.chosen]):.1f}")


def f1(table: pd.DataFrame) -> float:
    """The pooled F1, %."""
    tp, fp, fn = table[["tp", "fp", "fn"]].sum()
    return 200 * tp / (2 * tp + fp + fn)


if __name__ == "__main__":
    main()
