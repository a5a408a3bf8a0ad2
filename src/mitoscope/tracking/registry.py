"""The model registry: versions of `mitoscope` with their evidence, and the aliases that the gate moves.

Each version is a detector, a logged model of MLflow; one training may have given several. What happened is written in
the registry itself: the champions in their order as a tag of the registered model, and what was rolled back or retired
as a tag of its version. So any checkout of the project sees the same history.
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
_REMEMBERED = 1000  # champions; a tag holds 100,000 characters
_BY_ID = "models:/"
_PROMOTE = "`mitoscope promote` makes one"
_ABOUT = "Detectors of mitotic figures. The alias champion moves by `mitoscope promote`, `rollback` and `registry`."


@dataclass(frozen=True)
class Version:
    """One version of the registered model.

    Attributes:
        number: as MLflow counts, from 1.
        model_id: of the detector, MLflow's logged model.
        run_id: of its training.
        tags: its evidence and its history.
        card: the model card, Markdown.
        aliases: `champion`, `challenger`, or others that people gave.
    """

    number: int
    model_id: str
    run_id: str
    tags: Mapping[str, str]
    card: str
    aliases: tuple[str, ...]

    @property
    def rolled_back(self) -> bool:
        """Whether people took it back after it had been the champion."""
        return _ROLLED_BACK in self.tags

    @property
    def retired(self) -> bool:
        """Whether people took it out of the contest: it is no champion again, and no yardstick."""
        return _RETIRED in self.tags

    @property
    def eligible(self) -> bool:
        """Whether it may be the champion."""
        return not (self.rolled_back or self.retired)

    @property
    def described_aliases(self) -> str:
        """Its aliases, and whether it was rolled back or retired, for a table."""
        fates = [tag.replace("_", " ") for tag in (_ROLLED_BACK, _RETIRED) if tag in self.tags]
        return ", ".join((*self.aliases, *fates))


def list_versions() -> list[Version]:
    """All versions, the first one first; none where nothing was registered yet."""
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
    """The eligible versions that are or were the champion and still exist, oldest first."""
    versions = {version.number: version for version in list_versions()}
    # An alias that people gave in the UI is in no history.
    now = [number for number, version in versions.items() if CHAMPION in version.aliases]
    numbers = dict.fromkeys([entry["version"] for entry in _history()] + now)
    return [versions[number] for number in numbers if number in versions and versions[number].eligible]


def require_champion() -> None:
    """Make sure that there is a champion.

    Raises:
        InputError: there is none; the line names the command that makes one.
    """
    versions = list_versions()
    if not any(CHAMPION in version.aliases for version in versions):
        before = _predecessor(None, versions)
        remedy = f"`mitoscope rollback` puts version {before.number} back" if before else _PROMOTE
        raise InputError(f"{_BY_ID}{MODEL}@{CHAMPION}: there is no champion; {remedy}")


def register(model_id: str, run_id: str, tags: Mapping[str, str], card: str) -> Version:
    """The version of a detector, made where there is none, with this evidence; nothing is written that is there.

    Args:
        model_id: of the logged model.
        run_id: of the training.
        tags: the evidence.
        card: the model card, Markdown of at most 5000 characters.

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
        for twin in known[1:]:  # of another promotion at the same moment on another machine
            with suppress(mlflow.MlflowException):  # the other one was faster
                client.delete_model_version(MODEL, str(twin.number))
    version = known[0]
    changed = {name: value for name, value in tags.items() if version.tags.get(name) != value}
    if changed:
        note(version, changed)
    if version.card != card:
        open_store().update_model_version(MODEL, str(version.number), card)
    return replace(version, tags={**version.tags, **changed}, card=card)


def make_champion(version: Version) -> None:
    """Make a version the champion, and take the alias challenger from it. Again, it changes nothing.

    Raises:
        InputError: it is retired.
    """
    if version.retired:
        raise InputError(f"{MODEL}: version {version.number} is retired and cannot become the champion")
    history = _history()
    if not history or history[-1]["version"] != version.number:
        history.append({"version": version.number, "since": _now()})
        open_store().set_registered_model_tag(MODEL, _HISTORY, json.dumps(history[-_REMEMBERED:]))
    _give_alias(version)


def make_challenger(version: Version) -> None:
    """Make a version the challenger, unless it is retired."""
    if CHALLENGER not in version.aliases and not version.retired:
        open_store().set_registered_model_alias(MODEL, CHALLENGER, str(version.number))


def roll_back() -> tuple[Version | None, Version]:
    """Put the champion's predecessor back; returns the former and the new champion.

    The predecessor is the latest eligible champion before it. The version that loses the alias is marked, so that the
    gate does not promote it again. Where nobody has the alias, as after its version was deleted, the former is None.

    Raises:
        InputError: there is no predecessor, or there was never a champion.
    """
    versions = list_versions()
    current = next((version for version in versions if CHAMPION in version.aliases), None)
    before = _predecessor(current, versions)
    if before is None and current is not None:
        raise InputError(f"{MODEL}: version {current.number} had no champion before it that could be put back")
    if before is None:
        raise InputError(f"{MODEL}: has no champion to roll back; {_PROMOTE}")
    if current is not None:
        note(current, {_ROLLED_BACK: _now()})
    _give_alias(before)
    return current, before


def _predecessor(current: Version | None, versions: list[Version]) -> Version | None:
    """The latest champion before `current`, or of all, that can be put back."""
    order = [entry["version"] for entry in _history()]
    if current is not None and current.number in order:  # the alias may have been given in the UI
        order = order[: len(order) - 1 - order[::-1].index(current.number)]
    usable = {version.number: version for version in versions if version.eligible and version != current}
    return next((usable[number] for number in reversed(order) if number in usable), None)


def retire(number: int) -> Version:
    """Take a version out of the contest, and the aliases from it; returns it as it was. Again, it changes nothing.

    So a changed split cannot lock a champion in that knows the new test patients.

    Raises:
        InputError: there is no such version.
    """
    version = next((version for version in list_versions() if version.number == number), None)
    if version is None:
        raise InputError(f"{MODEL}: has no version {number}; `mitoscope registry` shows those that there are")
    if not version.retired:
        note(version, {_RETIRED: _now()})
    for alias in {CHAMPION, CHALLENGER} & {*version.aliases}:
        open_store().delete_registered_model_alias(MODEL, alias)
    return version


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """What a promotion, a rollback and a retirement hold while they judge and write.

    Raises:
        InputError: the store stops answering on the way.
    """
    import mlflow

    with locked("registry"), telling("MLflow failed ({}); start this again", store(Path()), mlflow.MlflowException):
        yield


def note(version: Version, tags: Mapping[str, str]) -> None:
    """Write tags on a version."""
    client = open_store()
    for name, value in tags.items():
        client.set_model_version_tag(MODEL, str(version.number), name, value)


def _history() -> list[dict[str, Any]]:
    """The champions in their order: version, since. One that came back is there more than once."""
    model = next(iter(open_store().search_registered_models(f"name = '{MODEL}'")), None)
    history: list[dict[str, Any]] = json.loads(model.tags.get(_HISTORY, "[]")) if model else []
    return history


def _give_alias(version: Version) -> None:
    """The alias champion moves at once: whatever is killed before, the champion is who it was."""
    client = open_store()
    if CHAMPION not in version.aliases:
        client.set_registered_model_alias(MODEL, CHAMPION, str(version.number))
    if CHALLENGER in version.aliases:
        client.delete_registered_model_alias(MODEL, CHALLENGER)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
