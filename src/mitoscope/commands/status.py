"""Command `status`: the state of a project and the next command.

It loads neither torch nor MLflow, so it is fast.
"""

from collections.abc import Iterable

from rich import box
from rich.markup import escape
from rich.table import Table

from mitoscope.datasets.fields import read_description, scan_fields
from mitoscope.errors import InputError
from mitoscope.files import read_json
from mitoscope.params import read_params
from mitoscope.paths import CROSSVALIDATED, DATA, REGISTRY
from mitoscope.progress import console
from mitoscope.reporting.results import percent, read_all

_UNKNOWN = "unknown while another DVC command is running here"


def status() -> None:
    """Print the data, the stages that are out of date, the latest scores, the champion and the next command.

    Raises:
        InputError: params.yaml cannot be used.
    """
    networks = read_params().train
    data, sound = _data()
    stale = _stale_stages() if sound else None
    scores = _scores(networks)
    champion = _champion()
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
    table.add_row("champion", champion or "none yet")
    table.add_row("next", _next_command(sound, stale, bool(scores), champion is not None))
    console.print(table)


def _data() -> tuple[str, bool]:
    """Describe data/, and say whether it is valid."""
    if not DATA.is_dir():
        return "no folder data/", False
    fields, problems = scan_fields(DATA)
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        return f"{problems[0]}{more}", False
    description = read_description(DATA)
    kind = "synthetic" if description.synthetic else "real"
    patients = len({field.patient for field in fields})
    return f"{len(fields)} fields of {patients} patients: {description.name}, {kind}", True


def _stale_stages() -> list[str] | None:
    """Return the stages that are out of date; None while another DVC command holds the lock."""
    from dvc.lock import LockError
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            changed = repo.status()
    except LockError:
        return None
    return [name for name in changed if not name.startswith("crossvalidation/")]


def _describe_stages(stale: list[str]) -> str:
    if not stale:
        return "up to date"
    shown = ", ".join(stale[:4]) + (f" and {len(stale) - 4} more" if len(stale) > 4 else "")
    return f"out of date: {shown}"


def _scores(networks: Iterable[str]) -> list[str]:
    """Return a line per evaluated network with its F1 in the whole test fields, or why its files cannot be used."""
    try:
        evaluated, unusable = read_all(networks)
    except InputError:
        return []
    lines = []
    for results in evaluated:
        interval = results.intervals["fields"].get("f1")
        f1 = percent(results.metrics["fields"]["f1"], interval).replace("\n", " ")
        lines.append(f"{results.network}: F1 {f1} %, {results.size('fields')}, from {results.start_weights} weights")
    return lines + list(unusable.values())


def _crossvalidations() -> list[str]:
    """Return a line per finished cross-validation with its pooled F1."""
    lines = []
    for path in sorted(CROSSVALIDATED.glob("*.json")):
        report = read_json(path, f"run `mitoscope crossvalidate {path.stem}` again")
        fields = report["pooled"]["fields"]
        f1 = percent(fields["f1"], fields.get("intervals", {}).get("f1")).replace("\n", " ")
        lines.append(f"{path.stem}: F1 {f1} %, {len(report['folds'])} folds")
    return lines


def _champion() -> str | None:
    """Describe the champion after the last `mitoscope promote`; None if there is none."""
    if not REGISTRY.exists():
        return None
    state = read_json(REGISTRY, "run `mitoscope promote` again")
    if state["champion"] is None:
        return None
    networks = {number: network for network, number in state["versions"].items()}
    network = networks.get(state["champion"], "from an earlier pipeline run")
    return f"version {state['champion']}, {network} (at the last `mitoscope promote`)"


def _next_command(sound: bool, stale: list[str] | None, evaluated: bool, champion: bool) -> str:
    """Return the next command, as text."""
    if not DATA.is_dir():
        return "dvc pull data.dvc   (the synthetic sample), or mitoscope import -h"
    if not sound:
        return "mitoscope validate"
    if stale is None:
        return "wait for it to end, then mitoscope status"
    if stale or not evaluated:
        return "dvc repro"
    return "mitoscope compare, report or ui" if champion else "mitoscope promote"
