"""Commands `registry`, `registry retire` and `rollback`."""

from rich import box
from rich.table import Table

from mitoscope.files import read_json, write_json
from mitoscope.paths import REGISTRY
from mitoscope.progress import console
from mitoscope.tracking import registry as registered
from mitoscope.tracking.store import require_database

_SCORES = ("validation_fields_f1", "test_fields_recall", "test_fields_precision", "test_fields_f1")
_WIDE = 120  # characters; a narrower terminal shows fewer columns


def registry() -> None:
    """Print the versions of the registered model, newest first.

    Raises:
        InputError: there is no MLflow store here.
    """
    require_database(registered.MODEL)
    versions = registered.list_versions()
    if not versions:
        console.print(f"{registered.MODEL}: nothing is registered yet; run `dvc repro` and then `mitoscope promote`")
        return
    wide = console.width >= _WIDE
    table = Table(
        title=f"Versions of {registered.MODEL}; scores in the test patients' whole fields, %",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
    )
    for column in ("version", "aliases", "network", *(["start weights"] if wide else []), "data"):
        table.add_column(column, overflow="fold")
    for column in ("validation F1" if wide else "val.\nF1", "recall", "precision", "F1"):
        table.add_column(column, justify="right")
    for column in ("test set", "git") if wide else ():
        table.add_column(column)
    for version in reversed(versions):
        tags = version.tags
        data = tags.get("dataset", "")
        if tags.get("synthetic") == "true" and "synthetic" not in data:
            data += " (synthetic)"
        table.add_row(
            str(version.number),
            version.described_aliases,
            tags.get("network") or tags.get("architecture", ""),
            *([tags.get("start_weights", "")] if wide else []),
            data,
            *(f"{100 * float(tags[name]):.1f}" if tags.get(name) else "" for name in _SCORES),
            *([tags.get("test_set_digest", "")[:8], tags.get("git_commit", "")[:8]] if wide else []),
        )
    console.print(table)


def rollback() -> None:
    """Make the previous champion the champion again.

    Raises:
        InputError: there is no previous champion.
    """
    require_database(registered.MODEL)
    with registered.one_at_a_time():
        former, now = registered.roll_back()
    fate = f", version {former.number} is rolled back" if former else ""
    console.print(f"{registered.MODEL}: version {now.number} is the champion again{fate}")
    _update_state()


def retire(number: int) -> None:
    """Withdraw a version: it cannot become the champion again, and new detectors are not compared with it.

    Raises:
        InputError: the version does not exist.
    """
    require_database(registered.MODEL)
    with registered.one_at_a_time():
        version = registered.retire(number)
    console.print(f"{registered.MODEL}: version {number} is retired")
    if registered.CHAMPION in version.aliases:
        remedy = "`mitoscope promote` chooses another detector that passes the gate"
        if former := registered.champions():
            remedy += f", `mitoscope rollback` makes version {former[-1].number} the champion again"
        console.print(f"there is no champion now; {remedy}")
    _update_state()


def _update_state() -> None:
    """Write the present champion into the state that `mitoscope promote` left, for `mitoscope status`."""
    if REGISTRY.exists():
        state = read_json(REGISTRY, "run `mitoscope promote` again")
        holders = {alias: version.number for version in registered.list_versions() for alias in version.aliases}
        for alias in (registered.CHAMPION, registered.CHALLENGER):
            state[alias] = holders.get(alias)
        write_json(REGISTRY, state)
