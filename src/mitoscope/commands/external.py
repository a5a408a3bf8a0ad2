"""Command `evaluate --data`, the external test: score a detector on a folder of labelled fields outside the project."""

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mitoscope import __version__
from mitoscope.commands.compare import draw
from mitoscope.commands.results_folder import check_out
from mitoscope.datasets.fields import Description, list_fields, read_description
from mitoscope.errors import InputError
from mitoscope.files import atomic_folder, hash_file, read_json, write_json
from mitoscope.params import Evaluate
from mitoscope.progress import console, progress
from mitoscope.reporting.results import Scores, counted
from mitoscope.reporting.score_tables import score_tables
from mitoscope.tracking.models import detector_file
from mitoscope.tracking.provenance import dataset_digest

if TYPE_CHECKING:
    from mitoscope.detection.detector import Detector
    from mitoscope.detection.folder import LabelledFolder

EVIDENCE = "test.json"  # by which the folder of an earlier test is known


def evaluate_folder(data: Path, *, model: str, out: Path, settings: Evaluate) -> None:
    """Score a detector in the whole fields of a folder, at the detector's own threshold; print and write the scores.

    `out` gets metrics.json, intervals.json, the tables and pictures that stage `evaluate` makes of whole fields, and
    test.json with the evidence: the detector, its origin, the fields, the settings. It appears when all is done.

    Args:
        data: folder in the form of data/.
        model: a file detector.pt, `runs:/<run>/detector` or `models:/<name>@<alias>`.
        out: output folder; results of an earlier test in it are replaced.
        settings: number of resamples and seed of the intervals.

    Raises:
        InputError: a file of `data` is bad, the detector does not exist or knows a patient of `data`, or `out` has
            other files than those of an earlier test, or lies in `data` or around it.
        OSError: the disk is full.
    """
    _check_folder(out, data)
    description, fields = read_description(data), list_fields(data)
    from mitoscope.detection.detector import Detector
    from mitoscope.detection.folder import read_folder
    from mitoscope.detection.whole_fields import describe_test_set, score_whole_fields
    from mitoscope.learning.devices import join
    from mitoscope.reporting.whole_fields import write_whole_fields

    with detector_file(model) as file:
        detector, sha256 = Detector.load(file), hash_file(file)
    origin = detector.origin
    note = ", synthetic data" if description.synthetic else ""
    if origin.synthetic and not note:
        note = ", by a model trained on synthetic data"
    with join() as device, progress() as show:
        folder = read_folder(fields, description, detector, partial(show, "reading"))
        test_set = describe_test_set(fields, folder.stored, "")
        # In the same form as a detector's origin has it: DVC's hash, or else one of the content.
        test_set["dataset_digest"] = dataset_digest(data.absolute(), test_set["digest"])
        _require_unknown(detector, model, data, test_set)
        _print_doubts(folder, description)
        detector.to(device.torch)
        with atomic_folder(out, replace=True) as unfinished:
            scores = score_whole_fields(detector, folder.stored, settings, partial(show, f"{origin.network} fields"))
            write_whole_fields(
                unfinished,
                origin.network,
                scores,
                folder.stored,
                fields,
                title=f"{origin.network}, {origin.start_weights} start weights: external test{note}",
                note=note,
                on_field=partial(show, "overlays"),
            )
            metrics, intervals = {"fields": scores.metrics}, {"fields": scores.intervals}
            write_json(unfinished / "intervals.json", intervals)
            write_json(unfinished / "metrics.json", metrics)
            evidence = {
                "version": __version__,
                "options": {"data": str(data), "detector": model, "out": str(out), **settings.model_dump()},
                "detector_sha256": sha256,
                "threshold": detector.threshold,
                "extract": detector.extract.model_dump(),
                "detection": detector.detection.model_dump(),
                "origin": asdict(origin),
                "dataset": description.model_dump(),
                "test_set": test_set,
                "pixel_sizes": {name: size._asdict() for name, size in folder.sizes.items()},
            }
            write_json(unfinished / EVIDENCE, evidence)
    named = description.name if "name" in description.model_fields_set else data.absolute().name
    _print_scores(
        Scores(origin.network, origin.start_weights, metrics, intervals),
        "synthetic" if description.synthetic else named,
        out,
        detector,
    )


def _check_folder(out: Path, data: Path) -> None:
    """Check before any work that `out` may be replaced.

    Raises:
        InputError: it may not.
    """
    here, there = out.resolve(), data.resolve()
    if here == there or here in there.parents or there in here.parents:
        raise InputError(f"--out {out}: lies in the folder of the fields, or around it; choose another folder")
    check_out(out, [])
    if not out.is_dir() or not any(out.iterdir()):
        return
    remedy = "choose another folder"
    if not (out / EVIDENCE).exists():
        raise InputError(
            f"--out {out}: has files, but no {EVIDENCE} of an earlier `mitoscope evaluate --data`; {remedy}"
        )
    if "detector_sha256" not in read_json(out / EVIDENCE, remedy):
        raise InputError(f"{out / EVIDENCE}: is no file of `mitoscope evaluate --data`; {remedy}")


def _require_unknown(detector: "Detector", model: str, data: Path, test_set: dict[str, Any]) -> None:
    """Check that the detector has never seen a patient of the folder.

    Raises:
        InputError: it knows one or more, by name or by an image.
    """
    if known := detector.origin.known(test_set["images"], test_set["dataset_digest"]):
        raise InputError(
            f"{data}: {model} has learnt from patient{'s' if known[1:] else ''} {', '.join(known)}, or its threshold "
            "was chosen there; leave them out, for an external test needs other patients"
        )


def _print_doubts(folder: "LabelledFolder", description: Description) -> None:
    if assumed := [size for size in folder.sizes.values() if size.source == "default"]:
        _say(
            f"nothing gives the pixel size of the fields; {assumed[0].microns:g} um is assumed. Write "
            "microns_per_pixel into dataset.yaml, or into fields.csv where fields differ",
            style="yellow",
        )
    if folder.unnormalised:
        _say(f"{folder.unnormalised} fields have too little tissue for stain normalisation and are left unchanged")


def _print_scores(scores: Scores, name: str, out: Path, detector: "Detector") -> None:
    for table in score_tables([scores], name):
        console.print(draw(table), "")
    fields = scores.metrics["fields"]
    patients = counted(fields["patients"], "patient")
    _say(
        f"Mitoses: {scores.size('fields')} of {patients}; {fields['tp']} found, {fields['fp']} false, {fields['fn']} "
        f"missed. All results are in {out}"
    )
    trained = ", which was trained on synthetic data" if detector.origin.synthetic else ""
    _say(f"The threshold, {detector.threshold:.3f}, is that of the detector{trained}.")
    if not fields["mitoses"]:
        _say("There are no mitoses, so recall, F1 and intervals are undefined.")
    elif fields["patients"] == 1:
        _say("One patient gives no intervals.")
    else:
        _say("Brackets: 95 % intervals by patient.")


def _say(line: str, style: str | None = None) -> None:
    console.print(line, style=style, markup=False)
