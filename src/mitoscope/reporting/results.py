"""The results of the stages for a network, read and checked in one place for every table, card and page."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mitoscope.datasets.field_table import as_id
from mitoscope.errors import InputError
from mitoscope.files import read_json
from mitoscope.paths import MODELS, PATCHES, Outputs

SCORES = {"patches": ("accuracy", "precision", "recall", "f1", "ap"), "fields": ("precision", "recall", "f1", "ap")}
POOLED = ("mitoses", "detections", "TP", "FP", "FN", "precision %", "recall %", "F1 %")  # columns of `pooled_cells`


@dataclass(frozen=True)
class Scores:
    """The test scores of a network by level (`patches`, `fields` or both), and their 95 % intervals by patient."""

    network: str
    start_weights: str
    metrics: Mapping[str, Mapping[str, Any]]
    intervals: Mapping[str, Mapping[str, Any]]

    def size(self, level: str) -> str:
        """Size of the test set, as text."""
        metrics = self.metrics[level]
        if level == "fields":
            return f"{metrics['mitoses']} in {counted(metrics['fields'], 'field')}"
        return f"{metrics['mitoses']} : {metrics['negatives']}"

    def cells(self, level: str) -> list[str]:
        """Scores of a level in percent, with their intervals, in the order of SCORES."""
        return [percent(self.metrics[level].get(name), self.intervals[level].get(name)) for name in SCORES[level]]

    def domain_rows(self) -> list[list[str]]:
        """Scores of whole fields by domain (name, size, scores as in `cells`); empty if there is only one domain."""
        rows = []
        for domain, metrics in self.metrics["fields"]["domains"].items():
            intervals = self.intervals["fields"]["domains"][domain]
            fields, patients = (counted(metrics[f"{noun}s"], noun) for noun in ("field", "patient"))
            size = f"{metrics['mitoses']} in {fields} of {patients}"
            scores = [percent(metrics.get(name), intervals.get(name)) for name in SCORES["fields"]]
            rows.append([domain, size, *scores])
        return rows


@dataclass(frozen=True)
class Results:
    """The results of the stages for one network, all from one training and one detector.

    Attributes:
        outputs: paths of the files.
        trained: report of stage `train`.
        detector: report of stage `detector`.
        metrics: test scores by level: `patches` and `fields`.
        intervals: 95 % intervals by patient, under the same names.
        test_set: patients, fields and pixels of the test set, and their digests.
        start: source of the start weights, and their hash.
    """

    outputs: Outputs
    trained: Mapping[str, Any]
    detector: Mapping[str, Any]
    metrics: Mapping[str, Mapping[str, Any]]
    intervals: Mapping[str, Mapping[str, Any]]
    test_set: Mapping[str, Any]
    start: Mapping[str, Any]

    @property
    def network(self) -> str:
        """The entry under `train` in params.yaml."""
        return self.outputs.network

    @property
    def run_id(self) -> str:
        """Id of the training's MLflow run."""
        return str(self.trained["run_id"])

    @property
    def model_id(self) -> str:
        """Id of the detector as a logged model of MLflow."""
        return str(self.detector["model_id"])

    @property
    def start_weights(self) -> str:
        """Short name of the start weights."""
        return str(self.trained["start_weights"])

    @property
    def validation_f1(self) -> float:
        """F1 in the validation patients' whole fields, at the detector's threshold."""
        return float(self.detector["validation_fields"]["f1"])

    @property
    def scores(self) -> Scores:
        """The scores, for tables."""
        return Scores(self.network, self.start_weights, self.metrics, self.intervals)

    @property
    def heads_note(self) -> str:
        """A sentence for networks with a field head, which scores whole fields only; otherwise empty."""
        if not self.detector["settings"]["refit_fields"]:
            return ""
        return (
            f"{self.network}: the network's own head scores patches, a field head scores whole fields (refit_fields)."
        )

    def require_patches(self, tags: Mapping[str, str], digest: str) -> None:
        """Check that the network was trained on the current patches.

        Args:
            tags: tags of its MLflow run.
            digest: digest of the patch store.

        Raises:
            InputError: it was trained on other patches.
        """
        if tags.get("patches") != digest:
            raise InputError(
                f"{self.outputs.evaluated}: belongs to other patches than {PATCHES}; "
                f"run {self.outputs.repro('evaluate')} first"
            )


def logged_scores(metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Test scores under their MLflow names: test/f1, test_at_half/f1, test_fields/f1 ...

    They have four digits, because MLflow's table shows every digit that it has; metrics.json has them all.

    Args:
        metrics: content of metrics.json.
    """
    levels = {
        "test": metrics["patches"],
        "test_at_half": metrics["patches"].get("at_half", {}),
        "test_fields": metrics["fields"],
        **{f"test_fields/{name}": scores for name, scores in _plain_names(metrics["fields"]["domains"])},
    }
    return {
        f"{level}/{name}": round(value, 4)
        for level, scores in levels.items()
        for name, value in scores.items()
        if isinstance(value, float)
    }


def _plain_names(domains: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the scores of each domain under a name that MLflow takes, and no other domain has."""
    names: set[str] = set()
    for number, (domain, scores) in enumerate(domains.items(), start=1):
        name = as_id(domain)
        if not name or name in names:
            name = f"{name}-{number}".strip("-")
        names.add(name)
        yield name, scores


def logged_files(evaluated: Path) -> dict[str, list[Path]]:
    """Files of stage `evaluate` that are logged to the run, by the run's folder."""
    return {
        "pictures": [evaluated / f"{name}.png" for name in ("patches", "fields", "errors")],
        "pictures/overlays": sorted((evaluated / "overlays").iterdir()),
        "tables": [evaluated / f"{name}.csv" for name in ("predictions", "objects", "fields")],
    }


def read_results(outputs: Outputs) -> Results:
    """Read the results of an evaluated network.

    Raises:
        InputError: a file is missing or from an older version, the files are not all from one training and one
            detector, or a test patient was trained on.
    """
    remedy = f"run {outputs.repro('evaluate')} first"
    evaluated = outputs.evaluated
    names = [evaluated / name for name in ("metrics.json", "intervals.json", "test_set.json")]
    paths = [outputs.trained, outputs.detected, *names, MODELS / outputs.network / "start.json"]
    results = Results(outputs, *(read_json(path, remedy) for path in paths))
    try:
        _check(results, remedy)
    except (KeyError, TypeError) as error:
        raise InputError(f"{evaluated}: was written by an older version; {remedy}") from error
    return results


def _check(results: Results, remedy: str) -> None:
    """Check that the files belong together.

    Raises:
        InputError: they do not.
        KeyError: an entry is missing.
    """
    outputs, detector, test_set = results.outputs, results.detector, results.test_set
    if detector["run_id"] != results.trained["run_id"]:
        raise InputError(f"{outputs.detected}: belongs to another training than {outputs.trained}; {remedy}")
    if any(test_set[name] != detector[name] for name in ("run_id", "model_id")):
        raise InputError(f"{outputs.evaluated}: contains scores of another detector than {outputs.detected}; {remedy}")
    patients = results.trained["patients"]
    if leaked := {*patients["train"], *patients["validation"]} & {*test_set["patients"]}:
        raise InputError(f"{outputs.evaluated}: patient {min(leaked)} was used for training and for testing; {remedy}")
    for level in SCORES:
        if level not in results.metrics or level not in results.intervals:
            raise KeyError(level)
    results.scores.domain_rows()


def read_all(networks: Iterable[str]) -> tuple[list[Results], dict[str, str]]:
    """Read the results of every evaluated network.

    Returns:
        The results that can be used, and by network the reason why others cannot.

    Raises:
        InputError: no network has been evaluated, or no results can be used.
    """
    found, unusable = [], {}
    for outputs in map(Outputs, networks):
        if not (outputs.evaluated / "metrics.json").exists():
            continue
        try:
            found.append(read_results(outputs))
        except InputError as error:
            unusable[outputs.network] = str(error)
    if not found:
        nothing = "results/evaluate: no network has been evaluated; run `dvc repro` first"
        raise InputError(next(iter(unusable.values()), nothing))
    return found, unusable


def counted(count: int, noun: str) -> str:
    """A number with its noun, such as 2 fields."""
    return f"{count} {noun}{'s' if count != 1 else ''}"


def heading(score: str) -> str:
    """A score's name as a column heading."""
    return score.upper() if score in ("f1", "ap") else score


def percent(value: float | None, interval: Sequence[float] | None = None) -> str:
    """A score in percent, with its interval, if any, on a second line; a dash if there is no score."""
    if value is None or math.isnan(value):
        return "-"
    if interval is None:
        return f"{100 * value:.1f}"
    return f"{100 * value:.1f}\n[{100 * interval[0]:.0f}, {100 * interval[1]:.0f}]"


def pooled_cells(scores: Mapping[str, Any]) -> list[str]:
    """Pooled counts, and scores in percent with their intervals, if any, in the order of POOLED."""
    counts = [str(scores[name]) for name in ("mitoses", "detections", "tp", "fp", "fn")]
    intervals = scores.get("intervals", {})
    return counts + [percent(scores.get(name), intervals.get(name)) for name in ("precision", "recall", "f1")]
