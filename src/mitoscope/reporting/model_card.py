"""What is known of a trained and tested network: as tags of its version, and as a card for people."""

import json
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mitoscope.datasets.patches import read_summary
from mitoscope.errors import InputError
from mitoscope.paths import EVALUATED, MODELS, PATCHES, TRAINED

_NAMES = {"precision": "precision", "recall": "recall", "f1": "F1", "ap": "average precision"}


@dataclass(frozen=True)
class Evidence:
    """Everything that speaks for or against a network.

    Attributes:
        arch: the architecture.
        trained: results/train/<arch>.json.
        metrics: of the test, by level: `patches` and `fields`.
        intervals: 95 % by patient, under the same names.
        test_set: digest, patients and fields.
        patients: of the train and the validation subset.
        start: where the network started from, and its hash.
        dataset: its description.
        dataset_digest: DVC's hash of the raw dataset at the training.
        commit: of git at the training, with "+ changes" where the tree differed; empty where there was none.
    """

    arch: str
    trained: Mapping[str, Any]
    metrics: Mapping[str, Mapping[str, Any]]
    intervals: Mapping[str, Mapping[str, Any]]
    test_set: Mapping[str, Any]
    patients: Mapping[str, list[str]]
    start: Mapping[str, Any]
    dataset: Mapping[str, Any]
    dataset_digest: str
    commit: str

    @property
    def run_id(self) -> str:
        """Of the training."""
        return str(self.trained["run_id"])

    @property
    def model_id(self) -> str:
        """Of the logged model."""
        return str(self.trained["model_id"])

    @property
    def validation_f1(self) -> float:
        """In whole fields of the validation patients, at the threshold chosen there."""
        return float(self.trained["field_validation_f1"])

    @property
    def synthetic(self) -> bool:
        """Whether the data were drawn."""
        return bool(self.dataset["synthetic"])

    def tags(self) -> dict[str, str]:
        """As tags of a version in the registry."""
        scores = {
            f"test_{level}_{name}": f"{self.metrics[level][name]:.4f}"
            for level in ("patches", "fields")
            for name in ("precision", "recall", "f1")
        }
        return {
            "architecture": self.arch,
            "start_weights": str(self.trained["start_weights"]),
            "dataset": str(self.dataset["name"]),
            "synthetic": str(self.synthetic).lower(),
            "dataset_digest": self.dataset_digest,
            "test_set_digest": self.test_set["digest"],
            "git_commit": self.commit,
            "train_patients": " ".join(self.patients["train"]),
            "validation_patients": " ".join(self.patients["validation"]),
            "test_patients": " ".join(self.test_set["patients"]),
            "patch_threshold": f"{self.trained['threshold']:.6f}",
            "field_threshold": f"{self.trained['field_threshold']:.6f}",
            "validation_fields_f1": f"{self.validation_f1:.4f}",
            **scores,
        }


def read_evidence(arch: str) -> Evidence:
    """Collect what stages and run say of network `arch`.

    Raises:
        InputError: an earlier stage's file or the run is missing.
    """
    from mitoscope.tracking.history import training

    out = EVALUATED / arch
    names = [out / name for name in ("metrics.json", "intervals.json", "test_set.json")]
    paths = [TRAINED / f"{arch}.json", MODELS / arch / "start.json", *names]
    for path in paths:
        if not path.exists():
            raise InputError(f"{path}: no such file; run `dvc repro evaluate@{arch}` first")
    trained, start, metrics, intervals, test_set = (json.loads(path.read_text(encoding="utf-8")) for path in paths)
    patients = trained.get("patients")
    if patients is None or test_set.get("run_id") != trained["run_id"]:
        raise InputError(f"{out}: are the scores of another training; run `dvc repro evaluate@{arch}` first")
    if leaked := {*patients["train"], *patients["validation"]} & {*test_set["patients"]}:
        raise InputError(f"{out}: patient {min(leaked)} was trained on and tested; run `dvc repro` first")
    run = training(trained["run_id"])
    changes = " + changes" if run.tags.get("git_dirty") == "true" else ""
    return Evidence(
        arch=arch,
        trained=trained,
        metrics=metrics,
        intervals=intervals,
        test_set=test_set,
        patients=patients,
        start=start,
        dataset=read_summary(PATCHES)["dataset"],
        dataset_digest=run.digest,
        commit=f"{run.tags.get('mlflow.source.git.commit', '')}{changes}",
    )


def write_card(evidence: Evidence) -> str:
    """The model card, Markdown of less than 5000 characters (more does not fit MLflow's column)."""
    dataset, patients, test_set = evidence.dataset, evidence.patients, evidence.test_set
    synthetic = " **Synthetic data: the figures say that the pipeline works, and nothing about histology.**"
    warning = synthetic if evidence.synthetic else ""
    rows = "\n".join(
        _row(evidence, level, name, word) for level in ("fields", "patches") for name, word in _NAMES.items()
    )
    fields, patches, trained = evidence.metrics["fields"], evidence.metrics["patches"], evidence.trained
    refitted = "; whole fields are scored by a head of their own" if trained["refit_fields"] else ""
    return f"""# {evidence.arch} for mitotic figures

**Research only.** Finds mitotic figures in H&E breast-cancer fields, {dataset["microns_per_pixel"]} um per pixel.
It is no medical device and must not be used for diagnosis.{warning}

| level | score | test | 95 % interval by patient |
|---|---|---|---|
{rows}

Fields by the MIDOG rule (7.5 um, counts pooled): {fields["mitoses"]} mitoses in {fields["fields"]} fields of
{fields["patients"]} patients; {fields["mitoses_per_mm2"]:.1f} per mm2, {fields["detections_per_mm2"]:.1f} detected.
Patches: {patches["mitoses"]} mitoses to {patches["negatives"]} candidates.

- **Data**: {_line(dataset["name"])}, DVC {evidence.dataset_digest}; source: {_line(dataset.get("source"))}; licence:
  {_line(dataset.get("licence"))}
- **Split by patient**: trained on {_names(patients["train"])}; epoch and thresholds from
  {_names(patients["validation"])}; tested on {_names(test_set["patients"])}, test set {test_set["digest"][:12]}
- **Start weights**: {trained["start_weights"]}, SHA-256 {str(evidence.start["sha256"])[:12]}
- **Thresholds**: patches {trained["threshold"]:.4f}, fields {trained["field_threshold"]:.4f} (validation F1
  {evidence.validation_f1:.3f})
- **Training**: best of {trained["epochs"]} epochs: {trained["best_epoch"]}{refitted}; MLflow run {evidence.run_id}; git
  {evidence.commit or "unknown"}

**Limits**: other scanners, stains, tissues and pixel sizes than those of the data are untested. Scores of a few
patients say little about the next one: look at the intervals. Mitoses without a blue-ratio candidate are never found
({100 * fields["reachable"]:.0f} % of the test mitoses have one).
"""


def _row(evidence: Evidence, level: str, name: str, word: str) -> str:
    """A line of the card's table."""
    value, interval = evidence.metrics[level].get(name), evidence.intervals[level].get(name)
    shown = "undefined" if value is None else f"{value:.3f}"
    between = f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else "one patient: none"
    return f"| {level} | {word} | {shown} | {between} |"


def _line(text: str | None) -> str:
    """A text of dataset.yaml as part of a line."""
    return textwrap.shorten(text, 300, placeholder=" ...") if text else "not given"


def _names(patients: list[str]) -> str:
    """Patients by name, or how many they are where that would fill the card."""
    return ", ".join(patients) if len(patients) <= 20 else f"{len(patients)} patients"
