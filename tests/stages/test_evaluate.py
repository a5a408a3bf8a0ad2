"""The scores are those of the predictions that are written, and what cannot be known is left out."""

import json
from pathlib import Path

import cv2
import mlflow
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from mitoscope.errors import InputError
from mitoscope.files import write_json
from mitoscope.learning.checkpoints import save_network
from mitoscope.learning.networks import build
from mitoscope.params import Evaluate
from mitoscope.stages.evaluate import evaluate, score_test
from tests.conftest import NETWORK

SETTINGS = Evaluate(bootstrap=200, seed=0)
OUT = Path("results/evaluate", NETWORK)


def predictions(*patients: str) -> pd.DataFrame:
    """Eight patches: at 0.4, 3 of 4 mitoses are found beside 2 false ones; at 0.5, 2 beside 1."""
    return pd.DataFrame(
        {
            "patient": list(patients) or ["01"] * 4 + ["02"] * 4,
            "label": [1, 1, 0, 0, 1, 1, 0, 0],
            "probability": [0.9, 0.8, 0.1, 0.45, 0.42, 0.3, 0.6, 0.1],
        }
    )


def test_scores_by_hand():
    scores, _ = score_test(predictions(), 0.4, SETTINGS)
    assert (scores["patients"], scores["mitoses"], scores["negatives"], scores["threshold"]) == (2, 4, 4, 0.4)
    assert scores["precision"] == pytest.approx(3 / 5) and scores["recall"] == pytest.approx(3 / 4)
    assert scores["accuracy"] == pytest.approx(5 / 8) and scores["f1"] == pytest.approx(6 / 9)
    half = scores["at_half"]
    assert half["precision"] == pytest.approx(2 / 3) and half["recall"] == pytest.approx(2 / 4)
    assert half["accuracy"] == pytest.approx(5 / 8) and half["f1"] == pytest.approx(4 / 7)
    table = predictions()
    assert scores["ap"] == pytest.approx(average_precision_score(table.label, table.probability))
    assert scores["auc"] == pytest.approx(roc_auc_score(table.label, table.probability)) == pytest.approx(12 / 16)


def test_intervals_hold_what_resampled_patients_give():
    _, intervals = score_test(predictions(), 0.4, SETTINGS)
    # Drawing two patients of two gives the first twice, both, or the second twice: recall 1, 3/4 or 1/2.
    assert intervals["recall"] == pytest.approx([1 / 2, 1.0])
    assert intervals["at_half"]["recall"] == pytest.approx([0.0, 1.0])
    assert set(intervals) == {"accuracy", "precision", "recall", "f1", "ap", "auc", "at_half"}
    assert set(intervals["at_half"]) == {"accuracy", "precision", "recall", "f1"}


def test_a_single_patient_has_no_interval():
    scores, intervals = score_test(predictions(*["01"] * 8), 0.4, SETTINGS)
    assert intervals == {} and scores["patients"] == 1 and scores["recall"] == 0.75


def test_without_negatives_there_is_no_ranking():
    scores, intervals = score_test(predictions().query("label == 1"), 0.4, SETTINGS)
    assert "ap" not in scores and "auc" not in scores and "auc" not in intervals
    assert scores["precision"] == 1 and scores["negatives"] == 0


def test_without_mitosis_it_is_refused():
    with pytest.raises(InputError, match=r"the test patients \(01, 02\) have no mitosis away from the edges"):
        score_test(predictions().query("label == 0"), 0.4, SETTINGS)


def test_the_stage_writes_and_logs_one_set_of_scores(trained, mlflow_store, capsys):
    evaluate(NETWORK)
    table = pd.read_csv(OUT / "predictions.csv", dtype={"patient": str})
    metrics = json.loads((OUT / "metrics.json").read_text())["patches"]
    split = pd.read_csv("results/split.csv", dtype={"patient": str})
    assert set(table.patient) == set(split.patient[split.subset == "test"])
    assert table.name.is_unique and table.name.str.startswith(table.patient.iloc[0] + "_").all()
    assert (table.name.str.contains("_class1_") == (table.label == 1)).all()
    assert table.probability.between(0, 1).all() and table.probability.nunique() > 1

    # One truth: metrics, predictions and confusion agree, and so does the run.
    assert metrics["f1"] == pytest.approx(f1_score(table.label, table.predicted, zero_division=0))
    assert (metrics["mitoses"], metrics["negatives"]) == (table.label.sum(), (table.label == 0).sum())
    confusion = pd.read_csv(OUT / "confusion.csv")
    words = np.array(["negative", "mitosis"])
    assert (confusion.actual == words[table.label]).all() and (confusion.predicted == words[table.predicted]).all()
    logged = mlflow.MlflowClient(mlflow_store).get_run(trained)
    assert logged.data.metrics["test/auc"] == pytest.approx(metrics["auc"])
    assert logged.data.metrics["test_at_half/f1"] == pytest.approx(metrics["at_half"]["f1"])
    files = {item.path for item in mlflow.MlflowClient(mlflow_store).list_artifacts(trained, "tables")}
    assert files == {f"tables/{name}.csv" for name in ("predictions", "objects", "fields")}
    assert "synthetic data" in capsys.readouterr().out
    assert cv2.imread(str(OUT / "patches.png")).shape[1] > 1000


def test_the_field_level_has_one_truth_too(trained, mlflow_store):
    evaluate(NETWORK)
    objects = pd.read_csv(OUT / "objects.csv", dtype={"patient": str, "field": str})
    fields = pd.read_csv(OUT / "fields.csv", dtype={"patient": str, "field": str})
    metrics = json.loads((OUT / "metrics.json").read_text())["fields"]
    split = pd.read_csv("results/split.csv", dtype={"patient": str}).query("subset == 'test'")
    assert set(objects.patient) == set(fields.patient) == set(split.patient)
    assert len(fields) == split.fields.sum() == metrics["fields"]
    assert objects.label.sum() == fields.mitoses.sum() == split.mitoses.sum() == metrics["mitoses"]
    assert (objects.predicted == (objects.probability >= 0.4)).all()
    for column in ("detections", "tp", "fp", "fn"):
        assert metrics[column] == fields[column].sum()
    assert metrics["tp"] + metrics["fp"] == metrics["detections"] > 0
    assert metrics["tp"] + metrics["fn"] == metrics["mitoses"]
    assert metrics["f1"] == pytest.approx(f1_score(objects.label, objects.predicted, zero_division=0))
    assert metrics["recall"] <= metrics["reachable"] <= 1
    assert metrics["area_mm2"] == pytest.approx(0.01 * len(fields))
    assert metrics["mitoses_per_mm2"] == pytest.approx(metrics["mitoses"] / metrics["area_mm2"])

    pictures = sorted(path.name for path in (OUT / "overlays").iterdir())
    assert pictures == [f"{row.patient}_{row.field}.jpg" for row in fields.itertuples()]
    assert cv2.imread(str(OUT / "overlays" / pictures[0])).shape[1] >= 400
    assert cv2.imread(str(OUT / "errors.png")) is not None
    client = mlflow.MlflowClient(mlflow_store)
    logged = client.get_run(trained).data.metrics
    assert logged["test_fields/f1"] == pytest.approx(metrics["f1"])
    assert {Path(item.path).name for item in client.list_artifacts(trained, "pictures/overlays")} == set(pictures)
    assert {Path(item.path).name for item in client.list_artifacts(trained, "pictures") if not item.is_dir} == {
        "patches.png",
        "fields.png",
        "errors.png",
    }


def test_the_curves_end_where_they_must(trained):
    evaluate(NETWORK)
    pr, roc = pd.read_csv(OUT / "pr.csv"), pd.read_csv(OUT / "roc.csv")
    assert list(pr) == ["recall", "precision", "threshold"] and list(roc) == ["fpr", "tpr", "threshold"]
    assert pr.recall.iloc[0] == 1 and pr.recall.is_monotonic_decreasing
    assert roc[["fpr", "tpr"]].iloc[0].tolist() == [0, 0] and roc[["fpr", "tpr"]].iloc[-1].tolist() == [1, 1]


def test_a_threshold_near_one_counts_as_predicted(trained):
    """A saturated network's probabilities differ in the seventh digit only; rounding must not decide."""
    network = build({"arch": NETWORK, "patch_size": 32, "input_size": 32}).eval()
    head = list(network.parameters())[-1]
    head.data[:] = head.data.new_tensor([-7.5, 7.5])  # probabilities of 0.9999997 and so
    threshold = 0.99999975
    save_network(
        Path("models", NETWORK, "best.pt"),
        network,
        threshold=threshold,
        field_threshold=0.5,
        fields={"typical_spread": None},
    )
    evaluate(NETWORK)
    table = pd.read_csv(OUT / "predictions.csv")
    metrics = json.loads((OUT / "metrics.json").read_text())["patches"]
    assert (table.predicted == (table.probability >= threshold)).all()
    assert table.probability.between(0.999999, 1, inclusive="neither").all()
    assert metrics["recall"] == pytest.approx(table.predicted[table.label == 1].mean())


def test_a_lost_run_is_refused_before_the_metrics_are_written(trained):
    report = Path("results/train", f"{NETWORK}.json")
    write_json(report, json.loads(report.read_text()) | {"run_id": "0" * 32})
    with pytest.raises(InputError, match=f"has no run {'0' * 32}"):
        evaluate(NETWORK)
    assert not (OUT / "metrics.json").exists()


def test_an_untrained_network_is_named(extracted):
    with pytest.raises(InputError, match=f"{NETWORK} has not been trained; run `dvc repro train@{NETWORK}`"):
        evaluate(NETWORK)
