"""Command `report`: the networks and all runs on their data, on one page that needs no other file."""

import hashlib
import json
import platform
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from mitoscope.commands.compare import SCORES, Results, heading, percent, read_results
from mitoscope.commands.crossvalidate import COLUMNS, cells
from mitoscope.commands.crossvalidate import OUT as CROSSVALIDATED
from mitoscope.datasets.patches import read_summary
from mitoscope.errors import InputError
from mitoscope.files import write_text
from mitoscope.params import read_params
from mitoscope.paths import EVALUATED, GALLERY, MODELS, PATCHES, SEARCHED, SPLIT, TRAINED
from mitoscope.progress import console
from mitoscope.reporting.figures import draw_networks
from mitoscope.reporting.pictures import Picture, embed
from mitoscope.tracking import history
from mitoscope.tracking.history import Training
from mitoscope.tracking.registry import list_versions
from mitoscope.tracking.runs import flatten

_LEVELS = {
    "patches": ("Test patches", "mitoses : others"),
    "fields": ("Whole test fields: mitoses found within 7.5 um", "mitoses"),
}
_LOGGED = ("recall", "precision", "f1")  # of each level, in the table of runs
_PACKAGES = ("torch", "mlflow", "dvc", "optuna")


@dataclass(frozen=True)
class Network:
    """A network whose results are those of the patches that are there now."""

    results: Results
    run: Training
    data: str

    @property
    def arch(self) -> str:
        """Its name."""
        return self.results.arch

    @property
    def folder(self) -> Path:
        """Where stage `evaluate` wrote."""
        return EVALUATED / self.arch

    @property
    def note(self) -> str:
        """What stands beside each of its figures."""
        return f"{self.arch}, {self.results.start_weights} start weights, {self.data} data"

    def confusion(self) -> pd.DataFrame:
        """Test patches by what they are (rows) and what they were taken for (columns), mitoses first."""
        words = ["mitosis", "negative"]
        table = pd.read_csv(self.folder / "confusion.csv")
        return pd.crosstab(table.actual, table.predicted).reindex(index=words, columns=words, fill_value=0)


def report(out: Path) -> None:
    """Write the page to `out` and log it to the run of every network on it, as report.html.

    Raises:
        InputError: no network has been evaluated on the patches that are there now, or the MLflow store cannot be
            opened or lacks its run.
    """
    summary = read_summary(PATCHES)
    data = "synthetic" if summary["dataset"]["synthetic"] else summary["dataset"]["name"]
    found = [Network(results, history.training(results.trained["run_id"]), data) for results in read_results()]
    networks = [network for network in found if _is_current(network, summary)]
    if not networks:
        raise InputError(f"{EVALUATED}: all results are of other patches or older runs; run `dvc repro` first")
    digest = networks[0].run.digest
    current = {network.run.run_id for network in networks}

    template = Environment(
        loader=PackageLoader("mitoscope", "reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template("report.html.j2")
    page = template.render(
        data=data,
        dataset=summary["dataset"],
        summary=summary,
        written=datetime.now(UTC),
        absent=sorted(set(read_params().train) - {network.arch for network in networks}),
        levels=[_level(level, networks) for level in _LEVELS],
        logged=[heading(score) for score in _LOGGED],
        runs=[_run_row(run, run.run_id in current) for run in history.finished_trainings(digest)],
        curves=_curves(networks),
        networks=[_section(network) for network in networks],
        settings=_settings(networks),
        gallery=embed(GALLERY, f"Patches, {data} data") if GALLERY.exists() else None,
        crossvalidation=_crossvalidation(digest),
        columns=COLUMNS[:-1],
        registry=_versions(),
        evidence=_evidence(digest, summary),
    )
    write_text(out, page)
    history.log_text(current, page, "report.html")
    size = len(page.encode()) / 1e6
    runs = ", ".join(network.arch for network in networks)
    console.print(f"{out}: {size:.1f} MB, needs no other file; logged to MLflow as report.html of {runs}")


def _is_current(network: Network, summary: Mapping[str, Any]) -> bool:
    """Whether a network's results are of these patches and of its last run; a half-finished `dvc repro` has others."""
    there = (summary["digest"], network.results.metrics["patches"]["f1"])
    return (network.run.tags.get("patches"), network.run.metrics.get("test/f1")) == there


def _level(level: str, networks: Sequence[Network]) -> dict[str, Any]:
    title, size = _LEVELS[level]
    rows = []
    for network in networks:
        results = network.results
        rows.append([network.arch, results.start_weights, network.data, results.size(level), *results.cells(level)])
    scores = [f"{heading(score)} %" for score in SCORES[level]]
    return {"title": title, "columns": ["network", "start weights", "data", size, *scores], "rows": rows}


def _run_row(run: Training, current: bool) -> dict[str, Any]:
    scores = [f"{level}/{score}" for level in ("test", "test_fields") for score in _LOGGED]
    angles = (run.params.get(f"train.rotations.{label}", "") for label in ("positive", "negative"))
    return {
        "run": run,
        "current": current,
        "rotations": " / ".join(str(len(text.split(","))) for text in angles),
        "commit": _commit(run),
        "scores": [percent(run.metrics.get(name)) for name in ("best_validation/best_f1", *scores)],
    }


def _commit(run: Training) -> str:
    commit = run.tags.get("mlflow.source.git.commit", "")[:8] or "none"
    return f"{commit}\n+ changes" if run.tags.get("git_dirty") == "true" else commit


def _curves(networks: Sequence[Network]) -> Picture:
    """The curves of all networks in one picture."""
    curves, points = {}, {}
    for network in networks:
        name = f"{network.arch} ({network.results.start_weights})"
        curves[name] = {curve: pd.read_csv(network.folder / f"{curve}.csv") for curve in ("pr", "roc", "froc")}
        patches, fields = (network.results.metrics[level] for level in ("patches", "fields"))
        false_alarms = network.confusion().loc["negative", "mitosis"] / max(patches["negatives"], 1)
        points[name] = {
            "pr": (patches["recall"], patches["precision"]),
            "roc": (false_alarms, patches["recall"]),
            "froc": (fields["fp"] / fields["area_mm2"], fields["recall"]),
        }
    prevalence = patches["mitoses"] / (patches["mitoses"] + patches["negatives"])
    note = f"start weights in brackets, {networks[0].data} data"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "curves.png")
        draw_networks(path, curves, points, prevalence=prevalence, title=f"test patients; {note}")
        return embed(path, f"Precision-recall, ROC and FROC curves of the test patients; {note}")


def _section(network: Network) -> dict[str, Any]:
    """What the page says about a single network."""
    arch, run, note = network.arch, network.run, network.note
    pictures = [
        embed(TRAINED / f"{arch}.png", f"Learning curves: {note}"),
        embed(network.folder / "errors.png", f"The worst errors in the test fields: {note}"),
    ]
    with tempfile.TemporaryDirectory() as folder:
        mined = history.fetch(run.run_id, "pictures/mined.png", Path(folder))
        if mined is not None:
            pictures.append(embed(mined, f"Negatives that the last mining found hardest: {note}"))
    searched = sorted((SEARCHED / arch).glob("*.png"))
    files = [MODELS / arch / name for name in ("start.pt", "best.pt")]
    return {
        "network": network,
        "confusion": network.confusion(),
        "reachable": f"{percent(network.results.metrics['fields']['reachable'])} %",
        "pictures": pictures,
        "search": _facts(SEARCHED / f"{arch}.json"),
        "search_pictures": [embed(path, f"Search, {path.stem}: {note}") for path in searched],
        "commit": run.tags.get("mlflow.source.git.commit"),
        "evidence": {
            "MLflow run": run.run_id,
            "git commit": _commit(run),
            "start weights": network.results.start_weights,
            **{str(file): _sha256(file) for file in files},
            "trained on": f"{run.tags.get('device')} in {run.tags.get('precision')}",
        },
    }


def _settings(networks: Sequence[Network]) -> dict[str, list[str]]:
    """Every logged setting of each network."""
    names = sorted({name for network in networks for name in network.run.params})
    return {name: [network.run.params.get(name, "-") for network in networks] for name in names}


def _crossvalidation(digest: str) -> list[dict[str, Any]]:
    """The cross-validations on the dataset with this digest."""
    found = []
    for path in sorted(CROSSVALIDATED.glob("*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        if result["dataset"]["md5"] != digest:
            continue
        data = "synthetic" if result["dataset"]["synthetic"] else result["dataset"]["name"]
        note = f"{result['network']}, {result['start_weights']['source']} start weights, {data} data"
        picture = embed(path.with_suffix(".png"), f"FROC of the folds, counts and densities: {note}")
        rows = [cells(level, pooled) for level, pooled in result["pooled"].items()]
        found.append({"note": note, "folds": len(result["folds"]), "rows": rows, "picture": picture})
    return found


def _facts(path: Path) -> dict[str, Any] | None:
    """The entries of a JSON file as `block.entry` names; None where there is no such file."""
    if not path.exists():
        return None
    content = json.loads(path.read_text(encoding="utf-8"))
    return flatten(content if isinstance(content, dict) else {path.stem: content})


def _versions() -> dict[str, str]:
    """The registry's versions as they are now, the newest first; `mitoscope registry` says more."""
    shown = {}
    for registered in reversed(list_versions()):
        aliases = registered.described_aliases
        tags = registered.tags
        scores = f"field F1 {tags.get('test_fields_f1', '-')}, test set {tags.get('test_set_digest', '')[:8]}"
        words = (
            tags.get("architecture", ""),
            f"{tags.get('start_weights', '')} start weights",
            tags.get("dataset", ""),
        )
        name = f"version {registered.number}" + (f" ({aliases})" if aliases else "")
        shown[name] = f"{', '.join(words)}: {scores}"
    return shown


def _evidence(digest: str, summary: Mapping[str, Any]) -> dict[str, str]:
    """The hashes of what all networks share, and the packages here."""
    return {
        "dataset (data.dvc)": digest,
        "patches": summary["digest"],
        str(SPLIT): _sha256(SPLIT),
        "Python": platform.python_version(),
    } | {package: version(package) for package in _PACKAGES}


def _sha256(path: Path) -> str:
    """The SHA-256 of a file, in words; it may be in DVC's remote only."""
    if not path.exists():
        return "not here; `dvc pull` brings it"
    with path.open("rb") as file:
        return f"SHA-256 {hashlib.file_digest(file, 'sha256').hexdigest()}"
