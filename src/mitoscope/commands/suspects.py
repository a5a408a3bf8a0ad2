"""Command `suspects`: the labels that disagree most with held-out scores, for a pathologist to look at in QuPath."""

import os
import shlex
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from rich import box
from rich.markup import escape
from rich.table import Table

from mitoscope import __version__
from mitoscope.commands.results_folder import check_out
from mitoscope.datasets.annotations import read_centres, read_lookalikes
from mitoscope.datasets.fields import FieldOfView, list_fields, read_description
from mitoscope.datasets.patches import read_index, read_summary
from mitoscope.errors import InputError
from mitoscope.evaluation.suspects import LOOKALIKE, MITOSIS, NONE, rank_labels
from mitoscope.files import atomic_folder, atomic_path, hash_file, read_json, write_json
from mitoscope.params import read_params
from mitoscope.paths import CROSSVALIDATED, DATA, PATCHES, Outputs
from mitoscope.progress import console, progress
from mitoscope.reporting.results import counted, read_results
from mitoscope.reporting.suspects import NO_CANDIDATE, draw_suspects, write_field
from mitoscope.tracking.provenance import dataset_digest

EVIDENCE = "suspects.json"  # by which the folder of an earlier call is known
_SCORES = ["probability", "threshold", "disagreement"]
_COLUMNS = ["rank", "patient", "field", "file", "row", "col", "label", *_SCORES, "note"]
_ROUNDING = 0.01  # px; the patch store has positions with 2 decimals
_PRINTED = 10
_OTHER_DATA = "the scores are of other data; run `dvc add data`, and then `dvc repro`"


class HeldOut(NamedTuple):
    """The objects of test patients, and by patient the threshold of the detector that had not seen this patient."""

    source: Path
    objects: pd.DataFrame
    thresholds: dict[str, float]


def suspects(network: str, *, out: Path, count: int) -> None:
    """List the annotations and places whose label and held-out score disagree most; write them for QuPath, and print.

    `out` gets suspects.csv, suspects.png, a GeoJSON per field with a suspect, and suspects.json with the evidence. It
    appears when all is done.

    Args:
        network: name of an entry under `train` in params.yaml.
        out: output folder; the unchanged files of an earlier call in it are replaced.
        count: the most suspects to list.

    Raises:
        InputError: the network has no results on the current data, or `out` has other files, such as corrections.
        OSError: the disk is full.
    """
    read_params().train_of(network)
    _check_folder(out)
    summary = read_summary(PATCHES)
    digest = dataset_digest(DATA, summary["digest"])
    scores = _read_scores(network, digest)
    fields = {field.name: field for field in list_fields(DATA) if field.patient in scores.thresholds}
    mitoses, lookalikes = _read_labels(fields, summary["fields"], scores.thresholds)
    microns = {name: float(summary["fields"][name]["microns_per_pixel"]) for name in fields}
    labels = rank_labels(scores.objects, mitoses, lookalikes, scores.thresholds, microns)
    found = labels[labels["rank"] > 0]
    labels["rank"] = labels["rank"].where(labels["rank"] <= count, 0)
    labels = labels[(labels["rank"] > 0) | (labels.label != NONE)]
    listed = labels[labels["rank"] > 0]
    with atomic_folder(out, replace=True) as folder, progress() as show:
        _write_table(folder / "suspects.csv", listed, fields)
        for (patient, name), _ in listed.groupby(["patient", "field"]):
            field = f"{patient}_{name}"
            facts = summary["fields"][field]
            write_field(
                folder / f"{field}.geojson",
                labels[(labels.patient == patient) & (labels.field == name)],
                microns_per_pixel=microns[field],
                shape=(facts["height"], facts["width"]),
            )
        note = ", synthetic data" if summary["dataset"]["synthetic"] else ""
        on_field = partial(show, "suspects.png")
        draw_suspects(folder / "suspects.png", listed, fields, microns, note=note, on_field=on_field)
        evidence = {
            "version": __version__,
            "options": {"network": network, "out": str(out), "count": count},
            "scores": str(scores.source),
            "dataset_digest": digest,
            "thresholds": scores.thresholds,
            "files_sha256": {path.name: hash_file(path) for path in sorted(folder.iterdir())},
        }
        write_json(folder / EVIDENCE, evidence)
        _check_folder(out)  # again, because QuPath may have written into it by now
    _print(network, scores, found, listed, out, everybody=len(summary["patients"]))


def _read_scores(network: str, digest: str) -> HeldOut:
    """Read the held-out scores of a network: of its cross-validation, or else of the project's own test patients.

    Args:
        network: name of an entry under `train` in params.yaml.
        digest: digest of the dataset; scores of other data are not used.

    Raises:
        InputError: a file is missing or from another version, or all scores are of other data.
    """
    path, again = CROSSVALIDATED / f"{network}.json", f"run `mitoscope crossvalidate {network}`"
    try:
        report = read_json(path, again) if path.exists() else None
        if report and report["dataset"]["md5"] == digest:
            thresholds = {patient: fold["fields"]["threshold"] for fold in report["folds"] for patient in fold["test"]}
            return HeldOut(path, _read_objects(path.with_name(f"{network}-objects.csv"), again), thresholds)
    except (KeyError, TypeError) as error:
        raise InputError(f"{path}: was written by another version; {again}") from error
    outputs = Outputs(network)
    results = read_results(outputs)
    if results.test_set["dataset_digest"] != digest:
        raise InputError(
            f"{outputs.evaluated}: has scores of other data than {DATA}/ is now; run {outputs.repro('evaluate')}, or "
            f"`mitoscope crossvalidate {network}` to score all patients"
        )
    again = f"run {outputs.repro('evaluate')}"
    thresholds = dict.fromkeys(results.test_set["patients"], results.metrics["fields"]["threshold"])
    return HeldOut(outputs.evaluated, _read_objects(outputs.evaluated / "objects.csv", again), thresholds)


def _read_objects(path: Path, remedy: str) -> pd.DataFrame:
    if not path.exists():
        raise InputError(f"{path}: no such file; {remedy}")
    return pd.read_csv(path, dtype={"patient": str, "field": str}, keep_default_na=False)  # a patient may be called NA


def _read_labels(
    fields: Mapping[str, FieldOfView], facts: Mapping[str, Any], patients: Iterable[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return patient, field, row and col of the mitoses and of the look-alikes in data/.

    Raises:
        InputError: a CSV is bad, or data/ was changed after the patches were cut that were scored.
    """
    if fields.keys() != {name for name in facts if name.split("_")[0] in patients}:
        raise InputError(f"{DATA}: has other fields than {PATCHES}; {_OTHER_DATA}")
    order = read_description(DATA).annotation_order
    index = read_index(PATCHES)
    scored = dict(list(index[index.source == "annotation"].groupby(["patient", "field"])))
    tables: tuple[list[pd.DataFrame], list[pd.DataFrame]] = ([], [])
    for name, field in fields.items():
        shape = (facts[name]["height"], facts[name]["width"])
        points = read_centres(field, shape, order), read_lookalikes(field, shape, order)
        before = scored.get((field.patient, field.field), index.iloc[:0])[["row", "col"]].to_numpy()
        if len(before) != len(points[0]) or not np.allclose(before, points[0], rtol=0, atol=_ROUNDING):
            raise InputError(f"{field.image}: has other mitoses than {PATCHES}; {_OTHER_DATA}")
        for rows, centres in zip(tables, points, strict=True):
            table = pd.DataFrame(centres, columns=["row", "col"])
            rows.append(table.assign(patient=field.patient, field=field.field))
    mitoses, lookalikes = (pd.concat(rows, ignore_index=True) for rows in tables)
    return mitoses, lookalikes


def _write_table(path: Path, listed: pd.DataFrame, fields: Mapping[str, FieldOfView]) -> None:
    names = listed.patient + "_" + listed.field
    files = [fields[name].image.relative_to(DATA).as_posix() for name in names]
    notes = np.where(listed.probability.isna(), NO_CANDIDATE, "")
    table = listed.assign(file=files, note=notes).round({"row": 2, "col": 2} | dict.fromkeys(_SCORES, 6))
    with atomic_path(path) as temporary:
        table[_COLUMNS].to_csv(temporary, index=False)


def _check_folder(out: Path) -> None:
    """Check before any work that `out` may be replaced.

    Raises:
        InputError: it may not.
    """
    check_out(out, [])
    if Path(os.path.realpath(out)).is_relative_to(os.path.realpath(DATA)):
        raise InputError(f"--out {out}: lies in {DATA}/; choose a folder outside")
    if not out.is_dir():
        return
    remedy, evidence = "choose another folder", out / EVIDENCE
    written: Any = {}
    if evidence.exists():
        written = read_json(evidence, remedy).get("files_sha256")
        if not isinstance(written, dict):
            raise InputError(f"{evidence}: is no file of `mitoscope suspects`; {remedy}")
    for path in sorted(set(out.iterdir()) - {evidence}):
        if not path.is_file() or hash_file(path) != written.get(path.name):
            raise InputError(
                f"--out {out}: {path.name} is not as an earlier `mitoscope suspects` wrote it, perhaps corrected; "
                f"{remedy}"
            )


def _print(
    network: str, scores: HeldOut, found: pd.DataFrame, listed: pd.DataFrame, out: Path, *, everybody: int
) -> None:
    patients = len(scores.thresholds)
    source = f"{scores.source}, {counted(patients, 'patient')}"
    if scores.source == Outputs(network).evaluated:
        old = " (the one that is there is of other data)" if (CROSSVALIDATED / f"{network}.json").exists() else ""
        source += f" of {everybody}; `mitoscope crossvalidate {network}` would cover all{old}"
    _say(f"Held-out scores: {source}.")
    unscored = found.disagreement.isna()
    kinds = {
        "annotated mitoses score low": (found.label == MITOSIS) & ~unscored,
        "places without annotation score high": found.label == NONE,
        "labelled look-alikes score high": found.label == LOOKALIKE,
        f"mitoses have {NO_CANDIDATE} and so no score, and come last": unscored,
    }
    counts = [f"{int(rows.sum())} {words}" for words, rows in kinds.items() if rows.any()]
    _say(f"{counted(len(found), 'suspect')}{': ' if counts else ''}{'; '.join(counts)}.")
    if not len(listed):
        return
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    for name in ("rank", "field", "row", "col", "label", "score", "threshold", "disagreement"):
        table.add_column(name, justify="left" if name in ("field", "label") else "right")
    for row in listed.head(_PRINTED).to_dict("records"):
        missing = pd.isna(row["probability"])
        table.add_row(
            str(row["rank"]),
            escape(f"{row['patient']}_{row['field']}"),
            f"{row['row']:.0f}",
            f"{row['col']:.0f}",
            row["label"],
            NO_CANDIDATE if missing else f"{row['probability']:.3f}",
            f"{row['threshold']:.3f}",
            "" if missing else f"{row['disagreement']:.2f}",
        )
    console.print(table)
    fields = counted(listed.groupby(["patient", "field"]).ngroups, "field")
    which = "All" if len(listed) == len(found) else f"The first {len(listed)}"
    _say(f"{which}, in {fields}, are in {out}: suspects.csv, suspects.png and PATIENT_FIELD.geojson.")
    _say(
        "next: open the image of a field in QuPath, drag its GeoJSON into the window, correct it, and export all "
        f"objects to {out} under the same name; then"
    )
    _say(f"      mitoscope import qupath {DATA} {shlex.quote(str(out))} --add")


def _say(line: str) -> None:
    console.print(line, markup=False)
