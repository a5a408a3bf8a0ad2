"""How the figure grows with the patients that the field head learns from: writes learning_curve.csv and a picture.

The protocol is that of ideas.py, but each head learns from 1, 2, 4 or all 9 other patients. They are drawn 5 times, and
those of a smaller number are among those of a larger one.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from ideas import FIELDS, LEARNT, PATIENTS, SAMPLE_FIELDS, SAMPLES, SETTINGS, TESTED, best_of_others, features, score

from mitoscope.detection.field_head import FieldHead

NUMBERS, DRAWS = (1, 2, 4, 9), 5
GROUPS = {"all ten": ("A", "H"), "Aperio, four": ("A",), "Hamamatsu, six": ("H",)}


def held_out(number: int, draw: int) -> np.ndarray:
    """The probabilities of the candidates by heads that learnt from so many other patients."""
    learnt, tested = features("alexnet", 60, 4)
    probabilities = np.zeros(len(tested))
    for place, patient in enumerate(PATIENTS):
        others = [name for name in PATIENTS if name != patient]
        chosen = np.random.default_rng([draw, place]).permutation(others)[:number]
        rows = np.flatnonzero(np.isin(LEARNT, chosen))
        head = FieldHead.fit(learnt[rows].copy(), SAMPLE_FIELDS[rows], SAMPLES.labels[rows], SETTINGS.field_head)
        for field in np.unique(FIELDS.field[patient == TESTED]):
            inside = FIELDS.field == field
            probabilities[inside] = head.probabilities(tested[inside])
    return probabilities


def draw(table: pd.DataFrame) -> None:
    """Draw the F1 of each draw, and the mean of the draws as a line."""
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for name, scanners in GROUPS.items():
        mine = table[table.patient.str[0].isin(scanners)]
        counts = mine.groupby(["number", "draw"])[["tp", "fp", "fn"]].sum()
        f1 = 200 * counts.tp / (2 * counts.tp + counts.fp + counts.fn)
        (line,) = axes.plot(f1.groupby("number").mean(), label=name)
        axes.plot(f1.index.get_level_values("number"), f1, "o", color=line.get_color(), markersize=4, alpha=0.6)
        print(name, f1.groupby("number").agg(["mean", "min", "max"]).round(1).to_string(), sep="\n")
    axes.set_xscale("log", base=2)
    axes.set_xticks(NUMBERS, [str(number) for number in NUMBERS])
    axes.set(xlabel="patients that a head learns from", ylabel="F1 in whole fields, %", ylim=(0, 80))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig("learning_curve.png", dpi=110)


if __name__ == "__main__":
    tables = []
    for number in NUMBERS:
        for turn in range(DRAWS if number < max(NUMBERS) else 1):
            table = score("", held_out(number, turn), best_of_others).drop(columns="idea")
            tables.append(table.assign(number=number, draw=turn))
    found = pd.concat(tables).round(4)
    found.to_csv("learning_curve.csv", index=False)
    draw(found)
