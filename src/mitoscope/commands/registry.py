"""Commands `registry` and `rollback`."""

from rich.table import Table

from mitoscope.commands.compare import percent
from mitoscope.progress import console
from mitoscope.tracking.registry import MODEL, list_versions, one_at_a_time, roll_back
from mitoscope.tracking.store import require_database

_SCORES = ("recall", "precision", "f1")


def registry() -> None:
    """Print the versions of the registered model, the newest first.

    Raises:
        InputError: there is no store here.
    """
    require_database(MODEL)
    versions = list_versions()
    if not versions:
        console.print(f"{MODEL}: nothing is registered yet; `mitoscope promote` does so, as `dvc repro` at its end")
        return
    table = Table(title=f"Versions of {MODEL}, scores in % of the test patients' whole fields", title_justify="left")
    for column in ("version", "aliases", "architecture", "start weights", "data"):
        table.add_column(column)
    for column in ("validation F1", *_SCORES):
        table.add_column(column, justify="right")
    for column in ("test set", "git"):
        table.add_column(column)
    for version in reversed(versions):
        tags = version.tags
        data = tags.get("dataset", "")
        if tags.get("synthetic") == "true" and "synthetic" not in data:
            data += " (synthetic)"
        shown = (tags.get(name) for name in ("validation_fields_f1", *(f"test_fields_{score}" for score in _SCORES)))
        table.add_row(
            str(version.number),
            version.described_aliases,
            tags.get("architecture", ""),
            tags.get("start_weights", ""),
            data,
            *(percent(float(value)) if value else "" for value in shown),
            tags.get("test_set_digest", "")[:8],
            tags.get("git_commit", "")[:8],
        )
    console.print(table)


def rollback() -> None:
    """Put the former champion back.

    Raises:
        InputError: there is no champion, or none before it.
    """
    require_database(MODEL)
    with one_at_a_time():
        former, now = roll_back()
    console.print(f"{MODEL}: version {now.number} is the champion again, version {former.number} is rolled back")
