"""Versions and aliases in a real store. What makes a champion is in tests/stages/test_promote.py."""

import json

import mlflow
import pytest

from mitoscope.errors import InputError
from mitoscope.tracking import registry
from mitoscope.tracking.store import connect
from tests.threads import at_once

TAGS = {"architecture": "alexnet", "test_fields_f1": "0.7000"}


@pytest.fixture
def new_model(empty_registry, mlflow_store):
    """Makes a run with a logged model; returns the ids of both."""

    def make() -> tuple[str, str]:
        client = connect()
        experiment = client.get_experiment_by_name("mitoscope")
        run_id = client.create_run(experiment.experiment_id).info.run_id
        return mlflow.initialize_logged_model("best", source_run_id=run_id).model_id, run_id

    return make


def test_a_run_is_registered_once_and_its_evidence_follows(new_model):
    model = new_model()
    first = registry.register(*model, TAGS, "a card")
    assert (first.number, first.run_id, first.card, first.aliases) == (1, model[1], "a card", ())
    assert registry.register(*model, TAGS, "a card") == first
    newer = registry.register(*model, TAGS | {"test_fields_f1": "0.8000"}, "another card")
    assert newer.number == 1
    assert newer.tags["test_fields_f1"] == "0.8000" and newer.card == "another card"


def test_two_registrations_at_once_leave_one_version(new_model):
    model = new_model()
    at_once(lambda: registry.register(*model, TAGS, "a card"), 4)
    assert [version.number for version in registry.list_versions()] == [1]


def test_a_crown_remembers_the_one_before(new_model):
    first, second = (registry.register(*new_model(), TAGS, "") for _ in range(2))
    registry.crown(first)
    registry.refuse(second)
    assert registry.holder("challenger").number == 2
    registry.crown(registry.holder("challenger"))
    assert registry.holder("challenger") is None
    champion = registry.holder("champion")
    assert champion.number == 2
    registry.crown(champion)  # again
    history = json.loads(mlflow.MlflowClient().get_registered_model("mitoscope").tags["champions"])
    assert [entry["version"] for entry in history] == [1, 2]
    assert history[0]["since"] <= history[1]["since"]


def test_rolling_back_skips_what_was_rolled_back_before(new_model):
    versions = [registry.register(*new_model(), TAGS, "") for _ in range(3)]
    registry.crown(versions[0])
    registry.crown(versions[1])
    assert [version.number for version in registry.roll_back()] == [2, 1]
    assert registry.list_versions()[1].rolled_back
    registry.crown(versions[2])  # after version 1
    assert [version.number for version in registry.roll_back()] == [3, 1]
    with pytest.raises(InputError, match="no champion before it"):
        registry.roll_back()
    assert registry.holder("champion").number == 1


def test_a_champion_that_came_back_has_the_history_of_both_times(new_model):
    versions = [registry.register(*new_model(), TAGS, "") for _ in range(3)]
    for number in (0, 1, 2, 1):  # DVC brought version 2 back
        registry.crown(registry.list_versions()[number])
    assert [version.number for version in registry.roll_back()] == [2, 3]
    assert [version.number for version in registry.roll_back()] == [3, 1]
    assert len(versions) == 3


def test_nobody_is_champion_and_challenger(new_model):
    first, second = (registry.register(*new_model(), TAGS, "") for _ in range(2))
    registry.crown(first)
    registry.crown(second)
    registry.refuse(first)
    registry.roll_back()
    assert registry.holder("champion").number == 1
    assert registry.holder("challenger") is None


def test_a_deleted_predecessor_cannot_be_put_back(new_model):
    versions = [registry.register(*new_model(), TAGS, "") for _ in range(2)]
    for version in versions:
        registry.crown(version)
    mlflow.MlflowClient().delete_model_version("mitoscope", "1")
    with pytest.raises(InputError, match="version 2 had no champion before it"):
        registry.roll_back()
    assert registry.holder("champion").number == 2


def test_an_empty_registry_has_no_champion(empty_registry, mlflow_store):
    assert registry.list_versions() == []
    assert registry.holder("champion") is None
    with pytest.raises(InputError, match="no champion to roll back"):
        registry.roll_back()
