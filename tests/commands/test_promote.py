import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest

from mitoscope.commands.promote import promote
from mitoscope.errors import InputError
from mitoscope.files import write_json
from mitoscope.learning import checkpoints
from mitoscope.learning.networks import build
from mitoscope.stages.evaluate import evaluate
from mitoscope.stages.train import train
from mitoscope.stages.weights import weights
from mitoscope.tracking import registry
from mitoscope.tracking.store import connect
from tests.conftest import NETWORK, settle_batch_norms, tiny_params, write_params
from tests.threads import at_once

STATE, REPORT = Path("results/registry.json"), Path("results/train", f"{NETWORK}.json")


def state():
    return json.loads(STATE.read_text())


def set_gate(**gate):
    params = tiny_params()
    params["promote"] |= gate
    write_params(params)


@pytest.fixture(scope="module")
def trainings(_extracted: Path, _store_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """What two trainings and their tests leave, by the seed; their runs are in the store of all tests."""
    folder = tmp_path_factory.mktemp("trainings")
    shutil.copytree(_extracted, folder, dirs_exist_ok=True)
    kept = {}
    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(folder):
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{_store_folder / 'mlflow.db'}")
        connect(_store_folder)
        weights(NETWORK)
        start = Path("models", NETWORK, "start.pt")
        network = build({"arch": NETWORK, "patch_size": 32, "input_size": 32}, checkpoints.load(start))
        settle_batch_norms(network)
        checkpoints.save(start, network.network.state_dict())
        for seed in (0, 1):
            params = tiny_params()
            params["train"][NETWORK]["seed"] = seed
            write_params(params)
            train(NETWORK)
            evaluate(NETWORK)
            kept[seed] = tmp_path_factory.mktemp(f"seed{seed}")
            for name in ("results", "models"):
                shutil.copytree(name, kept[seed] / name)
    return kept


@pytest.fixture
def retrain(extracted: Path, trainings: dict[int, Path], empty_registry: None) -> Callable[[int], str]:
    """Put the results of the training with a seed into the project; returns the id of its run."""

    def put(seed: int) -> str:
        shutil.copytree(trainings[seed], ".", dirs_exist_ok=True)
        return str(json.loads(REPORT.read_text())["run_id"])

    return put


@pytest.fixture
def evaluated(retrain: Callable[[int], str]) -> None:
    """The small project with a network that was trained for an epoch and tested."""
    retrain(0)


def everything() -> list[tuple]:
    return [(v.number, v.run_id, dict(v.tags), v.card, v.aliases) for v in registry.list_versions()]


def test_the_first_network_that_passes_becomes_the_champion_with_its_evidence(evaluated):
    promote()
    (version,) = registry.list_versions()
    metrics = json.loads(Path("results/evaluate", NETWORK, "metrics.json").read_text())
    assert version.aliases == ("champion",)
    assert version.run_id == json.loads(REPORT.read_text())["run_id"]
    assert float(version.tags["test_fields_f1"]) == pytest.approx(metrics["fields"]["f1"], abs=1e-4)
    assert version.tags["synthetic"] == "true"
    assert version.tags["start_weights"] == "random"
    assert len(version.tags["test_set_digest"]) == 64
    tested = set(version.tags["test_patients"].split())
    assert tested and not tested & {
        *version.tags["train_patients"].split(),
        *version.tags["validation_patients"].split(),
    }
    assert state()["champion"] == 1 and state()["challenger"] is None
    assert all(condition["passed"] for condition in state()["gate"])
    for words in (
        "Research only",
        "Synthetic data",
        "95 % interval",
        "Thresholds",
        version.tags["git_commit"] or "unknown",
    ):
        assert words in version.card
    assert len(version.card) < 5000
    loaded = mlflow.pyfunc.load_model("models:/mitoscope@champion")
    assert loaded.metadata.run_id == version.run_id


def test_a_second_run_changes_nothing(evaluated):
    promote()
    before, written = everything(), STATE.read_text()
    promote()
    assert everything() == before
    assert STATE.read_text() == written


def test_a_dry_run_prints_the_conditions_and_writes_nothing(evaluated, capsys):
    promote(dry_run=True)
    said = capsys.readouterr().out
    assert "recall in whole fields" in said and "F1 in whole fields" in said and "synthetic" in said
    assert registry.list_versions() == []
    assert not STATE.exists()


def test_below_the_gate_it_is_the_challenger_and_the_failed_condition_is_named(evaluated, capsys):
    set_gate(min_f1=1.0)
    promote()
    said = capsys.readouterr().out
    assert "is refused" in said and "at least 1.0" in said and "NOT MET" in said
    assert state()["champion"] is None and state()["challenger"] == 1
    set_gate(min_f1=0.0)
    promote()
    assert state()["champion"] == 1 and state()["challenger"] is None


def test_the_champion_is_scored_afresh_and_defends_itself(evaluated, retrain):
    promote()
    champion_f1 = json.loads(Path("results/evaluate", NETWORK, "metrics.json").read_text())["fields"]["f1"]
    retrain(1)
    promote(dry_run=True)
    assert not afresh()
    promote()
    ((tag, value),) = afresh().items()
    assert float(value) == pytest.approx(champion_f1, abs=1e-3) and champion_f1 > 0  # of its own file, from the images
    before = everything()
    promote()
    assert everything() == before

    for standing, who in (("1.0", 1), ("0.0", 2)):
        registry.note(registry.list_versions()[0], {tag: standing})
        mlflow.MlflowClient().set_registered_model_alias("mitoscope", "champion", "1")
        promote()
        assert state()["champion"] == who
        assert [condition["passed"] for condition in state()["gate"]][-1] == (who == 2)


def afresh() -> dict[str, str]:
    """The champion's scores on the test sets of its challengers."""
    return {name: value for name, value in registry.list_versions()[0].tags.items() if name.startswith("fields_f1_on_")}


def test_scores_of_another_training_are_not_registered(evaluated):
    write_json(REPORT, json.loads(REPORT.read_text()) | {"run_id": "0" * 32})
    with pytest.raises(InputError, match=f"scores of another training; run `dvc repro evaluate@{NETWORK}` first"):
        promote()
    assert registry.list_versions() == []


def test_a_network_that_knows_a_test_patient_is_not_registered(evaluated):
    tested = json.loads(Path("results/evaluate", NETWORK, "test_set.json").read_text())["patients"]
    write_json(REPORT, json.loads(REPORT.read_text()) | {"patients": {"train": tested, "validation": []}})
    with pytest.raises(InputError, match=f"patient {tested[0]} was trained on and tested"):
        promote()
    assert registry.list_versions() == []


def test_a_champion_that_cannot_be_loaded_refuses_the_challenger_and_ends_nothing(evaluated, retrain, capsys):
    client = connect()
    client.create_registered_model("mitoscope")
    run_id = client.create_run(client.get_experiment_by_name("mitoscope").experiment_id).info.run_id
    model = mlflow.initialize_logged_model("best", source_run_id=run_id)  # and no file in it
    client.create_model_version("mitoscope", f"models:/{model.model_id}", model_id=model.model_id)
    client.set_model_version_tag("mitoscope", "1", "train_patients", "98 99")
    client.set_registered_model_alias("mitoscope", "champion", "1")
    promote()
    assert "the champion cannot be scored" in " ".join(capsys.readouterr().out.split())
    assert state()["champion"] == 1 and state()["challenger"] == 2


def test_a_champion_that_would_no_longer_pass_stays_and_is_said_so(evaluated, capsys):
    promote()
    set_gate(min_f1=1.0)
    promote()
    assert "though it would not pass the gate now" in " ".join(capsys.readouterr().out.split())
    assert state()["champion"] == 1
    assert not state()["gate"][1]["passed"]


def test_a_champion_that_knows_a_test_patient_is_no_measure(evaluated, retrain, capsys):
    promote()
    params = tiny_params()
    (version,) = registry.list_versions()
    patient = json.loads(Path("results/evaluate", NETWORK, "test_set.json").read_text())["patients"][0]
    registry.note(version, {"train_patients": f"{patient} 99"})
    write_params(params)
    retrain(1)
    promote()
    assert f"it knows {patient}" in capsys.readouterr().out
    assert state()["champion"] == 1 and state()["challenger"] == 2


def test_rollback_puts_the_former_champion_back_and_the_gate_keeps_it(evaluated, retrain):
    promote()
    retrain(1)
    set_gate(max_drop=1.0)
    promote()
    assert state()["champion"] == 2
    former, now = registry.roll_back()
    assert (former.number, now.number) == (2, 1)
    assert registry.holder("champion").number == 1
    promote()
    assert state()["champion"] == 1 and state()["challenger"] == 2
    assert any("rolled back" in condition["name"] and not condition["passed"] for condition in state()["gate"])
    with pytest.raises(InputError, match="version 1 had no champion before it"):
        registry.roll_back()


def test_an_earlier_training_that_dvc_brings_back_is_the_version_that_it_was(evaluated, retrain):
    promote()
    second = retrain(1)
    promote()
    retrain(0)
    promote()
    assert len(registry.list_versions()) == 2
    assert state()["versions"] == {NETWORK: 1}
    assert registry.list_versions()[1].run_id == second


def test_two_promotions_at_once_end_with_one_champion(evaluated):
    at_once(promote, 2)
    (version,) = registry.list_versions()
    assert version.aliases == ("champion",)


def test_a_promotion_that_dies_before_the_alias_moves_leaves_the_old_champion(evaluated, retrain, monkeypatch):
    promote()
    retrain(1)
    set_gate(max_drop=1.0)

    def die(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(mlflow.MlflowClient, "set_registered_model_alias", die)
        with pytest.raises(KeyboardInterrupt):
            promote()
    assert registry.holder("champion").number == 1
    promote()
    assert registry.holder("champion").number == 2


def test_networks_tested_on_different_sets_are_not_compared(evaluated):
    params = tiny_params()
    params["train"]["alexnet"] = params["train"][NETWORK]
    params["weights"]["alexnet"] = "random"
    write_params(params)
    for folder in ("results/evaluate", "models"):
        target = Path(folder, "alexnet")
        target.mkdir()
        for path in Path(folder, NETWORK).glob("*.json"):
            (target / path.name).write_bytes(path.read_bytes())
    Path("results/train/alexnet.json").write_bytes(REPORT.read_bytes())
    described = Path("results/evaluate/alexnet/test_set.json")
    write_json(described, json.loads(described.read_text()) | {"digest": "0" * 64})
    with pytest.raises(InputError, match="tested on different sets"):
        promote()
    assert registry.list_versions() == []


def test_without_an_evaluation_there_is_nothing_to_promote(extracted, mlflow_store):
    with pytest.raises(InputError, match="no network has been evaluated; run `dvc repro` first"):
        promote()
    assert not STATE.exists()


def test_rollback_without_a_champion_is_said_so(extracted, empty_registry):
    with pytest.raises(InputError, match="no champion to roll back"):
        registry.roll_back()
