"""A detector by its name, and one line where there is none."""

import shutil
from pathlib import Path

import pytest
import yaml

from mitoscope.errors import InputError
from mitoscope.tracking import registry
from mitoscope.tracking.models import detector_file
from mitoscope.tracking.store import EXPERIMENT, open_store


@pytest.fixture
def run_id(logged_project: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The working directory: a project with a detector, "first", version 1 and champion. Returns the id of its run."""
    shutil.copytree(logged_project[0], tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    return logged_project[1]


def read(model: str) -> str:
    with detector_file(model) as path:
        return path.read_text()


def test_a_file_is_itself(tmp_path):
    (tmp_path / "detector.pt").touch()
    with detector_file(str(tmp_path / "detector.pt")) as path:
        assert path == tmp_path / "detector.pt"


def test_a_logged_detector_is_there_for_the_time_of_the_block(run_id):
    model_id = registry.list_versions()[0].model_id
    for model in (f"runs:/{run_id}/detector", f"models:/{model_id}", "models:/mitoscope@champion"):
        with detector_file(model) as path:
            assert path.read_text() == "first"
        assert not path.exists()


def test_a_deleted_experiment_takes_no_model_away(run_id):
    client = open_store()
    client.delete_experiment(client.get_experiment_by_name(EXPERIMENT).experiment_id)
    for model in (f"runs:/{run_id}/detector", "models:/mitoscope@champion", "models:/mitoscope/1"):
        assert read(model) == "first"


def test_without_a_champion_the_line_says_what_makes_one(run_id):
    open_store().delete_registered_model_alias("mitoscope", "champion")
    with pytest.raises(
        InputError, match="models:/mitoscope@champion: there is no champion; `mitoscope rollback` makes "
    ):
        read("models:/mitoscope@champion")
    registry.retire(1)
    with pytest.raises(InputError, match="models:/mitoscope@champion: there is no champion; `mitoscope promote`"):
        read("models:/mitoscope@champion")
    assert read("models:/mitoscope/1") == "first"  # it can be looked at


def test_a_network_of_version_0_1_is_said(run_id):
    (description,) = Path("mlartifacts/models").rglob("MLmodel")
    content = yaml.safe_load(description.read_text())
    artifacts = content["flavors"]["python_function"]["artifacts"]
    artifacts["network"] = artifacts.pop("detector")
    description.write_text(yaml.safe_dump(content))
    with pytest.raises(InputError, match=r"models:/mitoscope/1: contains a network of mitoscope 0\.1, not a detector"):
        read("models:/mitoscope/1")


@pytest.mark.parametrize("model", ["models:/mitoscope/7", "models:/other/1", "models:/other@mine", "runs:/0/detector"])
def test_what_the_store_lacks_is_said_in_one_line(run_id, model):
    with pytest.raises(InputError, match=f"{model}: no such model in the MLflow store sqlite:///") as caught:
        read(model)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("models/net/detector.pt", "no such model file; give a file such as models/NETWORK/detector.pt, runs:/<run"),
        ("runs:/0123", "this is a run, not a model; add /detector"),
        ("models:/mitoscope@champion", "there is no MLflow store .*; run this in the project's folder"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_made(no_mlflow_environment, tmp_path, monkeypatch, model, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=f"{model}: {said}"):
        read(model)
    assert not list(tmp_path.iterdir())
