"""What a training leaves is what detection, MLflow and a reader need."""

import json
from pathlib import Path

import cv2
import mlflow
import pandas as pd

from mitoscope.detection.detector import load_detector
from mitoscope.evaluation.metrics import best_threshold
from mitoscope.learning.checkpoints import load_network
from mitoscope.stages.search import search
from mitoscope.stages.subsets import score_candidates
from mitoscope.stages.train import train
from mitoscope.stages.weights import weights
from tests.conftest import NETWORK, tiny_params, write_params


def test_a_training_writes_its_outputs_and_leaves_no_checkpoints(ready):
    train(NETWORK)
    written = {path.name for path in Path("results/train").iterdir()}
    assert written == {f"{NETWORK}.json", f"{NETWORK}.csv", f"{NETWORK}.png"}
    assert Path("models", NETWORK, "best.pt").exists()
    assert not [path for path in Path(".work").iterdir() if path.is_dir()]


def test_the_network_carries_what_detection_needs(ready):
    train(NETWORK)
    report = json.loads(Path("results/train", f"{NETWORK}.json").read_text())
    _, kept = load_network(Path("models", NETWORK, "best.pt"))
    settings = tiny_params()["extract"]
    names = ("stain", "scale", "sigma", "peak_window", "candidates_per_mm2")
    dataset = {"microns_per_pixel": 0.25, "synthetic": True}
    middle, upper = kept["fields"].pop("typical_spread")
    assert middle < upper
    assert kept["field_head"] is None
    assert kept["fields"] == {name: settings[name] for name in names} | dataset | {"views": 1, "refit_fields": False}
    assert kept["field_threshold"] == report["field_threshold"] > 0
    logged = mlflow.get_logged_model(report["model_id"]).metrics
    assert {metric.key: metric.value for metric in logged}["best_validation_fields/f1"] == report["field_validation_f1"]


def test_the_thresholds_belong_to_the_scores_that_detection_gives(ready, here):
    """Scored again by what the file says, the validation fields give its spread and its threshold."""
    params = tiny_params()
    params["train"][NETWORK]["views"] = 2
    write_params(params)
    train(NETWORK)
    network, kept = load_network(Path("models", NETWORK, "best.pt"))
    scored = score_candidates(network, None, "validation", here, lambda *_: None, views=kept["fields"]["views"])
    assert scored.typical_spread() == tuple(kept["fields"]["typical_spread"])
    objects = scored.objects(kept["fields"]["typical_spread"])
    found, _ = best_threshold(objects.label.to_numpy(), objects.probability.to_numpy())
    assert found == kept["field_threshold"]
    once = score_candidates(network, None, "validation", here, lambda *_: None, views=1)
    assert scored.typical_spread() != once.typical_spread()  # a network this young gives nearly the same to all


def test_a_refitted_head_travels_with_the_network_and_gives_its_threshold(extracted, mlflow_store, here):
    params = tiny_params()
    block = params["train"].pop(NETWORK) | {"input_size": 64, "head": "pooled", "trainable": "head"}
    params["train"]["alexnet"] = block | {"refit_fields": True, "views": 2, "calibrate_fields": False}
    params["weights"] = {"alexnet": "random"}
    write_params(params)
    search("alexnet")
    weights("alexnet")
    train("alexnet")
    network, kept = load_detector("models/alexnet/best.pt")
    scored = score_candidates(network, kept["field_head"], "validation", here, lambda *_: None, views=2)
    objects = scored.objects(None)
    assert kept["fields"]["typical_spread"] is None and kept["fields"]["refit_fields"]
    assert best_threshold(objects.label.to_numpy(), objects.probability.to_numpy())[0] == kept["field_threshold"]
    plain = score_candidates(network, None, "validation", here, lambda *_: None, views=2)
    assert abs(plain.candidates.probability - scored.candidates.probability).max() > 0.01


def test_mined_negatives_are_shown(ready, mlflow_store):
    params = tiny_params()
    params["train"][NETWORK] |= {"epochs": 2, "mining": {"start_epoch": 1, "every": 1, "lr_factor": 0.5}}
    write_params(params)
    train(NETWORK)
    run_id = json.loads(Path("results/train", f"{NETWORK}.json").read_text())["run_id"]
    picture = mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path="pictures/mined.png")
    assert cv2.imread(picture).shape[1] == 10 * 134 + 6
    curves = pd.read_csv(f"results/train/{NETWORK}.csv")
    assert curves.mining_mean_score.isna().tolist() == [True, False]
