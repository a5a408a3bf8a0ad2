"""The page of `mitoscope report`: the networks and all runs on their data, in a single file."""

import platform
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from mitoscope.files import hash_file, read_json
from mitoscope.paths import CROSSVALIDATED, GALLERY, MODELS
from mitoscope.reporting.crossvalidation import describe
from mitoscope.reporting.figures import draw_networks
from mitoscope.reporting.pictures import Picture, embed
from mitoscope.reporting.results import POOLED, Results, heading, percent, pooled_cells
from mitoscope.reporting.runs import LOGGED, Run, describe_commit, run_row
from mitoscope.reporting.score_tables import score_tables
from mitoscope.reporting.terms import TERMS, explain, explain_setting, shorten
from mitoscope.reporting.verdict import Verdict

_PACKAGES = ("torch", "mlflow", "dvc", "optuna")


@dataclass(frozen=True)
class Network:
    """A network on the page.

    Attributes:
        results: results of the stages.
        run: MLflow run of its training.
        data: name of the dataset, or "synthetic".
        mined: picture of the hardest negatives; None without mining.
    """

    results: Results
    run: Run
    data: str
    mined: Path | None

    @property
    def name(self) -> str:
        """The entry under `train` in params.yaml."""
        return self.results.network

    @property
    def folder(self) -> Path:
        """Output folder of stage `evaluate`."""
        return self.results.outputs.evaluated

    @property
    def note(self) -> str:
        """Network, start weights and data, for the caption of every figure."""
        return f"{self.name}, {self.results.start_weights} start weights, {self.data} data"

    def confusion(self) -> pd.DataFrame:
        """Number of test patches by true class (rows) and predicted class (columns), mitoses first."""
        words = ["mitosis", "negative"]
        table = pd.read_csv(self.folder / "confusion.csv")
        return pd.crosstab(table.actual, table.predicted).reindex(index=words, columns=words, fill_value=0)


def build_page(
    networks: Sequence[Network],
    *,
    summary: Mapping[str, Any],
    digest: str,
    verdict: Verdict | None,
    absent: Mapping[str, str],
    runs: Sequence[Run],
    versions: Mapping[str, str],
) -> str:
    """Build the page, as HTML.

    Args:
        networks: one or more networks, trained on the current patches.
        summary: summary of the patch store.
        digest: digest of the dataset.
        verdict: comparison of the best two networks, if there are two.
        absent: networks that are not on the page, with the reason.
        runs: all finished trainings on the dataset, newest first.
        versions: versions in the registry, with a description of each.

    Raises:
        InputError: a picture is missing or broken.
    """
    current = {network.run.run_id for network in networks}
    environment = Environment(
        loader=PackageLoader("mitoscope", "reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"explain": explain, "setting": explain_setting}
    data = networks[0].data
    return environment.get_template("report.html.j2").render(
        data=data,
        dataset=summary["dataset"],
        summary=summary,
        written=datetime.now(UTC),
        verdict=verdict,
        absent=absent,
        scores=score_tables([network.results.scores for network in networks], data),
        logged=[heading(score) for score in LOGGED],
        runs=[run_row(run, run.run_id in current) for run in runs],
        curves=_curves(networks),
        networks=[_section(network) for network in networks],
        settings=_settings(networks),
        gallery=embed(GALLERY, f"Patches, {data} data") if GALLERY.exists() else None,
        crossvalidation=_crossvalidation(digest),
        pooled=POOLED,
        registry=versions,
        evidence=_evidence(networks[0], digest, summary),
        terms=TERMS,
    )


def _curves(networks: Sequence[Network]) -> Picture:
    """Draw the curves of all networks in one picture."""
    curves, points = {}, {}
    for network in networks:
        name = f"{network.name} ({network.results.start_weights})"
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
    """Content of the section of one network."""
    results, run, note = network.results, network.run, network.note
    outputs = results.outputs
    pictures = [
        embed(outputs.trained.with_suffix(".png"), f"Learning curves: {note}"),
        embed(network.folder / "errors.png", f"The worst errors in the test fields: {note}"),
    ]
    if network.mined is not None:
        pictures.append(embed(network.mined, f"The hardest mined negatives: {note}"))
    found, drawn = outputs.searched / f"{network.name}.json", outputs.searched / network.name
    files = [MODELS / network.name / "start.pt", outputs.weights, outputs.detector]
    return {
        "network": network,
        "confusion": network.confusion(),
        "reachable": f"{percent(results.metrics['fields']['reachable'])} %",
        "pictures": pictures,
        "search": _searched(found, f"run {outputs.repro('search')} -f") if found.exists() else {},
        "search_pictures": [embed(path, f"Search, {path.stem}: {note}") for path in sorted(drawn.glob("*.png"))],
        "commit": run.tags.get("mlflow.source.git.commit"),
        "evidence": {
            "MLflow run": run.run_id,
            "git commit": describe_commit(run),
            "start weights": results.start_weights,
            **{str(file): _sha256(file) for file in files},
            "trained on": f"{run.tags.get('device')} in {run.tags.get('precision')}",
        },
    }


def _searched(path: Path, remedy: str) -> dict[str, str | Markup]:
    """The best settings of a search, and the trial that found them."""
    found = dict(_flatten(read_json(path, remedy)))
    return {
        name: f"{value:.3f}" if name == "validation_f1" and value is not None else shorten(name, str(value))
        for name, value in found.items()
    }


def _settings(networks: Sequence[Network]) -> list[dict[str, Any]]:
    """Every setting with its value for each network: logged settings of the training, and those of the detector."""
    chosen = [
        {**network.run.params, **dict(_flatten(network.results.detector["settings"], "detection."))}
        for network in networks
    ]
    rows = []
    for name in sorted({name for settings in chosen for name in settings}):
        values = [str(settings.get(name, "-")) for settings in chosen]
        shown = [shorten(name, value) for value in values]
        rows.append({"name": name, "values": shown, "differs": len(set(values)) > 1})
    return rows


def _crossvalidation(digest: str) -> list[dict[str, Any]]:
    """Cross-validations on the dataset with this digest."""
    found = []
    for path in sorted(CROSSVALIDATED.glob("*.json")):
        result = read_json(path, f"run `mitoscope crossvalidate {path.stem}` again")
        if result["dataset"]["md5"] != digest:
            continue
        note = describe(result)
        picture = embed(path.with_suffix(".png"), f"FROC curves of the folds, counts and densities: {note}")
        rows = [[level, *pooled_cells(scores)] for level, scores in result["pooled"].items()]
        found.append({"note": note, "folds": len(result["folds"]), "rows": rows, "picture": picture})
    return found


def _evidence(network: Network, digest: str, summary: Mapping[str, Any]) -> dict[str, str]:
    """Hashes of the inputs that all networks share, and the versions of the installed packages."""
    split = network.results.outputs.split
    return {
        "dataset (data.dvc)": digest,
        "patches": summary["digest"],
        str(split): _sha256(split),
        "Python": platform.python_version(),
    } | {package: version(package) for package in _PACKAGES}


def _sha256(path: Path) -> str:
    """The SHA-256 of a file as text; the file may be only in DVC's remote."""
    if not path.exists():
        return "missing here; `dvc pull` downloads it"
    return f"SHA-256 {hash_file(path)}"


def _flatten(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield nested entries under the name `block.entry`."""
    for name, value in content.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
