"""Command `promote`: register each evaluated detector; the best becomes champion if it passes the gate.

It is not a stage, so experiments never move the alias. It can be repeated at any time after `dvc repro`, because it
writes only what is new.
"""

import json
from dataclasses import asdict
from typing import Any

from rich.markup import escape
from rich.table import Table

from mitoscope.commands.gate import Condition, judge
from mitoscope.datasets.patches import read_summary
from mitoscope.errors import InputError
from mitoscope.files import write_json
from mitoscope.params import read_params
from mitoscope.paths import DATA, PATCHES, REGISTRY
from mitoscope.progress import console
from mitoscope.reporting.model_card import Evidence
from mitoscope.reporting.results import Results, read_all
from mitoscope.tracking import registry
from mitoscope.tracking.history import training
from mitoscope.tracking.provenance import dataset_digest
from mitoscope.tracking.registry import Version


def promote(*, dry_run: bool = False) -> None:
    """Register the evaluated detectors, judge the best on validation, and move the alias if it passes the gate.

    Args:
        dry_run: print the conditions and write nothing.

    Raises:
        InputError: no network was evaluated, a network's results are from several trainings or from other patches or
            data than the present ones, the networks were tested on different sets, or the store does not contain their
            runs.
    """
    params, summary = read_params(), read_summary(PATCHES)
    evaluated, unusable = read_all(params.train)
    if unusable:
        raise InputError(next(iter(unusable.values())))
    evidence = [_collect(results, summary) for results in evaluated]
    if len({results.test_set["digest"] for results in evaluated}) > 1:
        raise InputError("results/evaluate: the networks were tested on different sets; run `dvc repro` first")
    synthetic = bool(summary["dataset"]["synthetic"])

    with registry.one_at_a_time():
        if dry_run:
            known = {version.model_id: version for version in registry.list_versions()}
        else:
            known = {
                one.results.model_id: registry.register(
                    one.results.model_id, one.results.run_id, one.tags(), one.card()
                )
                for one in evidence
            }
        # Retired and rolled-back versions are judged only if there are no others, so that their refusal is printed.
        fit = [one for one in evaluated if one.model_id not in known or known[one.model_id].eligible]
        best = max(fit or evaluated, key=lambda results: results.validation_f1)
        challenger = known.get(best.model_id)
        left_out = [one for one in evaluated if one not in fit] if fit else []
        while True:
            champions = registry.champions()
            conditions = judge(best, challenger, champions, params.promote, dry_run=dry_run)
            if _holder(registry.champions()) == _holder(champions):
                break  # otherwise another machine has moved the alias: judge again
        for one in left_out:
            version = known[one.model_id]
            why = "retired" if version.retired else "rolled back"
            console.print(f"{one.network} (version {version.number}) is left out: it was {why}", markup=False)
        of_the_others = " of the others" if left_out else ""
        _decide(
            best,
            challenger,
            conditions,
            note=f"the best on validation{of_the_others}",
            synthetic=synthetic,
            dry_run=dry_run,
        )
        if not dry_run:
            _write_state(evaluated, best, conditions)


def _collect(results: Results, summary: dict[str, Any]) -> Evidence:
    """Return the evidence for a network.

    Raises:
        InputError: its results are from other patches or data, or the store does not contain its run.
    """
    run = training(results.run_id)
    results.require_patches(run.tags, summary["digest"])
    if results.test_set["dataset_digest"] != dataset_digest(DATA, summary["digest"]):
        raise InputError(f"{DATA}: has changed since {results.network} was tested; run `dvc repro` first")
    changes = " + changes" if run.tags.get("git_dirty") == "true" else ""
    commit = f"{run.tags.get('mlflow.source.git.commit', '')}{changes}"
    sizes = [float(field["microns_per_pixel"]) for field in summary["fields"].values()]
    span = " to ".join(dict.fromkeys(f"{size:.4g}" for size in (min(sizes), max(sizes))))  # one text if all are equal
    return Evidence(results, summary["dataset"] | {"microns_per_pixel": span}, run.digest, commit)


def _holder(champions: list[Version]) -> int | None:
    return next((one.number for one in champions if registry.CHAMPION in one.aliases), None)


def _decide(
    best: Results,
    version: Version | None,
    conditions: list[Condition],
    *,
    note: str,
    synthetic: bool,
    dry_run: bool,
) -> None:
    """Print the verdict on the best detector, and move the aliases."""
    passed = all(condition.passed for condition in conditions)
    if version is not None and registry.CHAMPION in version.aliases:
        verdict = "is already the champion" + ("" if passed else ", although it would not pass the gate now")
        passed = True
    else:
        verdict = "passes the gate" if passed else "does not pass the gate"
    name = f"version {version.number}" if version else "not registered yet"
    data = ", synthetic data" if synthetic else ""
    table = Table(title=f"{best.network} ({name}), {note}, {verdict}{data}", title_justify="left")
    for column in ("condition", "", "value"):
        table.add_column(column)
    for condition in conditions:
        table.add_row(condition.name, "met" if condition.passed else "NOT MET", escape(condition.value))
    console.print(table)
    if not dry_run and version is not None:
        gate = json.dumps([asdict(condition) for condition in conditions])
        if version.tags.get("gate") != gate:
            registry.note(version, {"gate": gate})
        if not passed:
            registry.make_challenger(version)
        elif not version.retired:  # otherwise someone has set the alias in the UI
            registry.make_champion(version)


def _write_state(evaluated: list[Results], best: Results, conditions: list[Condition]) -> None:
    """Write the state of the registry after the promotion."""
    versions = registry.list_versions()
    numbers = {version.model_id: version.number for version in versions}
    aliases = {alias: version.number for version in versions for alias in version.aliases}
    state: dict[str, Any] = {
        "versions": {results.network: numbers[results.model_id] for results in evaluated},
        "model_ids": {results.network: results.model_id for results in evaluated},
        "best_on_validation": best.network,
        "champion": aliases.get(registry.CHAMPION),
        "challenger": aliases.get(registry.CHALLENGER),
        "gate": [asdict(condition) for condition in conditions],
    }
    write_json(REGISTRY, state)
