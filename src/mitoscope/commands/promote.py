"""Stage `promote`: every evaluated network becomes a version in the registry, and the gate chooses the champion.

It always runs, because DVC may bring back the results of an earlier training without running anything, and it writes
only what is new.
"""

import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.table import Table

from mitoscope.datasets.fields import list_fields
from mitoscope.datasets.images import read_candidate_mask, read_image
from mitoscope.datasets.patches import read_index, read_summary
from mitoscope.detection.detector import detect_field, load_detector
from mitoscope.errors import InputError
from mitoscope.evaluation.matching import MATCH_UM, match
from mitoscope.files import write_json
from mitoscope.params import Promote, read_params
from mitoscope.paths import DATA, EVALUATED, PATCHES, REGISTRY
from mitoscope.progress import console, progress
from mitoscope.reporting.model_card import Evidence, read_evidence, write_card
from mitoscope.tracking import registry


@dataclass(frozen=True)
class Condition:
    """One condition of the gate, in words that a refusal can be read from."""

    name: str
    value: str
    passed: bool


def promote(*, dry_run: bool = False) -> None:
    """Register the evaluated networks, challenge the champion with the best on validation, move the alias or not.

    Args:
        dry_run: only print the conditions; write nothing.

    Raises:
        InputError: nothing was evaluated, the networks were tested on different sets, or the store lacks their runs.
    """
    params = read_params()
    evidence = [read_evidence(arch) for arch in params.train if (EVALUATED / arch / "metrics.json").exists()]
    if not evidence:
        raise InputError(f"{EVALUATED}: no network has been evaluated; run `dvc repro` first")
    if len({one.test_set["digest"] for one in evidence}) > 1:
        raise InputError(f"{EVALUATED}: the networks were tested on different sets; run `dvc repro` first")
    best = max(evidence, key=lambda one: one.validation_f1)

    with registry.one_at_a_time():
        known = {version.run_id: version for version in registry.list_versions()}
        if not dry_run:
            for one in evidence:
                known[one.run_id] = registry.register(one.model_id, one.run_id, one.tags(), write_card(one))
        version = known.get(best.run_id)
        while True:
            champion = registry.holder(registry.CHAMPION)
            conditions = _judge(best, version, champion, params.promote, dry_run=dry_run)
            standing = registry.holder(registry.CHAMPION)
            if (standing and standing.number) == (champion and champion.number):
                break  # else another machine has moved the alias meanwhile: judge against that one
        _decide(best, version, champion, conditions, dry_run=dry_run)
        if not dry_run:
            _write_state(evidence, best, conditions)


def _decide(
    best: Evidence,
    version: registry.Version | None,
    champion: registry.Version | None,
    conditions: list[Condition],
    *,
    dry_run: bool,
) -> None:
    """Say how the best fares, and move the aliases."""
    passed = all(condition.passed for condition in conditions)
    if version is not None and champion is not None and version.number == champion.number:
        verdict = "is the champion already" + ("" if passed else ", though it would not pass the gate now")
        passed = True
    else:
        verdict = "passes the gate" if passed else "is refused"
    _print(best, version, conditions, verdict)
    if not dry_run and version is not None:
        gate = json.dumps([asdict(condition) for condition in conditions])
        if version.tags.get("gate") != gate:
            registry.note(version, {"gate": gate})
        (registry.crown if passed else registry.refuse)(version)


def _judge(
    best: Evidence, version: registry.Version | None, champion: registry.Version | None, gate: Promote, *, dry_run: bool
) -> list[Condition]:
    """Every condition of the gate, the failed ones too."""
    recall, f1 = (best.metrics["fields"][name] for name in ("recall", "f1"))
    conditions = [
        Condition("recall in whole fields", f"{recall:.3f}, at least {gate.min_recall}", recall >= gate.min_recall),
        Condition("F1 in whole fields", f"{f1:.3f}, at least {gate.min_f1}", f1 >= gate.min_f1),
    ]
    if version is not None and version.rolled_back:
        conditions.append(Condition("not rolled back", f"version {version.number} was", passed=False))
    if champion is None:
        return conditions
    if version is not None and version.number == champion.number:  # what it met when it challenged its predecessor
        met = [Condition(**condition) for condition in json.loads(champion.tags.get("gate", "[]"))]
        return conditions + met[len(conditions) :]
    known = " ".join(champion.tags.get(f"{subset}_patients", "") for subset in ("train", "validation")).split()
    # Patients of different datasets may share their numbers.
    leaked = (
        sorted({*known} & {*best.test_set["patients"]}) if champion.tags.get("dataset") == best.dataset["name"] else []
    )
    value = f"it knows {', '.join(leaked)}" if leaked else "none" if known else "unknown: it was registered elsewhere"
    fair = bool(known) and not leaked
    conditions.append(Condition(f"test patients that the champion, version {champion.number}, knows", value, fair))
    if fair:
        against = f"F1 against the champion, version {champion.number}"
        try:
            standing = _score_champion(champion, best, dry_run=dry_run)
        except InputError as error:
            conditions.append(Condition(against, f"the champion cannot be scored: {error}", passed=False))
        else:
            value = f"{f1:.4f}, at least {standing:.4f} - {gate.max_drop}"
            conditions.append(Condition(against, value, f1 >= standing - gate.max_drop))
    return conditions


def _score_champion(champion: registry.Version, best: Evidence, *, dry_run: bool) -> float:
    """F1 of the champion in the fields that the challenger was tested on; computed once per test set."""
    from mitoscope.learning.devices import join

    tag = f"fields_f1_on_{best.test_set['digest'][:12]}"
    if tag in champion.tags:
        return float(champion.tags[tag])
    network, kept = load_detector(f"models:/{registry.MODEL}/{champion.number}")
    microns = read_summary(PATCHES)["dataset"]["microns_per_pixel"]
    index = read_index(PATCHES)
    truths = index[index.source == "annotation"]
    names = set(best.test_set["fields"])
    tested = [field for field in list_fields(DATA) if field.name in names]
    if len(tested) < len(names):
        raise InputError(f"{DATA}: lacks fields that were tested; run `dvc repro` first")
    found = detected = mitoses = 0
    with join() as place, progress() as show:
        network.to(place.device)
        for done, field in enumerate(tested, start=1):
            image = read_image(field.image)
            mask = read_candidate_mask(field.image, image.shape[:2])
            points, _ = detect_field(image, mask, network, kept, place, microns)
            here = truths[(truths.patient == field.patient) & (truths.field == field.field)]
            taken = match(points, here[["row", "col"]].to_numpy(dtype=np.float64), MATCH_UM / microns)
            found, detected, mitoses = found + int((taken >= 0).sum()), detected + len(points), mitoses + len(here)
            show(f"champion, version {champion.number}, test fields", done, len(tested))
    f1 = round(2 * found / max(detected + mitoses, 1), 4)  # as the tag keeps it
    if not dry_run:
        registry.note(champion, {tag: f"{f1:.4f}"})
    return f1


def _print(best: Evidence, version: registry.Version | None, conditions: list[Condition], verdict: str) -> None:
    name = f"version {version.number}" if version else "not registered yet"
    synthetic = ", synthetic data" if best.synthetic else ""
    table = Table(title=f"{best.arch} ({name}), the best on validation, {verdict}{synthetic}", title_justify="left")
    for column in ("condition", "value", ""):
        table.add_column(column)
    for condition in conditions:
        table.add_row(condition.name, condition.value, "met" if condition.passed else "NOT MET")
    console.print(table)


def _write_state(evidence: list[Evidence], best: Evidence, conditions: list[Condition]) -> None:
    """Write where the registry stands after this."""
    versions = registry.list_versions()
    numbers = {version.run_id: version.number for version in versions}
    aliases = {alias: version.number for version in versions for alias in version.aliases}
    state: dict[str, Any] = {
        "versions": {one.arch: numbers[one.run_id] for one in evidence},
        "best_on_validation": best.arch,
        "champion": aliases.get(registry.CHAMPION),
        "challenger": aliases.get(registry.CHALLENGER),
        "gate": [asdict(condition) for condition in conditions],
    }
    write_json(REGISTRY, state)
