"""The model registry: versions of `mitoscope` with their evidence, and the aliases that the gate moves.

Each version is a detector, stored as a logged model in MLflow; one training can have several. The history is stored in
the registry itself: a tag of the registered model lists the champions in order, and a tag of a version says that it was
rolled back or retired. So every checkout of the project sees the same history.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mitoscope.errors import InputError
from mitoscope.tracking.store import connect, locked, open_store, store, telling

MODEL = "mitoscope"
CHAMPION, CHALLENGER = "champion", "challenger"
_HISTORY, _ROLLED_BACK, _RETIRED = "champions", "rolled_back", "retired"
_REMEMBERED = 1000  # champions; a tag is limited to 100,000 characters
_BY_ID = "models:/"
_PROMOTE = "`mitoscope promote` chooses one"
_ABOUT = "Detectors of mitotic figures. `mitoscope promote`, `rollback` and `registry retire` move the alias champion."


@dataclass(frozen=True)
class Version:
    """One version of the registered model.

    Attributes:
        number: MLflow's version number, from 1.
        model_id: id of the detector's logged model in MLflow.
        run_id: id of the training's run.
        tags: evidence and history.
        card: model card, Markdown.
        aliases: `champion`, `challenger`, and any that users set.
    """

    number: int
    model_id: str
    run_id: str
    tags: Mapping[str, str]
    card: str
    aliases: tuple[str, ...]

    @property
    def rolled_back(self) -> bool:
        """Whether a rollback replaced it as the champion."""
        return _ROLLED_BACK in self.tags

    @property
    def retired(self) -> bool:
        """Whether it was withdrawn: it cannot become the champion, and new detectors are not compared with it."""
        return _RETIRED in self.tags

    @property
    def eligible(self) -> bool:
        """Whether it may become the champion."""
        return not (self.rolled_back or self.retired)

    @property
    def described_aliases(self) -> str:
        """Text for a table: its aliases, and "rolled back" or "retired" if it is."""
        fates = [tag.replace("_", " ") for tag in (_ROLLED_BACK, _RETIRED) if tag in self.tags]
        return ", ".join((*self.aliases, *fates))


def list_versions() -> list[Version]:
    """Return all versions, oldest first; empty if nothing is registered yet."""
    client = open_store()
    model = next(iter(client.search_registered_models(f"name = '{MODEL}'")), None)
    if model is None:
        return []
    aliases: dict[int, list[str]] = {}
    for alias, number in model.aliases.items():
        aliases.setdefault(int(number), []).append(alias)
    versions = [
        Version(
            int(found.version),
            (found.source or "").removeprefix(_BY_ID),
            found.run_id or "",
            dict(found.tags),
            found.description or "",
            tuple(sorted(aliases.get(int(found.version), []))),
        )
        for found in client.search_model_versions(f"name = '{MODEL}'", max_results=10_000)
    ]
    return sorted(versions, key=lambda version: version.number)


def champions() -> list[Version]:
    """Return the existing, eligible versions that are or were the champion, oldest first."""
    versions = {version.number: version for version in list_versions()}
    # An alias that was set in the UI is not in the history.
    now = [number for number, version in versions.items() if CHAMPION in version.aliases]
    numbers = dict.fromkeys([entry["version"] for entry in _history()] + now)
    return [versions[number] for number in numbers if number in versions and versions[number].eligible]


def find_alias(alias: str) -> Version | None:
    """Return the version that has an alias, if any."""
    return next((version for version in list_versions() if alias in version.aliases), None)


def no_version(alias: str) -> str:
    """Return one line that says that no version has an alias, and what gives it one."""
    if alias != CHAMPION:
        return f"{_BY_ID}{MODEL}@{alias}: no version has this alias; `mitoscope registry` lists the versions"
    before = _predecessor(None, list_versions())
    remedy = f"`mitoscope rollback` makes version {before.number} the champion again" if before else _PROMOTE
    return f"{_BY_ID}{MODEL}@{CHAMPION}: there is no champion; {remedy}"


def register(model_id: str, run_id: str, tags: Mapping[str, str], card: str) -> Version:
    """Register a detector unless it is registered, update its evidence where it differs, and return its version.

    Args:
        model_id: id of the detector's logged model.
        run_id: id of the training's run.
        tags: evidence.
        card: model card, Markdown of at most 5000 characters.

    Raises:
        InputError: the store cannot be opened, or the experiment of the logged model was deleted.
    """
    import mlflow

    known = [version for version in list_versions() if version.model_id == model_id]
    if not known:
        client = connect()
        try:
            client.create_registered_model(MODEL, description=_ABOUT)
        except mlflow.MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        source = f"{_BY_ID}{model_id}"
        client.create_model_version(MODEL, source, run_id, dict(tags), description=card, model_id=model_id)
        known = [version for version in list_versions() if version.model_id == model_id]
        for twin in known[1:]:  # registered by another machine at the same moment
            with suppress(mlflow.MlflowException):  # the other machine was faster
                client.delete_model_version(MODEL, str(twin.number))
    version = known[0]
    changed = {name: value for name, value in tags.items() if version.tags.get(name) != value}
    if changed:
        note(version, changed)
    if version.card != card:
        open_store().update_model_version(MODEL, str(version.number), card)
    return replace(version, tags={**version.tags, **changed}, card=card)


def make_champion(version: Version) -> None:
    """Make a version the champion and remove its alias challenger. Repeating this changes nothing.

    Raises:
        InputError: the version is retired.
    """
    if version.retired:
        raise InputError(f"{MODEL}: version {version.number} is retired and cannot become the champion")
    history = _history()
    if not history or history[-1]["version"] != version.number:
        history.append({"version": version.number, "since": _now()})
        open_store().set_registered_model_tag(MODEL, _HISTORY, json.dumps(history[-_REMEMBERED:]))
    _give_alias(version)


def make_challenger(version: Version) -> None:
    """Make a version the challenger unless it is retired."""
    if CHALLENGER not in version.aliases and not version.retired:
        open_store().set_registered_model_alias(MODEL, CHALLENGER, str(version.number))


def roll_back() -> tuple[Version | None, Version]:
    """Make the champion's predecessor the champion again; return the former and the new champion.

    The predecessor is the latest eligible champion before it. The version that loses the alias is marked, so the gate
    does not promote it again. If no version has the alias, for example because it was deleted, the former is None.

    Raises:
        InputError: there is no predecessor, or there was never a champion.
    """
    versions = list_versions()
    current = next((version for version in versions if CHAMPION in version.aliases), None)
    before = _predecessor(current, versions)
    if before is None and current is not None:
        raise InputError(f"{MODEL}: there was no eligible champion before version {current.number}")
    if before is None:
        raise InputError(f"{MODEL}: there is no champion to roll back; {_PROMOTE}")
    if current is not None:
        note(current, {_ROLLED_BACK: _now()})
    _give_alias(before)
    return current, before


def _predecessor(current: Version | None, versions: list[Version]) -> Version | None:
    """Return the latest eligible champion before `current`, or the latest of all if `current` is None."""
    order = [entry["version"] for entry in _history()]
    if current is not None and current.number in order:  # the alias may have been set in the UI
        order = order[: len(order) - 1 - order[::-1].index(current.number)]
    usable = {version.number: version for version in versions if version.eligible and version != current}
    return next((usable[number] for number in reversed(order) if number in usable), None)


def retire(number: int) -> Version:
    """Withdraw a version and remove its aliases; return it as it was. Repeating this changes nothing.

    After a change of the split, this removes a champion that was fitted or validated on the new test patients.

    Raises:
        InputError: the version does not exist.
    """
    version = next((version for version in list_versions() if version.number == number), None)
    if version is None:
        raise InputError(f"{MODEL}: there is no version {number}; `mitoscope registry` lists the versions")
    if not version.retired:
        note(version, {_RETIRED: _now()})
    for alias in {CHAMPION, CHALLENGER} & {*version.aliases}:
        open_store().delete_registered_model_alias(MODEL, alias)
    return version


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Hold the registry's lock: promotion, rollback and retirement run one at a time.

    Raises:
        InputError: the store fails during the block.
    """
    import mlflow

    with locked("registry"), telling("MLflow failed ({}); run this again", store(Path()), mlflow.MlflowException):
        yield


def note(version: Version, tags: Mapping[str, str]) -> None:
    """Set tags of a version."""
    client = open_store()
    for name, value in tags.items():
        client.set_model_version_tag(MODEL, str(version.number), name, value)


def _history() -> list[dict[str, Any]]:
    """Return the champions in order, each with `version` and `since`. A restored champion is listed again."""
    model = next(iter(open_store().search_registered_models(f"name = '{MODEL}'")), None)
    history: list[dict[str, Any]] = json.loads(model.tags.get(_HISTORY, "[]")) if model else []
    return history


def _give_alias(version: Version) -> None:
    """Give a version the alias champion in one step, so that a killed process leaves either champion."""
    client = open_store()
    if CHAMPION not in version.aliases:
        client.set_registered_model_alias(MODEL, CHAMPION, str(version.number))
    if CHALLENGER in version.aliases:
        client.delete_registered_model_alias(MODEL, CHALLENGER)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
