"""What is registered, what passes the gate, and that nothing lets the champion go down step by step."""

import shutil
from pathlib import Path
from typing import Any

import mlflow
import pytest

import mitoscope
from mitoscope.commands.promote import promote
from mitoscope.errors import InputError
from mitoscope.paths import MODELS, REGISTRY, Outputs
from mitoscope.tracking import registry
from tests.conftest import NETWORK, tiny_params, write_params
from tests.results import change, read, run_of_training, write_results
from tests.tables import read_rows
from tests.test_layers import imports
from tests.threads import at_once

pytestmark = pytest.mark.slow

OUTPUTS = Outputs(NETWORK)
METRICS, TEST_SET = OUTPUTS.evaluated / "metrics.json", OUTPUTS.evaluated / "test_set.json"


def state() -> dict[str, Any]:
    return read(REGISTRY)


def gate() -> dict[str, dict[str, Any]]:
    """The conditions of the last promotion, by the first word of their names."""
    return {condition["name"].partition(" ")[0]: condition for condition in state()["gate"]}


def against_champions() -> tuple[str, bool]:
    condition = next(found for found in state()["gate"] if found["name"].endswith("best champion so far"))
    return condition["value"], condition["passed"]


def set_gate(**entries: float) -> None:
    params = tiny_params()
    params["promote"] |= entries
    write_params(params)


def everything() -> list[tuple[Any, ...]]:
    return [(v.number, v.run_id, dict(v.tags), v.card, v.aliases) for v in registry.list_versions()]


@pytest.fixture
def evaluated(extracted: Path, evaluated_folder: Path, empty_registry: None) -> str:
    """The small project with a tested detector. Returns the id of its run."""
    for name in ("results", "models"):
        shutil.copytree(evaluated_folder / name, name, dirs_exist_ok=True)
    return str(read(OUTPUTS.trained)["run_id"])


def become_another(f1: float) -> None:
    """Let the results be those of another detector, of the same training, with this F1 in the test fields."""
    model = mlflow.initialize_logged_model("detector", source_run_id=read(OUTPUTS.trained)["run_id"])
    for path in (OUTPUTS.detected, TEST_SET):
        change(path, model_id=model.model_id)
    change(METRICS, fields=read(METRICS)["fields"] | {"f1": f1})


def former_champion(f1: float | None) -> registry.Version:
    """A champion without a file; where it has an F1, that is known already."""
    model = mlflow.initialize_logged_model("detector", source_run_id=read(OUTPUTS.trained)["run_id"])
    known = {} if f1 is None else {score_tag(): f"{f1:.4f}"}
    version = registry.register(model.model_id, model.source_run_id, known, "a card")
    registry.make_champion(version)
    return version


def score_tag() -> str:
    return f"fields_f1_on_{read(TEST_SET)['digest'][:12]}"


def take_away(alias: str = "champion") -> None:
    mlflow.MlflowClient().delete_registered_model_alias("mitoscope", alias)


def test_the_first_detector_that_passes_becomes_the_champion_with_its_evidence(evaluated):
    promote()
    (version,) = registry.list_versions()
    assert version.aliases == ("champion",)
    assert (version.run_id, version.model_id) == (evaluated, read(OUTPUTS.detected)["model_id"])
    assert float(version.tags["test_fields_f1"]) == pytest.approx(read(METRICS)["fields"]["f1"], abs=1e-4)
    for name, value in {"network": NETWORK, "synthetic": "true", "start_weights": "random"}.items():
        assert version.tags[name] == value
    assert len(version.tags["test_set_digest"]) == 64
    assert version.tags["dataset_digest"] == read(TEST_SET)["dataset_digest"]
    tested = set(version.tags["test_patients"].split())
    trained = {*version.tags["train_patients"].split(), *version.tags["validation_patients"].split()}
    assert tested and trained and not tested & trained
    assert state()["champion"] == 1 and state()["challenger"] is None
    assert state()["versions"] == {NETWORK: 1} and state()["best_on_validation"] == NETWORK
    assert state()["model_ids"] == {NETWORK: read(Outputs(NETWORK).detected)["model_id"]}
    assert all(condition["passed"] for condition in state()["gate"])
    for words in ("Research only", "Synthetic data", "95 % interval", "Thresholds", "+ changes"):
        assert words in version.card
    assert len(version.card) < 5000


def test_a_second_run_changes_nothing(evaluated):
    promote()
    before, written = everything(), REGISTRY.read_text()
    promote()
    assert everything() == before
    assert REGISTRY.read_text() == written


def test_a_dry_run_prints_the_conditions_and_writes_nothing(evaluated, capsys):
    promote(dry_run=True)
    said = capsys.readouterr().out
    assert "recall in whole fields" in said and "F1 in whole fields" in said and "synthetic" in said
    assert registry.list_versions() == []
    assert not REGISTRY.exists()
    promote()
    before, written = everything(), REGISTRY.read_text()
    become_another(0.5)
    promote(dry_run=True)
    assert "F1 compared with the best champion" in capsys.readouterr().out
    assert (everything(), REGISTRY.read_text()) == (before, written)


def test_below_the_gate_it_is_the_challenger_and_the_failed_condition_is_named(evaluated, capsys):
    set_gate(min_f1=1.0)
    promote()
    said = capsys.readouterr().out
    assert "does not pass the gate" in said and "at least 1.0" in said and "NOT MET" in said
    assert state()["champion"] is None and state()["challenger"] == 1
    set_gate(min_f1=0.0)
    promote()
    assert state()["champion"] == 1 and state()["challenger"] is None


def test_the_champion_is_scored_afresh_from_its_own_file_and_defends_itself(evaluated):
    promote()
    own = read(METRICS)["fields"]["f1"]
    become_another(0.9)
    promote()
    tag = score_tag()
    assert float(registry.list_versions()[0].tags[tag]) == pytest.approx(own, abs=1e-3) and own > 0
    before = everything()
    promote()
    assert everything() == before

    for standing, who in ((1.0, 1), (0.0, 2)):
        registry.note(registry.list_versions()[0], {tag: f"{standing:.4f}"})
        mlflow.MlflowClient().set_registered_model_alias("mitoscope", "champion", "1")
        promote()
        assert state()["champion"] == who
        assert against_champions()[1] == (who == 2)


def test_the_champion_does_not_go_down_step_by_step(evaluated):
    steps = [0.700, 0.681, 0.662]
    for f1 in steps:
        become_another(f1)
        promote()
        # As the next promotion would find it out.
        (own,) = (v for v in registry.list_versions() if v.model_id == read(OUTPUTS.detected)["model_id"])
        registry.note(own, {score_tag(): f"{f1:.4f}"})
    assert (state()["champion"], state()["challenger"]) == (2, 3)
    value, passed = against_champions()
    assert value.startswith("0.6620, at least 0.7000 (version 1) - 0.02") and not passed


def test_as_good_as_the_best_champion_is_good_enough(evaluated):
    former_champion(2 / 3)  # 0.6667 as the tag keeps it
    params = tiny_params()
    params["promote"]["max_drop"] = 0.0
    write_params(params)
    become_another(2 / 3)
    promote()
    assert against_champions()[1] and state()["champion"] == 2


def test_without_the_alias_former_champions_are_still_the_measure(evaluated):
    former_champion(0.9)
    take_away()
    become_another(0.5)
    promote()
    assert (state()["champion"], state()["challenger"]) == (None, 2)
    become_another(0.95)
    promote()
    assert state()["champion"] == 3


def test_a_champion_that_lost_the_alias_by_hand_gets_it_back(evaluated):
    promote()
    take_away()
    promote()
    assert state()["champion"] == 1 and registry.champions()[0].number == 1


def test_without_a_version_of_the_champion_the_one_before_is_the_measure(evaluated):
    former_champion(0.9)
    become_another(0.95)
    promote()
    assert state()["champion"] == 2
    mlflow.MlflowClient().delete_model_version("mitoscope", "2")
    become_another(0.5)
    promote()
    assert state()["champion"] is None and "0.9000 (version 1)" in against_champions()[0]


def test_a_champion_that_cannot_be_loaded_blocks_the_challenger_and_ends_nothing(evaluated, capsys):
    former_champion(None)
    promote()
    value, passed = against_champions()
    assert "the champion, version 1, cannot be scored" in value and not passed
    assert "`mitoscope registry retire 1`" in value
    assert (state()["champion"], state()["challenger"]) == (1, 2)


def test_a_former_champion_that_cannot_be_loaded_is_left_out_and_said_so(evaluated):
    former_champion(None)
    former_champion(0.0)
    promote()
    value, passed = against_champions()
    assert passed and state()["champion"] == 3
    assert "at least 0.0000 (version 2)" in value and "left out: version 1 cannot be scored (models:/" in value


def move_test_to(patient: str, **entries: Any) -> None:
    """As after a change of the split: this patient is tested, by a network that has not seen them."""
    facts = {name: fact for name, fact in read(Path("patches/summary.json"))["fields"].items() if name[:2] == patient}
    images = {patient: [fact["pixels_sha256"] for fact in facts.values()]}
    change(OUTPUTS.trained, patients={"train": ["03"], "validation": ["04"]})
    change(TEST_SET, digest="a" * 64, patients=[patient], fields=list(facts), images=images)
    change(TEST_SET, **entries)


def rename_dataset(digest: str) -> None:
    """As if the same files had come as another dataset."""
    Path("data.dvc").write_text(f"outs:\n- md5: {digest}\n  path: data\n")
    change(TEST_SET, dataset_digest=digest)


def test_a_champion_that_knows_a_test_patient_blocks_the_challenger_until_it_is_retired(evaluated, capsys):
    promote()
    become_another(0.5)
    move_test_to("02")
    promote()
    value, passed = against_champions()
    assert "the champion, version 1, knows the test patients 02" in value and not passed
    assert "`mitoscope registry retire 1`" in " ".join(row[-1] for row in read_rows(capsys.readouterr().out))
    assert (state()["champion"], state()["challenger"]) == (1, 2)
    registry.retire(1)
    promote()
    assert state()["champion"] == 2 and "recall" in gate() and len(state()["gate"]) == 2


def test_the_same_pixels_under_another_name_are_known_and_other_pixels_under_the_same_name_are_not(evaluated):
    promote()
    become_another(0.5)
    move_test_to("02")
    rename_dataset("b" * 32)
    promote()
    assert "knows the test patients 02" in against_champions()[0]
    change(TEST_SET, digest="c" * 64, images={"02": ["0" * 64]})
    promote()
    assert "(version 1)" in against_champions()[0]


def test_former_champions_that_know_a_test_patient_are_left_out_and_said_so(evaluated):
    promote()
    become_another(0.5)
    move_test_to("02")
    former_champion(0.0)
    promote()
    value, passed = against_champions()
    assert passed and value.endswith("left out: version 1 knows the test patients 02")
    assert state()["champion"] == 3
    take_away()
    registry.retire(2)
    promote()
    assert against_champions() == (
        "no champion can be compared with; left out: version 1 knows the test patients 02",
        True,
    )


def test_a_champion_that_would_no_longer_pass_stays_and_is_said_so(evaluated, capsys):
    promote()
    set_gate(min_f1=1.0)
    promote()
    assert "although it would not pass the gate now" in " ".join(capsys.readouterr().out.split())
    assert state()["champion"] == 1
    assert not state()["gate"][1]["passed"]


@pytest.mark.parametrize("fate", ["retired", "rolled back"])
def test_what_people_took_back_is_not_promoted_again(evaluated, fate):
    former_champion(0.0)
    promote()
    assert state()["champion"] == 2
    if fate == "retired":
        registry.retire(2)
    else:
        former, now = registry.roll_back()
        assert former is not None and (former.number, now.number) == (2, 1)
    promote()
    assert state()["champion"] == (None if fate == "retired" else 1)
    assert {"name": f"not {fate}", "value": "version 2 was", "passed": False} in state()["gate"]
    assert state()["challenger"] == (None if fate == "retired" else 2)


def test_a_detector_that_was_taken_back_is_left_out_and_said_so(evaluated, capsys):
    promote()
    registry.retire(1)
    run_id, other = run_of_training(), Outputs("resnet18")
    model_id = mlflow.initialize_logged_model("detector", source_run_id=run_id).model_id
    for source, target in ((OUTPUTS.evaluated, other.evaluated), (MODELS / NETWORK, MODELS / "resnet18")):
        shutil.copytree(source, target)
    for source, target in ((OUTPUTS.trained, other.trained), (OUTPUTS.detected, other.detected)):
        shutil.copy(source, target)
        change(target, run_id=run_id, network="resnet18")
    for path in (other.detected, other.evaluated / "test_set.json"):
        change(path, run_id=run_id, model_id=model_id)
    params = tiny_params()
    for block in ("train", "weights"):
        params[block]["resnet18"] = params[block][NETWORK]
    write_params(params)
    promote()
    said = " ".join(capsys.readouterr().out.split())
    assert f"{NETWORK} (version 1) is left out: it was retired" in said
    assert "resnet18 (version 2), the best on validation of the others, passes the gate" in said


def test_a_retired_version_that_someone_made_the_champion_by_hand_ends_nothing(evaluated, capsys):
    promote()
    registry.retire(1)
    mlflow.MlflowClient().set_registered_model_alias("mitoscope", "champion", "1")
    promote()
    assert "is already the champion, although it would not pass" in " ".join(capsys.readouterr().out.split())


def test_an_earlier_training_that_dvc_brings_back_is_the_version_that_it_was(evaluated):
    shutil.copytree("results", "before")
    promote()
    second = run_of_training()
    for path in (OUTPUTS.trained, OUTPUTS.detected, TEST_SET):
        change(path, run_id=second)
    become_another(0.9)
    promote()
    assert state()["versions"] == {NETWORK: 2}
    shutil.copytree("before", "results", dirs_exist_ok=True)
    promote()
    assert [version.run_id for version in registry.list_versions()] == [evaluated, second]
    assert state()["versions"] == {NETWORK: 1}


def test_two_promotions_at_once_end_with_one_champion(evaluated):
    at_once(promote, 2)
    (version,) = registry.list_versions()
    assert version.aliases == ("champion",)


def test_a_promotion_that_dies_before_the_alias_moves_leaves_the_old_champion(evaluated, monkeypatch):
    promote()
    become_another(1.0)

    def die(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(mlflow.MlflowClient, "set_registered_model_alias", die)
        with pytest.raises(KeyboardInterrupt):
            promote()
    assert registry.find_alias("champion").number == 1  # type: ignore[union-attr]
    promote()
    assert state()["champion"] == 2


def test_the_best_on_validation_is_the_one_that_is_judged(evaluated):
    params = tiny_params()
    params["train"]["other"] = params["train"][NETWORK] | {"model": {"backbone": NETWORK}}
    write_params(params)
    other = Outputs("other")
    shutil.copytree(OUTPUTS.evaluated, other.evaluated)
    shutil.copytree(Path("models", NETWORK), Path("models/other"))
    for ours, theirs in ((OUTPUTS.trained, other.trained), (OUTPUTS.detected, other.detected)):
        shutil.copy(ours, theirs)
    become_another(0.9)  # of the first network
    change(other.detected, validation_fields={"f1": 0.99})
    promote()
    assert state()["best_on_validation"] == "other" and state()["versions"] == {NETWORK: 1, "other": 2}
    assert state()["champion"] == 2
    change(other.evaluated / "test_set.json", digest="0" * 64)
    with pytest.raises(InputError, match="tested on different sets; run `dvc repro` first"):
        promote()


def test_scores_of_another_training_are_not_registered(evaluated):
    change(OUTPUTS.trained, run_id="0" * 32)
    with pytest.raises(InputError, match=f"belongs to another training .* run `dvc repro evaluate@{NETWORK}` first"):
        promote()
    assert registry.list_versions() == []


def test_a_network_that_knows_a_test_patient_is_not_registered(evaluated):
    tested = read(TEST_SET)["patients"]
    change(OUTPUTS.trained, patients={"train": tested, "validation": []})
    with pytest.raises(InputError, match=f"patient {tested[0]} was used for training and for testing"):
        promote()
    assert registry.list_versions() == []


def test_results_of_other_patches_or_data_are_not_registered(evaluated):
    Path("data.dvc").write_text("outs:\n- md5: 0123456789abcdef0123456789abcdef.dir\n  path: data\n")
    with pytest.raises(InputError, match=f"data: has changed since {NETWORK} was tested; run `dvc repro` first"):
        promote()
    Path("data.dvc").unlink()
    change(Path("patches/summary.json"), digest="0" * 64)
    with pytest.raises(InputError, match="belongs to other patches than patches; run `dvc repro evaluate@"):
        promote()
    assert registry.list_versions() == []


def test_data_that_are_missing_are_no_reason_to_leave_a_champion_out(evaluated):
    promote()
    become_another(0.5)
    next(Path("data").glob(f"{read(TEST_SET)['fields'][0]}.*")).unlink()
    with pytest.raises(InputError, match="data: tested fields are missing; run `dvc repro` first"):
        promote()
    assert registry.find_alias("champion").number == 1  # type: ignore[union-attr]


def test_without_an_evaluation_there_is_nothing_to_promote(extracted, mlflow_store):
    with pytest.raises(InputError, match="no network has been evaluated; run `dvc repro` first"):
        promote()
    assert not REGISTRY.exists()


def test_a_run_that_the_store_lacks_is_said_so(extracted, mlflow_store):
    write_results()
    with pytest.raises(InputError, match=f"there is no run {'0' * 32}"):
        promote()


def test_no_stage_comes_near_the_registry():
    paths = list(Path(mitoscope.__file__).parent.joinpath("stages").rglob("*.py"))
    assert len(paths) > 5
    for path in paths:
        names = imports(path)
        assert not [name for name in names if "promote" in name or "registry" in name or "gate" in name], path
