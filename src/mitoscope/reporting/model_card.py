"""The evidence on a trained and tested detector: tags of its version, and a model card for people."""

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mitoscope.reporting.results import Results

_NAMES = {"precision": "precision", "recall": "recall", "f1": "F1", "ap": "average precision"}


@dataclass(frozen=True)
class Evidence:
    """All evidence for or against a detector.

    Attributes:
        results: results of the stages.
        dataset: description of the dataset, from the patch store.
        dataset_digest: DVC's hash of the raw dataset in the training.
        commit: git commit of the training, with "+ changes" if tracked files differed; empty without git.
    """

    results: Results
    dataset: Mapping[str, Any]
    dataset_digest: str
    commit: str

    def tags(self) -> dict[str, str]:
        """Tags of a version in the registry."""
        results = self.results
        patients, test_set = results.trained["patients"], results.test_set
        scores = {
            f"test_{level}_{name}": f"{results.metrics[level][name]:.6f}"  # `registry` rounds again
            for level in ("patches", "fields")
            for name in ("precision", "recall", "f1")
        }
        return {
            "network": results.network,
            "start_weights": results.start_weights,
            "dataset": str(self.dataset["name"]),
            "synthetic": str(self.dataset["synthetic"]).lower(),
            "dataset_digest": self.dataset_digest,
            "test_set_digest": test_set["digest"],
            "git_commit": self.commit,
            "train_patients": " ".join(patients["train"]),
            "validation_patients": " ".join(patients["validation"]),
            "test_patients": " ".join(test_set["patients"]),
            "patch_threshold": f"{results.trained['threshold']:.6f}",
            "field_threshold": f"{results.detector['threshold']:.6f}",
            "validation_fields_f1": f"{results.validation_f1:.4f}",
            **scores,
        }

    def card(self) -> str:
        """The model card in Markdown, less than 5000 characters (the limit of MLflow's column)."""
        results, dataset = self.results, self.dataset
        trained, detector, test_set = results.trained, results.detector, results.test_set
        fields, patches, patients = results.metrics["fields"], results.metrics["patches"], trained["patients"]
        synthetic = " **Synthetic data: the scores show that the pipeline works; they say nothing about histology.**"
        warning = synthetic if dataset["synthetic"] else ""
        refitted = "; whole fields are scored by a field head" if detector["settings"]["refit_fields"] else ""
        inner = detector["settings"]["field_head"].get("inner_folds", 0)
        thresholds = "patch threshold" if inner else "thresholds"
        everybody = "; field head and field threshold from all of these, by inner folds" if inner else ""
        rows = "\n".join(
            _row(results, level, name, word) for level in ("fields", "patches") for name, word in _NAMES.items()
        )
        return f"""# {results.network} for mitotic figures

**Research only.** Finds mitotic figures in H&E breast-cancer fields, {dataset["microns_per_pixel"]} um per pixel.
It is not a medical device and must not be used for diagnosis.{warning}

| level | score | test | 95 % interval by patient |
|---|---|---|---|
{rows}

Fields by the MIDOG rule (7.5 um, counts pooled): {fields["mitoses"]} mitoses in {fields["fields"]} fields of
{fields["patients"]} patients; {fields["mitoses_per_mm2"]:.1f} per mm2, {fields["detections_per_mm2"]:.1f} detected.
Patches: {patches["mitoses"]} mitoses to {patches["negatives"]} candidates.

- **Data**: {_line(dataset["name"])}, DVC {self.dataset_digest}; source: {_line(dataset.get("source"))}; licence:
  {_line(dataset.get("licence"))}
- **Split by patient**: trained on {_names(patients["train"])}; epoch and {thresholds} from
  {_names(patients["validation"])}{everybody}; tested on {_names(test_set["patients"])}, test set
  {test_set["digest"][:12]}
- **Start weights**: {results.start_weights}, SHA-256 {str(results.start["sha256"])[:12]}
- **Thresholds**: patches {trained["threshold"]:.4f}, fields {detector["threshold"]:.4f} (validation F1
  {results.validation_f1:.3f})
- **Detector**: views of each candidate: {detector["settings"]["views"]}{refitted}
- **Training**: best of {trained["epochs"]} epochs: {trained["best_epoch"]}; MLflow run {results.run_id}; git
  {self.commit or "unknown"}

**Limits**: scanners, stains, tissues and pixel sizes other than those of the data are untested. Scores of a few
patients say little about the next patient: look at the intervals. Mitoses without a blue-ratio candidate are never
found ({100 * fields["reachable"]:.0f} % of the test mitoses have one).
"""


def _row(results: Results, level: str, name: str, word: str) -> str:
    """A row of the card's table."""
    value, interval = results.metrics[level].get(name), results.intervals[level].get(name)
    shown = "undefined" if value is None else f"{value:.3f}"
    between = f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else "no interval: only one patient"
    return f"| {level} | {word} | {shown} | {between} |"


def _line(text: str | None) -> str:
    """A text of dataset.yaml, shortened to fit in a line."""
    return textwrap.shorten(text, 300, placeholder=" ...") if text else "not given"


def _names(patients: list[str]) -> str:
    """The patients' names, or their number if the names would fill the card."""
    return ", ".join(patients) if len(patients) <= 20 else f"{len(patients)} patients"
