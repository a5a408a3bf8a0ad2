"""Which network is better in the test patients' whole fields, in a sentence."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from mitoscope.errors import InputError
from mitoscope.evaluation.intervals import Difference, paired_f1_difference
from mitoscope.params import Evaluate
from mitoscope.reporting.results import Results

SIGNIFICANT = 0.05
_OBJECTS = "objects.csv"


@dataclass(frozen=True)
class Verdict:
    """The comparison of the best two networks.

    Attributes:
        sentence: which one is better, and whether the difference is larger than chance.
        method: how this was computed; empty if nothing was.
    """

    sentence: str
    method: str = ""


def judge(evaluated: Sequence[Results], settings: Evaluate, *, synthetic: bool) -> Verdict | None:
    """Compare the network with the best field F1 with the second best; None with fewer than two networks.

    Only networks tested on the same fields are compared: of several test sets, the one with the most networks.

    Args:
        evaluated: the networks.
        settings: number of resamples and seed of the bootstrap.
        synthetic: true for synthetic data.

    Raises:
        InputError: a network's objects.csv is missing, or those of two networks do not belong together.
    """
    if len(evaluated) < 2:
        return None
    test_sets: dict[str, list[Results]] = {}
    for results in evaluated:
        test_sets.setdefault(results.test_set["digest"], []).append(results)
    same = max(test_sets.values(), key=len)
    others = [results.network for results in evaluated if results not in same]
    if len(same) < 2:
        names = ", ".join(results.network for results in evaluated)
        return Verdict(f"{names} were tested on different fields and cannot be compared; run `dvc repro`.")
    best, second = sorted(same, key=_field_f1, reverse=True)[:2]
    objects, patients = [_read_objects(results) for results in (best, second)], best.test_set["patients"]
    try:
        difference = paired_f1_difference(patients, *objects, resamples=settings.bootstrap, seed=settings.seed)
    except ValueError as error:
        path = second.outputs.evaluated / _OBJECTS
        raise InputError(f"{path}: has other mitoses than that of {best.network}; run `dvc repro`") from error
    points = 100 * (_field_f1(best) - _field_f1(second))
    sentence = (
        f"{'On synthetic data, ' if synthetic else ''}{_describe(best.network, second.network, points, difference)}"
    )
    if others:
        sentence += f" Tested on other fields and not compared: {', '.join(others)}."
    if difference is None:
        return Verdict(sentence)
    p = "p < 0.001" if difference.p < 0.001 else f"p = {difference.p:.2g}"
    method = (
        f"Two-sided {p}, from a paired bootstrap with {settings.bootstrap} draws of the test patients (at least the "
        "smallest p of a sign test with as many patients); each network at its own threshold."
    )
    return Verdict(sentence, method)


def _describe(best: str, second: str, points: float, difference: Difference | None) -> str:
    """The sentence on two networks; `points` is the difference in F1 in percentage points."""
    where = "in the test patients' whole fields"
    better = f"{best} is better than {second} by {points:.1f} points of F1 {where}"
    same = round(points, 1) == 0
    if same:
        better = f"{best} and {second} have the same F1 {where}"
    if difference is None:
        return f"{better}; with a single test patient, chance cannot be ruled out."
    low, high = (round(100 * limit, 1) + 0.0 for limit in difference.interval)  # + 0.0: no minus before a zero
    interval = f"(95 % interval{' of the difference' if same else ''} {low:.1f} to {high:.1f})"
    if same:
        return f"{better} {interval}."
    if difference.p < SIGNIFICANT:
        judgement = f"with {difference.patients} patients this is larger than chance"
    elif difference.interval[0] > 0:
        judgement = f"{difference.patients} patients are too few to rule out chance"
    else:
        judgement = f"with {difference.patients} patients this is within chance"
    return f"{better} {interval}: {judgement}."


def _field_f1(results: Results) -> float:
    return float(results.metrics["fields"]["f1"])


def _read_objects(results: Results) -> pd.DataFrame:
    """The detections and missed mitoses of a network in the test fields.

    Raises:
        InputError: the file is missing.
    """
    path = results.outputs.evaluated / _OBJECTS
    if not path.exists():
        raise InputError(f"{path}: no such file; run {results.outputs.repro('evaluate')} first")
    # A patient may be called NA: only an empty cell is missing.
    return pd.read_csv(path, dtype={"patient": str, "field": str}, keep_default_na=False, na_values=[""])
