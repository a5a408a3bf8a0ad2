"""The whole pipeline on the sample: what it writes, what it logs, and what a change runs again.

The tests of this module follow one project through its life, in their order.
"""

import contextlib
import json
from pathlib import Path

import mlflow
import pandas as pd
import pytest
import yaml

from mitoscope.commands.detect import detect
from mitoscope.learning.checkpoints import save_network
from mitoscope.learning.networks import build, start_state

from .conftest import Params, Project, stages_in, trained, trainings

pytestmark = pytest.mark.slow

# Of chance, but the same chance everywhere: torch's generator gives the same numbers on every machine.
GOLDEN_START, _ = start_state("squeezenet1_1", None, seed=0)
ARCHS = ("alexnet", "densenet161")
SCORES = ("accuracy", "precision", "recall", "f1")


def registered(client: mlflow.MlflowClient) -> list[tuple[str, dict[str, str], dict[str, str]]]:
    """The registry's versions with their evidence, and who has which alias."""
    aliases = client.get_registered_model("mitoscope").aliases
    versions = client.search_model_versions("name = 'mitoscope'")
    return [(version.run_id, dict(version.tags), aliases) for version in versions]


@pytest.fixture(scope="module")
def first_repro(project: Project) -> str:
    """The first run, through MLflow's own launcher, which hands its run to the children by the environment."""
    return project.run("mlflow", "run", ".", "--env-manager", "local")


def test_first_run_writes_the_metrics_of_both_networks(project: Project, first_repro: str) -> None:
    for arch in ARCHS:
        scores = json.loads((project.folder / "results/evaluate" / arch / "metrics.json").read_text())["patches"]
        predictions = pd.read_csv(project.folder / "results/evaluate" / arch / "predictions.csv")
        assert scores["mitoses"] == predictions.label.sum() > 0
        assert scores["mitoses"] + scores["negatives"] == len(predictions)
        right = (predictions.predicted == predictions.label).mean()
        assert scores["accuracy"] == pytest.approx(right)
        intervals = json.loads((project.folder / "results/evaluate" / arch / "intervals.json").read_text())["patches"]
        for score in SCORES:
            assert 0 <= intervals[score][0] <= scores[score] <= intervals[score][1] <= 1
    shown = json.loads(project.run("dvc", "metrics", "show", "--json"))
    assert len(shown[""]["data"]) == len(ARCHS)


def test_no_patient_is_in_two_subsets(project: Project, first_repro: str) -> None:
    split = pd.read_csv(project.folder / "results/split.csv", dtype=str)
    assert split.patient.is_unique
    assert set(split.subset) == {"train", "validation", "test"}
    tested = set(split.patient[split.subset == "test"])
    for arch in ARCHS:
        predictions = pd.read_csv(project.folder / f"results/evaluate/{arch}/predictions.csv", dtype={"patient": str})
        assert set(predictions.patient) == tested


def test_store_holds_one_finished_run_per_network(
    project: Project, first_repro: str, client: mlflow.MlflowClient
) -> None:
    runs = {run.data.tags["architecture"]: run for run in trainings(client)}
    assert sorted(runs) == sorted(ARCHS)
    assert len(trainings(client)) == len(ARCHS)
    commit = project.run("git", "rev-parse", "HEAD").strip()
    digest = yaml.safe_load((project.folder / "data.dvc").read_text())["outs"][0]["md5"]
    params = yaml.safe_load((project.folder / "params.yaml").read_text())
    for arch, run in runs.items():
        assert run.info.status == "FINISHED"
        assert run.info.run_id == trained(project, arch)["run_id"]
        assert run.data.tags["mlflow.source.git.commit"] == commit
        assert run.data.tags["start_weights"] == "random"
        assert run.data.tags["synthetic"] == "true"
        assert float(run.data.params["train.lr"]) == params["train"][arch]["lr"]
        assert run.data.params["train.rotations.negative"] == "[0.0, 45.0]"
        assert [entry.dataset.digest for entry in run.inputs.dataset_inputs] == [digest]
        for name in ("loss", *SCORES):
            for subset in ("train", "validation"):
                steps = [metric.step for metric in client.get_metric_history(run.info.run_id, f"{subset}/{name}")]
                assert steps == [1, 2]
        test_scores = json.loads((project.folder / f"results/evaluate/{arch}/metrics.json").read_text())["patches"]
        for score in (*SCORES, "ap", "auc"):
            assert run.data.metrics[f"test/{score}"] == pytest.approx(test_scores[score])
        fields = json.loads((project.folder / f"results/evaluate/{arch}/metrics.json").read_text())["fields"]
        for score in ("precision", "recall", "f1", "ap"):
            assert run.data.metrics[f"test_fields/{score}"] == pytest.approx(fields[score])
        assert [metric.step for metric in client.get_metric_history(run.info.run_id, "mining/mean_score")] == [2]
        assert run.data.metrics["throughput/train_patches_per_second"] > 0
        assert any(name.startswith("system/") for name in run.data.metrics)


def test_store_holds_the_checkpoints_pictures_and_the_model(
    project: Project, first_repro: str, client: mlflow.MlflowClient
) -> None:
    mlflow.set_tracking_uri(f"sqlite:///{project.folder / 'mlflow.db'}")
    for run in trainings(client):
        run_id, arch = run.info.run_id, run.data.tags["architecture"]
        files = {item.path for folder in ("checkpoints", "pictures") for item in client.list_artifacts(run_id, folder)}
        pictures = {f"{arch}.png", "mined.png", "patches.png", "fields.png", "errors.png", "overlays"}
        assert files == {"checkpoints/last.pt", *(f"pictures/{name}" for name in pictures)}
        logged = client.get_logged_model(trained(project, arch)["model_id"])
        assert logged.source_run_id == run_id
        info = mlflow.models.get_model_info(logged.model_uri)
        assert info.signature is not None
        assert info.saved_input_example_info is not None
        model = mlflow.pyfunc.load_model(logged.model_uri)
        example = mlflow.models.Model.load(logged.model_uri).load_input_example()
        answer = model.predict(pd.concat([example] * 3))
        assert list(answer.columns) == ["probability", "mitosis"]
        assert len(answer) == 3
        assert answer.probability.between(0, 1).all()


def test_second_repro_runs_no_stage(project: Project, first_repro: str, client: mlflow.MlflowClient) -> None:
    before = registered(client)
    stages = stages_in(project.run("dvc", "repro"))
    assert stages == ["promote"]  # it looks whether the registry follows what DVC brought back
    assert registered(client) == before
    assert len(trainings(client)) == len(ARCHS)


def test_both_networks_are_registered_and_the_best_on_validation_is_the_champion(
    project: Project, first_repro: str, client: mlflow.MlflowClient
) -> None:
    scores = {arch: trained(project, arch)["field_validation_f1"] for arch in ARCHS}
    runs = {trained(project, arch)["run_id"]: arch for arch in ARCHS}
    versions = client.search_model_versions("name = 'mitoscope'")
    assert sorted(runs[version.run_id] for version in versions) == sorted(ARCHS)
    champion = client.get_model_version_by_alias("mitoscope", "champion")
    assert runs[champion.run_id] == max(scores, key=lambda arch: scores[arch])
    state = json.loads((project.folder / "results/registry.json").read_text())
    assert state["champion"] == int(champion.version)


def test_compare_says_synthetic_and_names_the_start_weights(project: Project, first_repro: str) -> None:
    said = project.run("mitoscope", "compare")
    for words in ("alexnet", "densenet161", "synthetic", "random", "another dataset"):
        assert words in said


def test_detection_in_a_field_finds_what_evaluation_found(
    project: Project, first_repro: str, no_mlflow_environment: None
) -> None:
    objects = pd.read_csv(project.folder / "results/evaluate/alexnet/objects.csv", dtype={"patient": str, "field": str})
    counts = pd.read_csv(project.folder / "results/evaluate/alexnet/fields.csv", dtype={"patient": str, "field": str})
    names = (counts.patient + "_" + counts.field).tolist()
    images = [str(path) for name in names for path in (project.folder / "data").glob(f"{name}.[jt]*")]
    assert len(images) == len(names) > 1
    said = project.run("mitoscope", "detect", *images, "--model", "models/alexnet/best.pt", "--out", "detected")
    assert "per 2 mm2" in said
    for name in names:
        patient, field = name.split("_")
        expected = objects[(objects.patient == patient) & (objects.field == field) & (objects.predicted == 1)]
        found = pd.read_csv(project.folder / "detected" / f"{name}_mitoses.csv")
        assert found[["row", "col"]].to_numpy() == pytest.approx(expected[["row", "col"]].to_numpy(), abs=0.02)
        assert found.probability.to_numpy() == pytest.approx(expected.probability.to_numpy(), abs=1e-5)
    summary = pd.read_csv(project.folder / "detected/summary.csv").set_index("field")
    assert summary.mitoses["all"] == counts.detections.sum()
    # The logged model is the same network.
    model = f"runs:/{trained(project, 'alexnet')['run_id']}/best"
    with contextlib.chdir(project.folder):
        detect([Path(images[0])], model=model, out=Path("again"), microns_per_pixel=None)
    file = f"{names[0]}_mitoses.csv"
    assert (project.folder / "again" / file).read_text() == (project.folder / "detected" / file).read_text()


def test_detection_on_the_sample_is_what_it_was(project: Project, first_repro: str) -> None:
    """The rows were written by an earlier version: candidates, windows and coordinates must not change unnoticed."""
    network = build({"arch": "squeezenet1_1", "patch_size": 64, "input_size": 64}, GOLDEN_START).eval()
    settings = {"stain": "none", "scale": 0.5, "sigma": 2.0, "peak_window": 11, "candidates_per_mm2": 1500}
    fields = settings | {"microns_per_pixel": 0.25, "synthetic": True, "typical_spread": None}
    save_network(project.folder / "golden.pt", network, field_threshold=0.5218, fields=fields)
    with contextlib.chdir(project.folder):
        detect([Path("data/03_01.jpg")], model="golden.pt", out=Path("golden"), microns_per_pixel=None)
    found = pd.read_csv(project.folder / "golden/03_01_mitoses.csv")
    golden = pd.read_csv(Path(__file__).with_name("golden_03_01.csv"))
    assert found[["row", "col"]].to_numpy().tolist() == golden[["row", "col"]].to_numpy().tolist()
    assert found.probability.to_numpy() == pytest.approx(golden.probability.to_numpy(), abs=1e-4)


def test_another_learning_rate_retrains_that_network_only(
    project: Project, first_repro: str, client: mlflow.MlflowClient
) -> None:
    before = trained(project, "densenet161")

    def change(params: Params) -> None:
        params["train"]["densenet161"]["lr"] *= 2

    project.change_params(change)
    assert stages_in(project.run("dvc", "repro")) == [
        "search@densenet161",
        "train@densenet161",
        "evaluate@densenet161",
        "promote",
    ]
    assert len(trainings(client)) == len(ARCHS) + 1
    assert trained(project, "densenet161")["run_id"] != before["run_id"]

    def change_back(params: Params) -> None:
        params["train"]["densenet161"]["lr"] /= 2

    # DVC brings the first training's outputs back from its cache; they must name the first training's run.
    project.change_params(change_back)
    assert stages_in(project.run("dvc", "repro")) == ["promote"]
    assert trained(project, "densenet161") == before
    assert len(trainings(client)) == len(ARCHS) + 1
