"""The model registry: versions of `mitoscope` with their evidence, and the aliases that the gate moves.

What happened is kept in the registry itself: the champions in their order as a tag of the registered model, and what
was rolled back as a tag of its version. So any checkout of the project sees the same history.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from mitoscope.errors import InputError
from mitoscope.paths import WORK, project
from mitoscope.tracking.store import connect

if TYPE_CHECKING:
    from mlflow import MlflowClient

MODEL = "mitoscope"
CHAMPION, CHALLENGER = "champion", "challenger"
_HISTORY, _ROLLED_BACK = "champions", "rolled_back"
_REMEMBERED = 50  # champions; a tag holds 5000 characters
_ABOUT = "Detectors of mitotic figures. The alias champion moves only by `mitoscope promote` and `mitoscope rollback`."


@dataclass(frozen=True)
class Version:
    """One version of the registered model.

    Attributes:
        number: as MLflow counts, from 1.
        run_id: of its training.
        tags: its evidence and its history.
        card: the model card, Markdown.
        aliases: `champion`, `challenger`, or others that people gave.
    """

    number: int
    run_id: str
    tags: Mapping[str, str]
    card: str
    aliases: tuple[str, ...]

    @property
    def rolled_back(self) -> bool:
        """Whether people took it back after it had been the champion."""
        return _ROLLED_BACK in self.tags

    @property
    def described_aliases(self) -> str:
        """Its aliases, and whether it was rolled back, for a table."""
        return ", ".join((*self.aliases, *(["rolled back"] if self.rolled_back else [])))


def list_versions() -> list[Version]:
    """All versions, the first one first; none where nothing was registered yet."""
    client = connect()
    if not client.search_registered_models(f"name = '{MODEL}'"):
        return []
    aliases: dict[int, list[str]] = {}
    for alias, number in client.get_registered_model(MODEL).aliases.items():
        aliases.setdefault(int(number), []).append(alias)
    versions = [
        Version(
            int(found.version),
            found.run_id or "",
            dict(found.tags),
            found.description or "",
            tuple(sorted(aliases.get(int(found.version), []))),
        )
        for found in client.search_model_versions(f"name = '{MODEL}'", max_results=10_000)
    ]
    return sorted(versions, key=lambda version: version.number)


def holder(alias: str) -> Version | None:
    """The version that has an alias."""
    return next((version for version in list_versions() if alias in version.aliases), None)


def register(model_id: str, run_id: str, tags: Mapping[str, str], card: str) -> Version:
    """The version of a training, made where there is none, with this evidence; nothing is written that is there.

    Args:
        model_id: of the logged model.
        run_id: of the training.
        tags: the evidence.
        card: the model card, Markdown of at most 5000 characters.
    """
    import mlflow

    known = _of_run(run_id)
    if not known:
        client = connect()
        _make_model(client)
        client.create_model_version(
            MODEL, f"models:/{model_id}", run_id, dict(tags), description=card, model_id=model_id
        )
        known = _of_run(run_id)
        for twin in known[1:]:  # of another promotion at the same moment on another machine
            try:
                client.delete_model_version(MODEL, str(twin.number))
            except mlflow.MlflowException:  # the other one was faster
                continue
    version = known[0]
    changed = {name: value for name, value in tags.items() if version.tags.get(name) != value}
    if changed:
        note(version, changed)
    if version.card != card:
        connect().update_model_version(MODEL, str(version.number), card)
    return replace(version, tags={**version.tags, **changed}, card=card)


def crown(version: Version) -> None:
    """Make a version the champion, and take the alias challenger away from it. Again, it changes nothing."""
    client = connect()
    champions = _champions(client)
    if not champions or champions[-1]["version"] != version.number:
        champions.append({"version": version.number, "since": datetime.now(UTC).isoformat(timespec="seconds")})
        client.set_registered_model_tag(MODEL, _HISTORY, json.dumps(champions[-_REMEMBERED:]))
    _give_alias(client, version)


def refuse(version: Version) -> None:
    """Make a version the challenger."""
    if CHALLENGER not in version.aliases:
        connect().set_registered_model_alias(MODEL, CHALLENGER, str(version.number))


def roll_back() -> tuple[Version, Version]:
    """Put the champion's predecessor back; returns the former and the new champion.

    The predecessor is the latest champion before it that was not itself rolled back. The version that loses the alias
    is marked, so that the gate does not promote it again.

    Raises:
        InputError: there is no champion, or no predecessor.
    """
    client = connect()
    versions = {version.number: version for version in list_versions()}
    current = next((version for version in versions.values() if CHAMPION in version.aliases), None)
    if current is None:
        raise InputError(f"{MODEL}: has no champion to roll back; `mitoscope promote` makes one")
    order = [entry["version"] for entry in _champions(client)]
    last = len(order) - order[::-1].index(current.number) - 1 if current.number in order else 0
    for number in reversed(order[:last]):
        before = versions.get(number)
        if before is not None and not before.rolled_back and number != current.number:
            note(current, {_ROLLED_BACK: datetime.now(UTC).isoformat(timespec="seconds")})
            _give_alias(client, before)
            return current, before
    raise InputError(f"{MODEL}: version {current.number} had no champion before it that could be put back")


def one_at_a_time() -> FileLock:
    """What a promotion and a rollback of this project hold while they judge and write."""
    lock = project() / WORK / "registry.lock"
    lock.parent.mkdir(exist_ok=True)
    return FileLock(lock)


def note(version: Version, tags: Mapping[str, str]) -> None:
    """Write tags on a version."""
    client = connect()
    for name, value in tags.items():
        client.set_model_version_tag(MODEL, str(version.number), name, value)


def _of_run(run_id: str) -> list[Version]:
    return [version for version in list_versions() if version.run_id == run_id]


def _make_model(client: "MlflowClient") -> None:
    import mlflow

    if not client.search_registered_models(f"name = '{MODEL}'"):
        try:
            client.create_registered_model(MODEL, description=_ABOUT)
        except mlflow.MlflowException:  # another process made it at the same moment
            client.get_registered_model(MODEL)


def _champions(client: "MlflowClient") -> list[dict[str, Any]]:
    """The champions in their order: version, since."""
    history: list[dict[str, Any]] = json.loads(client.get_registered_model(MODEL).tags.get(_HISTORY, "[]"))
    return history


def _give_alias(client: "MlflowClient", version: Version) -> None:
    """The alias champion moves at once: whatever is killed before, the champion is who it was."""
    if CHAMPION not in version.aliases:
        client.set_registered_model_alias(MODEL, CHAMPION, str(version.number))
    if CHALLENGER in version.aliases:
        client.delete_registered_model_alias(MODEL, CHALLENGER)
