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
from mitoscope.detection.detector import Detector
from mitoscope.learning.networks import build, start_state
from mitoscope.params import Detection, Extract
from tests.conftest import small_detector
from tests.pages import PAGES, Block, read_blocks

from .conftest import FIRST, IDENTITY, REPOSITORY, SECOND, Params, Project, reported, stages_in, trained, trainings

pytestmark = pytest.mark.slow

# Of chance, but the same chance everywhere: torch's generator gives the same numbers on every machine.
GOLDEN_START, _ = start_state("squeezenet1_1", None, 0, "classifier")
NETWORKS = (FIRST, SECOND)
SCORES = ("accuracy", "precision", "recall", "f1")


def registered(client: mlflow.MlflowClient) -> list[tuple[str, dict[str, str], dict[str, str]]]:
    """The registry's versions with their evidence, and who has which alias."""
    aliases = client.get_registered_model("mitoscope").aliases
    versions = client.search_model_versions("name = 'mitoscope'")
    return [(version.run_id, dict(version.tags), aliases) for version in versions]


def runnable(page: Path) -> list[Block]:
    """What of a page can be run here."""
    return [block for block in read_blocks(page) if block.reason is None]


@pytest.fixture(scope="module")
def first_repro(project: Project) -> str:
    """The first run, through MLflow's own launcher, which hands its run to the children by the environment."""
    return project.run("mlflow", "run", ".", "--env-manager", "local")


def test_first_run_writes_the_metrics_of_both_networks(project: Project, first_repro: str) -> None:
    for network in NETWORKS:
        scores = json.loads((project.folder / "results/evaluate" / network / "metrics.json").read_text())["patches"]
        predictions = pd.read_csv(project.folder / "results/evaluate" / network / "predictions.csv")
        assert scores["mitoses"] == predictions.label.sum() > 0
        assert scores["mitoses"] + scores["negatives"] == len(predictions)
        right = (predictions.predicted == predictions.label).mean()
        assert scores["accuracy"] == pytest.approx(right)
        intervals = json.loads((project.folder / "results/evaluate" / network / "intervals.json").read_text())[
            "patches"
        ]
        for score in SCORES:
            assert 0 <= intervals[score][0] <= scores[score] <= intervals[score][1] <= 1
    shown = json.loads(project.run("dvc", "metrics", "show", "--json"))
    assert len(shown[""]["data"]) == len(NETWORKS)


def test_no_patient_is_in_two_subsets(project: Project, first_repro: str) -> None:
    split = pd.read_csv(project.folder / "results/split.csv", dtype=str)
    assert split.patient.is_unique
    assert set(split.subset) == {"train", "validation", "test"}
    tested = set(split.patient[split.subset == "test"])
    for network in NETWORKS:
        predictions = pd.read_csv(
            project.folder / f"results/evaluate/{network}/predictions.csv", dtype={"patient": str}
        )
        assert set(predictions.patient) == tested


def test_store_holds_one_finished_run_per_network(
    project: Project, first_repro: str, client: mlflow.MlflowClient
) -> None:
    runs = {run.data.tags["network"]: run for run in trainings(client)}
    assert sorted(runs) == sorted(NETWORKS)
    assert len(trainings(client)) == len(NETWORKS)
    commit = project.run("git", "rev-parse", "HEAD").strip()
    digest = yaml.safe_load((project.folder / "data.dvc").read_text())["outs"][0]["md5"]
    params = yaml.safe_load((project.folder / "params.yaml").read_text())
    for network, run in runs.items():
        assert run.info.status == "FINISHED"
        assert run.info.run_id == trained(project, network)["run_id"]
        assert run.data.tags["mlflow.source.git.commit"] == commit
        assert run.data.tags["start_weights"] == "random"
        assert run.data.tags["synthetic"] == "true"
        assert float(run.data.params["train.optimisation.lr"]) == params["train"][network]["optimisation"]["lr"]
        assert run.data.params["train.sampling.rotations.negative"] == "[0.0, 45.0]"
        assert [entry.dataset.digest for entry in run.inputs.dataset_inputs] == [digest]
        for name in ("loss", *SCORES):
            for subset in ("train", "validation"):
                steps = [metric.step for metric in client.get_metric_history(run.info.run_id, f"{subset}/{name}")]
                assert steps == [1, 2]
        test_scores = json.loads((project.folder / f"results/evaluate/{network}/metrics.json").read_text())["patches"]
        for score in (*SCORES, "ap", "auc"):
            assert run.data.metrics[f"test/{score}"] == round(test_scores[score], 4)
        fields = json.loads((project.folder / f"results/evaluate/{network}/metrics.json").read_text())["fields"]
        for score in ("precision", "recall", "f1", "ap"):
            assert run.data.metrics[f"test_fields/{score}"] == round(fields[score], 4)
        assert [metric.step for metric in client.get_metric_history(run.info.run_id, "mining/mean_score")] == [2]
        assert run.data.metrics["throughput/train_patches_per_second"] > 0
        assert any(name.startswith("system/") for name in run.data.metrics)


def test_store_holds_the_checkpoints_pictures_and_the_model(
    project: Project, first_repro: str, client: mlflow.MlflowClient
) -> None:
    mlflow.set_tracking_uri(f"sqlite:///{project.folder / 'mlflow.db'}")
    for run in trainings(client):
        run_id, network = run.info.run_id, run.data.tags["network"]
        files = {item.path for folder in ("checkpoints", "pictures") for item in client.list_artifacts(run_id, folder)}
        pictures = {f"{network}.png", "mined.png", "patches.png", "fields.png", "errors.png", "overlays"}
        assert files == {"checkpoints/last.pt", *(f"pictures/{name}" for name in pictures)}
        logged = client.get_logged_model(reported(project, network)["model_id"])
        assert logged.source_run_id == run_id
        info = mlflow.models.get_model_info(logged.model_uri)
        assert info.signature is not None
        assert info.saved_input_example_info is not None
        model = mlflow.pyfunc.load_model(logged.model_uri)
        example = mlflow.models.Model.load(logged.model_uri).load_input_example()
        answers = model.predict(pd.concat([example] * 3))
        assert len(answers) == 3 * len(example)
        assert all(0 <= answer["probability"] <= 1 for answer in answers if "probability" in answer)


def test_second_repro_runs_no_stage_and_promotes_nothing(
    project: Project, first_repro: str, client: mlflow.MlflowClient
) -> None:
    before = registered(client)
    assert stages_in(project.run("dvc", "repro")) == []
    project.run("mitoscope", "promote")
    assert registered(client) == before
    assert len(trainings(client)) == len(NETWORKS)


def test_both_detectors_are_registered_and_the_best_on_validation_is_the_champion(
    project: Project, first_repro: str, client: mlflow.MlflowClient
) -> None:
    scores = {network: reported(project, network)["validation_fields"]["f1"] for network in NETWORKS}
    runs = {trained(project, network)["run_id"]: network for network in NETWORKS}
    versions = client.search_model_versions("name = 'mitoscope'")
    assert sorted(runs[version.run_id] for version in versions) == sorted(NETWORKS)
    champion = client.get_model_version_by_alias("mitoscope", "champion")
    assert runs[champion.run_id] == max(scores, key=lambda network: scores[network])
    state = json.loads((project.folder / "results/registry.json").read_text())
    assert state["champion"] == int(champion.version)


def test_compare_says_synthetic_and_names_the_start_weights(project: Project, first_repro: str) -> None:
    said = project.run("mitoscope", "compare")
    for words in (*NETWORKS, "synthetic", "random"):
        assert words in said


def test_detection_in_a_field_finds_what_evaluation_found(
    project: Project, first_repro: str, no_mlflow_environment: None
) -> None:
    objects = pd.read_csv(
        project.folder / f"results/evaluate/{FIRST}/objects.csv", dtype={"patient": str, "field": str}
    )
    counts = pd.read_csv(project.folder / f"results/evaluate/{FIRST}/fields.csv", dtype={"patient": str, "field": str})
    names = (counts.patient + "_" + counts.field).tolist()
    images = [str(path) for name in names for path in (project.folder / "data").glob(f"{name}.[jt]*")]
    assert len(images) == len(names) > 1
    said = project.run("mitoscope", "detect", *images, "--model", f"models/{FIRST}/detector.pt", "--out", "detected")
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
    model = f"runs:/{trained(project, FIRST)['run_id']}/detector"
    with contextlib.chdir(project.folder):
        detect([Path(images[0])], model=model, out=Path("again"), microns_per_pixel=None)
    file = f"{names[0]}_mitoses.csv"
    assert (project.folder / "again" / file).read_text() == (project.folder / "detected" / file).read_text()


def test_detection_on_the_sample_is_what_it_was(project: Project, first_repro: str) -> None:
    """The rows were written by an earlier version: candidates, windows and coordinates must not change unnoticed."""
    description = {"backbone": "squeezenet1_1", "head": "classifier", "patch_size": 64, "input_size": 64}
    detector: Detector = small_detector(
        model=build(description, GOLDEN_START).eval(),
        extract=Extract(),
        detection=Detection(),
        calibration=None,
        threshold=0.5218,
    )
    detector.save(project.folder / "golden.pt")
    with contextlib.chdir(project.folder):
        detect([Path("data/03_01.jpg")], model="golden.pt", out=Path("golden"), microns_per_pixel=None)
    found = pd.read_csv(project.folder / "golden/03_01_mitoses.csv")
    golden = pd.read_csv(Path(__file__).with_name("golden_03_01.csv"))
    assert found[["row", "col"]].to_numpy().tolist() == golden[["row", "col"]].to_numpy().tolist()
    assert found.probability.to_numpy() == pytest.approx(golden.probability.to_numpy(), abs=1e-4)


@pytest.mark.parametrize("page", [page for page in PAGES if runnable(page)], ids=lambda page: page.stem)
def test_the_code_blocks_of_a_page_run(
    project: Project, first_repro: str, page: Path, no_mlflow_environment: None, capsys: pytest.CaptureFixture[str]
) -> None:
    before = project.run("git", "status", "--porcelain")
    for block in runnable(page):
        if block.language == "sh":
            project.run("bash", "-ec", block.code)
        else:
            with contextlib.chdir(project.folder):
                exec(compile("\n" * (block.line - 1) + block.code, page, "exec"), {"__name__": "__main__"})
    assert project.run("git", "status", "--porcelain") == before


def test_a_default_that_is_written_out_or_left_out_runs_nothing(project: Project, first_repro: str) -> None:
    def defaults(params: Params) -> None:
        params["detection"][FIRST]["suppress_um"] = 7.5
        params["train"][SECOND]["model"] |= {"seed": 0, "backbone": None}
        del params["train"][FIRST]["sampling"]["flips"]
        params["evaluate"]["seed"] = params["split"]["seed"] = 0

    project.change_params(defaults)
    assert stages_in(project.run("dvc", "repro")) == ["settings"]


def test_no_training_depends_on_how_whole_fields_are_scored() -> None:
    for path in (REPOSITORY / "dvc.yaml", REPOSITORY / "crossvalidation/dvc.yaml"):
        stages = yaml.safe_load(path.read_text())["stages"]
        for name, behind in (("search", False), ("train", False), ("detector", True)):
            stage = stages[name].get("do", stages[name])
            assert any("detection.json" in dep for dep in stage["deps"]) is behind
            assert not {"detection", "train", "weights"} & set(stage.get("params", []))


def test_an_experiment_with_another_learning_rate_trains_that_network_and_leaves_the_registry_alone(
    project: Project, first_repro: str, client: mlflow.MlflowClient
) -> None:
    before, versions = trained(project, FIRST), registered(client)
    project.run("git", "add", "--all")
    project.run("git", *IDENTITY, "commit", "--quiet", "--message", "results")
    settings = ("-S", f"train.{FIRST}.optimisation.lr=0.002", "-S", "promote.max_drop=1")
    stages = stages_in(project.run("dvc", "exp", "run", *settings))
    assert stages == [
        "settings",
        *(f"{stage}@{FIRST}" for stage in ("search", "train", "detector", "evaluate")),
    ]
    assert len(trainings(client)) == len(NETWORKS) + 1
    assert trained(project, FIRST)["run_id"] != before["run_id"]
    assert registered(client) == versions

    # DVC brings the first training's outputs back from its cache; they must name the first training's run.
    project.run("git", "checkout", "--quiet", "params.yaml", "dvc.lock")
    assert stages_in(project.run("dvc", "repro")) == []
    assert trained(project, FIRST) == before
    assert len(trainings(client)) == len(NETWORKS) + 1


def test_a_network_that_is_taken_out_leaves_the_pipeline_whole(project: Project, first_repro: str) -> None:
    def take_out(params: Params) -> None:
        for block in ("weights", "train", "detection"):
            del params[block][SECOND]

    project.change_params(take_out)
    assert stages_in(project.run("dvc", "repro")) == ["settings"]
    said = project.run("dvc", "plots", "show")
    page = (project.folder / "dvc_plots/index.html").read_text()
    assert "failed" not in said and FIRST in page and SECOND not in page
