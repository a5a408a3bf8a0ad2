"""The gate before the alias `champion`: its conditions, with text that explains a refusal."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mitoscope.datasets.fields import list_fields
from mitoscope.datasets.patches import read_index, read_summary
from mitoscope.datasets.readers import read_candidate_mask, read_picture
from mitoscope.errors import InputError
from mitoscope.evaluation.matching import MATCH_UM, match
from mitoscope.params import Promote
from mitoscope.paths import DATA, PATCHES
from mitoscope.progress import progress
from mitoscope.reporting.results import Results
from mitoscope.tracking import registry
from mitoscope.tracking.models import detector_file
from mitoscope.tracking.registry import Version

if TYPE_CHECKING:
    from mitoscope.detection.detector import Detector


@dataclass(frozen=True)
class Condition:
    """One condition of the gate, and whether it is met."""

    name: str
    value: str
    passed: bool


def judge(
    best: Results,
    version: Version | None,
    champions: Sequence[Version],
    gate: Promote,
    *,
    dry_run: bool,
) -> list[Condition]:
    """Return all conditions of the gate, met or not.

    Args:
        best: the challenger's results.
        version: the challenger's version in the registry; None = not registered yet.
        champions: the present and the former champions.
        gate: settings of the gate.
        dry_run: do not store the champions' scores.

    Raises:
        InputError: the test fields cannot be read.
    """
    recall, f1 = (best.metrics["fields"][name] for name in ("recall", "f1"))
    conditions = [
        Condition("recall in whole fields", f"{recall:.3f}, at least {gate.min_recall}", recall >= gate.min_recall),
        Condition("F1 in whole fields", f"{f1:.3f}, at least {gate.min_f1}", f1 >= gate.min_f1),
    ]
    if version is not None and (version.retired or version.rolled_back):
        word = "retired" if version.retired else "rolled back"
        conditions.append(Condition(f"not {word}", f"version {version.number} was", passed=False))
    if version is not None and registry.CHAMPION in version.aliases:
        before = [Condition(**condition) for condition in json.loads(version.tags.get("gate", "[]"))]
        again = {condition.name for condition in conditions}  # it met the others when it challenged its predecessor
        return conditions + [condition for condition in before if condition.name not in again]
    others = [one for one in champions if version is None or one.number != version.number]
    return conditions + _compare(best, others, gate.max_drop, dry_run=dry_run)


def _compare(best: Results, champions: Sequence[Version], max_drop: float, *, dry_run: bool) -> list[Condition]:
    """Return the condition that no champion was better by more than `max_drop`; empty if there was never a champion.

    With the present champion alone, each new champion could be a little worse than the one before.
    """
    name = "F1 compared with the best champion so far"
    scored: list[tuple[float, int]] = []
    left_out = []
    # The present champion first: if no comparison with it is possible, the others need not be scored.
    for one in sorted(champions, key=lambda one: registry.CHAMPION not in one.aliases):
        standing = _stand(one, best, dry_run=dry_run)
        if not isinstance(standing, str):
            scored.append((standing, one.number))
        elif registry.CHAMPION in one.aliases:
            remedy = f"`mitoscope registry retire {one.number}` excludes it from the comparison"
            return [Condition(name, f"the champion, version {one.number}, {standing}; {remedy}", passed=False)]
        else:
            left_out.append(f"version {one.number} {standing}")
    if not champions:
        return []
    but = f"; left out: {', '.join(left_out)}" if left_out else ""
    if not scored:
        return [Condition(name, f"no champion can be compared with{but}", passed=True)]
    f1 = best.metrics["fields"]["f1"]
    highest, number = max(scored)
    return [
        Condition(
            name,
            f"{f1:.4f}, at least {highest:.4f} (version {number}) - {max_drop}{but}",
            round(f1, 4) >= round(highest - max_drop, 4),
        )
    ]


def _stand(champion: Version, best: Results, *, dry_run: bool) -> float | str:
    """Return the F1 of a champion in the challenger's test fields, or why it cannot be used for comparison.

    The F1 is computed once per test set and stored as a tag of the version.
    """
    test_set = best.test_set
    tag = f"fields_f1_on_{test_set['digest'][:12]}"
    if tag in champion.tags:
        return float(champion.tags[tag])
    from mitoscope.detection.detector import Detector  # torch takes seconds, and mostly the tag is there

    microns = {name: float(read_summary(PATCHES)["fields"][name]["microns_per_pixel"]) for name in test_set["fields"]}
    try:
        with detector_file(f"models:/{registry.MODEL}/{champion.number}") as path:
            detector = Detector.load(path)
        for pixel in set(microns.values()):
            detector.check_pixels(pixel)
    except InputError as error:
        return f"cannot be scored ({error})"
    if known := detector.origin.known(test_set["images"], test_set["dataset_digest"]):
        return f"knows the test patients {', '.join(known)}"
    f1 = round(_score(detector, microns, f"version {champion.number}, test fields"), 4)  # as stored in the tag
    if not dry_run:
        registry.note(champion, {tag: f"{f1:.4f}"})
    return f1


def _score(detector: "Detector", microns: dict[str, float], label: str) -> float:
    """Return the F1 of a detector in whole fields.

    Args:
        detector: the detector.
        microns: um per pixel of each field, by name.
        label: label of the progress bar.

    Raises:
        InputError: a field is missing or cannot be read.
    """
    from mitoscope.learning.devices import join

    tested = [field for field in list_fields(DATA) if field.name in microns]
    if len(tested) < len(microns):
        raise InputError(f"{DATA}: tested fields are missing; run `dvc repro` first")
    index = read_index(PATCHES)
    truths = index[index.source == "annotation"]
    found = detected = mitoses = 0
    with join() as device, progress() as show:
        detector.to(device.torch)
        for done, field in enumerate(tested, start=1):
            picture = read_picture(field.image)
            mask = read_candidate_mask(field.image, picture.shape)
            points = detector.detect(picture.pixels, microns[field.name], mask, picture.opaque).points
            here = truths[(truths.patient == field.patient) & (truths.field == field.field)]
            centres = here[["row", "col"]].to_numpy(dtype=np.float64)
            matched = match(points, centres, MATCH_UM / microns[field.name]) >= 0
            found, detected, mitoses = found + int(matched.sum()), detected + len(points), mitoses + len(centres)
            show(label, done, len(tested))
    return 2 * found / max(detected + mitoses, 1)
