"""Command `status`: the state of a project and the next command.

It loads neither torch, MLflow nor pandas, so it is fast.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from rich import box
from rich.markup import escape
from rich.table import Table

from mitoscope.datasets.fields import read_description, scan_fields
from mitoscope.errors import InputError
from mitoscope.files import read_json
from mitoscope.params import read_params
from mitoscope.paths import CROSSVALIDATED, DATA, PATCHES, REGISTRY, Outputs
from mitoscope.progress import console
from mitoscope.reporting.results import Results, percent, read_all
from mitoscope.tracking.provenance import dataset_digest

_UNKNOWN = "unknown while another DVC command is running here"


def status() -> None:
    """Print the data, the stages that are out of date, the latest scores, the champion and the next command.

    Raises:
        InputError: params.yaml, dvc.yaml, dataset.yaml or a result cannot be used.
    """
    networks = read_params().train
    data, sound = _data()
    stale = _stale_stages() if sound else None
    scores, evaluated = _scores(networks)
    champion, promoted = _champion({results.network: results.model_id for results in evaluated})
    table = Table(box=box.SIMPLE, show_header=False, show_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("data", escape(data))
    if sound:
        table.add_row("pipeline", _UNKNOWN if stale is None else _describe_stages(stale))
    for line in scores or ["no network has been evaluated"]:
        table.add_row("test fields", escape(line))
    for line in _crossvalidations():
        table.add_row("cross-validation", escape(line))
    table.add_row("champion", champion)
    table.add_row("next", _next_command(sound, stale, evaluated=bool(evaluated), promoted=promoted))
    console.print(table)


def _data() -> tuple[str, bool]:
    """Describe data/, and say whether it is valid."""
    if not DATA.is_dir():
        return "no folder data/", False
    fields, problems, _ = scan_fields(DATA)
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        return f"{problems[0]}{more}", False
    description = read_description(DATA)
    kind = "synthetic" if description.synthetic else "real"
    patients = len({field.patient for field in fields})
    return f"{len(fields)} fields of {patients} patients: {description.name}, {kind}", True


def _stale_stages() -> list[str] | None:
    """Return the stages that are out of date; None while another DVC command runs here.

    Raises:
        InputError: DVC cannot read dvc.yaml.
    """
    from dvc.exceptions import DvcException
    from dvc.lock import LockError
    from dvc.repo import Repo

    if _runs_stage():
        return None
    try:
        with Repo() as repo:
            return list(repo.status(targets=["dvc.yaml"]))  # without the folds of a cross-validation
    except LockError:
        return None
    except DvcException as error:
        raise InputError(f"dvc.yaml: {' '.join(str(error).split())}; correct dvc.yaml or params.yaml") from error


def _runs_stage() -> bool:
    """Whether a stage of DVC runs here: meanwhile DVC holds no lock, but notes its process in .dvc/tmp/rwlock."""
    import psutil

    path = Path(".dvc/tmp/rwlock")
    holders = read_json(path, "remove it if no DVC command runs").get("write", {}) if path.exists() else {}
    return any(psutil.pid_exists(holder["pid"]) for holder in holders.values() if holder)


def _describe_stages(stale: list[str]) -> str:
    if not stale:
        return "up to date"
    shown = ", ".join(stale[:4]) + (f" and {len(stale) - 4} more" if len(stale) > 4 else "")
    return f"out of date: {shown}"


def _scores(networks: Iterable[str]) -> tuple[list[str], list[Results]]:
    """Return a line per evaluated network with its F1 in whole test fields, and the results that can be used."""
    names = [name for name in networks if (Outputs(name).evaluated / "metrics.json").exists()]
    if not names:
        return [], []
    try:
        evaluated, unusable = read_all(names)
    except InputError as error:
        return [str(error)], []
    lines = []
    for results in evaluated:
        f1 = _f1(results.metrics["fields"]["f1"], results.intervals["fields"].get("f1"))
        text = f"{results.network}: {f1}, {results.scores.size('fields')}, from {results.start_weights} weights"
        lines.append(text + _of_data(results.test_set["dataset_digest"]))
    return lines + list(unusable.values()), evaluated


def _crossvalidations() -> list[str]:
    """Return a line per finished cross-validation with its pooled F1."""
    lines = []
    for path in sorted(CROSSVALIDATED.glob("*.json")):
        remedy = f"run `mitoscope crossvalidate {path.stem}` again"
        report = read_json(path, remedy)
        try:
            fields, folds, digest = report["pooled"]["fields"], len(report["folds"]), report["dataset"]["md5"]
            f1 = _f1(fields["f1"], fields.get("intervals", {}).get("f1"))
        except (KeyError, TypeError) as error:
            raise InputError(f"{path}: was written by another version; {remedy}") from error
        lines.append(f"{path.stem}: {f1}, {folds} folds{_of_data(digest)}")
    return lines


def _f1(value: float, interval: Sequence[float] | None) -> str:
    """F1 in percent with its interval, on one line."""
    return f"F1 {percent(value, interval)} %".replace("\n", " ")


def _of_data(digest: str) -> str:
    """Say which data a result is from, if they are not those in data/, or if these are synthetic."""
    summary = PATCHES / "summary.json"  # `read_summary` would import pandas, a second
    patches = read_json(summary, "run `dvc repro extract`").get("digest", "") if summary.exists() else ""
    if digest != dataset_digest(DATA, patches):
        return " (from other data)"
    return ", synthetic" if read_description(DATA).synthetic else ""


def _champion(detectors: Mapping[str, str]) -> tuple[str, bool]:
    """Describe the champion after the last `mitoscope promote`, and say whether that has judged these detectors.

    Args:
        detectors: id of the evaluated detector by network.
    """
    if not REGISTRY.exists():
        return "none yet", False
    remedy = "run `mitoscope promote` again"
    state = read_json(REGISTRY, remedy)
    try:
        champion, networks = state["champion"], {number: name for name, number in state["versions"].items()}
        promoted = detectors.items() <= state.get("model_ids", {}).items()
    except (AttributeError, KeyError) as error:
        raise InputError(f"{REGISTRY}: was written by another version; {remedy}") from error
    if champion is None:
        return "none: no detector has passed the gate, or the champion was retired", promoted
    return f"version {champion}, {networks.get(champion, 'from an earlier pipeline run')}", promoted


def _next_command(sound: bool, stale: list[str] | None, *, evaluated: bool, promoted: bool) -> str:
    """Return the next command, as text."""
    if not DATA.is_dir():
        return "dvc pull data.dvc   (the synthetic sample), or mitoscope import -h"
    if not sound:
        return "mitoscope validate"
    if stale is None:
        return "wait for it to end, then mitoscope status"
    if stale or not evaluated:
        return "dvc repro"
    return "mitoscope compare, report or ui" if promoted else "mitoscope promote"
