"""Command `report`: one HTML page with the networks and all runs on their data."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mitoscope.datasets.patches import read_summary
from mitoscope.errors import InputError
from mitoscope.files import write_text
from mitoscope.params import read_params
from mitoscope.paths import PATCHES
from mitoscope.progress import console
from mitoscope.reporting.report import Network, build_page
from mitoscope.reporting.results import Results, logged_files, logged_scores, percent, read_all
from mitoscope.reporting.verdict import judge
from mitoscope.tracking import history, runs
from mitoscope.tracking.history import Training
from mitoscope.tracking.registry import list_versions
from mitoscope.tracking.store import connect


def report(out: Path) -> None:
    """Write the page to `out`, and log it as report.html to the run of every network on it.

    Raises:
        InputError: no network has been evaluated on the current patches, a file of a network is missing, or the
            MLflow store cannot be opened or lacks the run.
    """
    summary, params = read_summary(PATCHES), read_params()
    evaluated, absent = read_all(params.train)
    connect()  # fails here once if the store does not answer, instead of once per network
    trainings: dict[str, Training] = {}
    for results in evaluated:
        try:
            training = history.training(results.run_id)
            results.require_patches(training.tags, summary["digest"])
        except InputError as error:
            absent[results.network] = str(error)
        else:
            trainings[results.network] = _with_true_scores(results, training)
    found = [results for results in evaluated if results.network in trainings]
    if not found:
        raise InputError(next(iter(absent.values())))
    for network in params.train:
        if network not in trainings:
            absent.setdefault(network, f"it has not been evaluated; run `dvc repro evaluate@{network}`")
    data = "synthetic" if summary["dataset"]["synthetic"] else summary["dataset"]["name"]
    digest = trainings[found[0].network].digest
    with tempfile.TemporaryDirectory() as folder:
        networks = []
        for results in found:
            there = Path(folder, results.network)
            there.mkdir()
            mined = history.fetch(results.run_id, "pictures/mined.png", there)
            networks.append(Network(results, trainings[results.network], data, mined))
        page = build_page(
            networks,
            summary=summary,
            digest=digest,
            verdict=judge(found, params.evaluate, synthetic=summary["dataset"]["synthetic"]),
            absent=absent,
            runs=history.finished_trainings(digest),
            versions=_describe_versions(),
        )
    write_text(out, page)
    history.log_text([results.run_id for results in found], page, "report.html")
    for network, reason in absent.items():
        console.print(f"{network} is not on the page: {reason}", markup=False)
    names = ", ".join(results.network for results in found)
    size = len(page.encode()) / 1e6
    console.print(f"{out}: {size:.1f} MB, needs no other file; logged to MLflow as report.html of {names}")


def _with_true_scores(results: Results, training: Training) -> Training:
    """Return the training with the current test scores; log them again if its run has other scores.

    The run has other scores if DVC restored an earlier evaluation of the same training without running anything.
    """
    scores = logged_scores(results.metrics)
    if all(training.metrics.get(name) == value for name, value in scores.items()):
        return training
    evaluated = results.outputs.evaluated
    runs.log_results(results.run_id, results.model_id, scores, logged_files(evaluated))
    console.print(f"{results.network}: its MLflow run had other test scores; logged those of {evaluated} again")
    return history.training(results.run_id)


def _describe_versions() -> dict[str, str]:
    """Describe the current versions in the registry, newest first; `mitoscope registry` shows more."""
    shown = {}
    for version in reversed(list_versions()):
        aliases = version.described_aliases
        name = f"version {version.number}" + (f" ({aliases})" if aliases else "")
        shown[name] = _describe(version.tags)
    return shown


def _describe(tags: Mapping[str, Any]) -> str:
    network = tags.get("network", tags.get("architecture", ""))  # the tag's name before version 0.2
    f1 = f"{percent(float(tags['test_fields_f1']))} %" if "test_fields_f1" in tags else "-"
    scores = f"field F1 {f1}, test set {tags.get('test_set_digest', '')[:8]}"
    return f"{network}, {tags.get('start_weights', '')} start weights, {tags.get('dataset', '')}: {scores}"
