"""Files that do not belong together are never shown together."""

import pytest

from mitoscope.errors import InputError
from mitoscope.files import write_json
from mitoscope.paths import Outputs
from mitoscope.reporting.results import logged_scores, percent, pooled_cells, read_all, read_results
from tests.results import add_domains, change, read, write_results

AGAIN = "run `dvc repro evaluate@small` first"


@pytest.fixture
def outputs(tmp_path, monkeypatch) -> Outputs:
    """Results of the network `small` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return write_results("small")


def test_the_files_of_one_training_are_read(outputs):
    results = read_results(outputs)
    assert (results.network, results.start_weights, results.validation_f1) == ("small", "random", 0.6)
    assert results.run_id == read(outputs.trained)["run_id"] and results.model_id == read(outputs.detected)["model_id"]
    assert results.scores.size("patches") == "4 : 4" and results.scores.size("fields") == "4 in 2 fields"
    assert results.scores.cells("fields") == ["50.0", "25.0", "33.3\n[11, 55]", "12.5"]


def test_files_of_another_training_are_rejected(outputs):
    change(outputs.trained, run_id="1" * 32)
    with pytest.raises(
        InputError, match=f"{outputs.detected}: belongs to another training than {outputs.trained}; {AGAIN}"
    ):
        read_results(outputs)


@pytest.mark.parametrize("entry", ["run_id", "model_id"])
def test_scores_of_another_detector_are_rejected(outputs, entry):
    change(outputs.evaluated / "test_set.json", **{entry: "another"})
    with pytest.raises(InputError, match=f"contains scores of another detector than {outputs.detected}; {AGAIN}"):
        read_results(outputs)


@pytest.mark.parametrize("subset", ["train", "validation"])
def test_a_test_patient_that_was_trained_on_is_rejected(outputs, subset):
    patients = read(outputs.trained)["patients"]
    change(outputs.trained, patients=patients | {subset: ["02"]})
    with pytest.raises(
        InputError, match=f"{outputs.evaluated}: patient 02 was used for training and for testing; {AGAIN}"
    ):
        read_results(outputs)


def test_a_missing_or_broken_file_is_named(outputs):
    outputs.detected.write_text("{")
    with pytest.raises(InputError, match=f"{outputs.detected}: is not a JSON file; {AGAIN}"):
        read_results(outputs)
    outputs.detected.unlink()
    with pytest.raises(InputError, match=f"{outputs.detected}: no such file; {AGAIN}"):
        read_results(outputs)


@pytest.mark.parametrize("name", ["metrics.json", "intervals.json", "test_set.json"])
def test_files_of_an_older_version_are_named(outputs, name):
    write_json(outputs.evaluated / name, {"patches": {}})
    with pytest.raises(InputError, match=f"{outputs.evaluated}: was written by an older version; {AGAIN}"):
        read_results(outputs)


def test_the_folds_of_a_cross_validation_have_their_own_results(outputs):
    fold = Outputs("small", 2)
    for name in ("trained", "detected", "evaluated"):
        target = getattr(fold, name)
        target.parent.mkdir(parents=True, exist_ok=True)
        getattr(outputs, name).rename(target)
    assert read_results(fold).outputs == fold
    change(fold.trained, run_id="1" * 32)
    with pytest.raises(InputError, match=r"run `dvc repro crossvalidation/dvc\.yaml:evaluate@small-2`"):
        read_results(fold)


def test_usable_results_are_read_with_the_reason_why_others_cannot_be_used(outputs):
    change(write_results("other").trained, run_id="1" * 32)
    found, unusable = read_all(["never", "other", "small"])
    assert [results.network for results in found] == ["small"]
    assert list(unusable) == ["other"] and "another training" in unusable["other"]
    with pytest.raises(InputError, match="another training"):
        read_all(["never", "other"])
    with pytest.raises(InputError, match="results/evaluate: no network has been evaluated; run `dvc repro` first"):
        read_all(["never"])


def test_scores_are_logged_by_level_without_the_counts():
    metrics = {
        "patches": {"mitoses": 4, "f1": 0.5, "at_half": {"f1": 0.25}},
        "fields": {"tp": 3, "f1": 0.75, "threshold": 0.4, "domains": {"Aperio, Ulm": {"tp": 1, "f1": 0.5}}},
    }
    expected = {"test/f1": 0.5, "test_at_half/f1": 0.25, "test_fields/f1": 0.75, "test_fields/threshold": 0.4}
    assert logged_scores(metrics) == expected | {"test_fields/Aperio-Ulm/f1": 0.5}


def test_domains_keep_apart_in_mlflow():
    scores = {name: {"f1": number / 10} for number, name in enumerate(["Lab A", "Lab-A", "\u80ba", "\u4e73"])}
    metrics = {"patches": {}, "fields": {"domains": scores}}
    assert logged_scores(metrics) == {
        "test_fields/Lab-A/f1": 0.0,
        "test_fields/Lab-A-2/f1": 0.1,
        "test_fields/3/f1": 0.2,
        "test_fields/4/f1": 0.3,
    }


def test_scores_by_domain_are_rows(outputs):
    assert read_results(outputs).scores.domain_rows() == []
    scores = {"patients": 1, "mitoses": 2, "fields": 3, "precision": 0.5, "recall": 1.0, "f1": 2 / 3}
    add_domains(outputs, {"Aperio": scores}, {"Aperio": {"f1": [0.5, 0.9]}})
    (row,) = read_results(outputs).scores.domain_rows()
    assert row == ["Aperio", "2 in 3 fields of 1 patient", "50.0", "100.0", "66.7\n[50, 90]", "-"]


def test_percent():
    assert percent(0.4567) == "45.7" and percent(0.5, [0.111, 0.999]) == "50.0\n[11, 100]"
    assert percent(None) == percent(float("nan")) == "-"


def test_pooled_cells():
    counts = {"mitoses": 3, "detections": 2, "tp": 1, "fp": 1, "fn": 2}
    scores = counts | {"precision": 0.5, "recall": 1 / 3, "f1": 0.4}
    assert pooled_cells(scores) == ["3", "2", "1", "1", "2", "50.0", "33.3", "40.0"]
    assert pooled_cells(scores | {"intervals": {"f1": [0.1, 0.9]}})[-1] == "40.0\n[10, 90]"
