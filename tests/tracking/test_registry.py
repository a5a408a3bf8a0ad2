"""Versions and aliases in a real store. What makes a champion is in tests/commands/test_promote.py."""

import json

import mlflow
import pytest

from mitoscope.errors import InputError
from mitoscope.tracking import registry
from tests.threads import at_once

pytestmark = pytest.mark.slow

TAGS = {"network": "small", "test_fields_f1": "0.7000"}


def test_a_detector_is_registered_once_and_its_evidence_follows(new_model):
    model = new_model()
    first = registry.register(*model, TAGS, "a card")
    assert (first.number, first.model_id, first.run_id, first.card, first.aliases) == (1, *model, "a card", ())
    assert registry.register(*model, TAGS, "a card") == first
    newer = registry.register(*model, TAGS | {"test_fields_f1": "0.8000"}, "another card")
    assert newer.number == 1
    assert newer.tags["test_fields_f1"] == "0.8000" and newer.card == "another card"


def test_detectors_of_one_training_are_versions_of_their_own(new_model):
    one_view = new_model()
    more_views = new_model(one_view[1])
    versions = [registry.register(*model, TAGS, "") for model in (one_view, more_views, one_view)]
    assert [version.number for version in versions] == [1, 2, 1]
    found = [(version.number, version.model_id, version.run_id) for version in registry.list_versions()]
    assert found == [(1, *one_view), (2, *more_views)]


def test_two_registrations_at_once_leave_one_version(new_model):
    model = new_model()
    at_once(lambda: registry.register(*model, TAGS, "a card"), 4)
    assert [version.number for version in registry.list_versions()] == [1]


def test_a_champion_remembers_the_one_before(new_model):
    first, second = (registry.register(*new_model(), TAGS, "") for _ in range(2))
    registry.make_champion(first)
    registry.make_challenger(second)
    assert registry.find_alias("challenger").number == 2
    registry.make_champion(registry.find_alias("challenger"))
    assert registry.find_alias("challenger") is None
    champion = registry.find_alias("champion")
    assert champion.number == 2
    registry.make_champion(champion)  # again
    history = json.loads(mlflow.MlflowClient().get_registered_model("mitoscope").tags["champions"])
    assert [entry["version"] for entry in history] == [1, 2]
    assert history[0]["since"] <= history[1]["since"]


def test_rolling_back_skips_what_was_rolled_back_before(new_model):
    versions = [registry.register(*new_model(), TAGS, "") for _ in range(3)]
    registry.make_champion(versions[0])
    registry.make_champion(versions[1])
    assert [version.number for version in registry.roll_back()] == [2, 1]
    assert registry.list_versions()[1].rolled_back
    registry.make_champion(versions[2])  # after version 1
    assert [version.number for version in registry.roll_back()] == [3, 1]
    with pytest.raises(InputError, match="no eligible champion before version"):
        registry.roll_back()
    assert registry.find_alias("champion").number == 1


def test_a_champion_that_came_back_has_the_history_of_both_times(new_model):
    versions = [registry.register(*new_model(), TAGS, "") for _ in range(3)]
    for number in (0, 1, 2, 1):  # DVC brought version 2 back
        registry.make_champion(registry.list_versions()[number])
    assert [version.number for version in registry.roll_back()] == [2, 3]
    assert [version.number for version in registry.roll_back()] == [3, 1]
    assert len(versions) == 3


def test_nobody_is_champion_and_challenger(new_model):
    first, second = (registry.register(*new_model(), TAGS, "") for _ in range(2))
    registry.make_champion(first)
    registry.make_champion(second)
    registry.make_challenger(first)
    registry.roll_back()
    assert registry.find_alias("champion").number == 1
    assert registry.find_alias("challenger") is None


def test_a_deleted_predecessor_cannot_be_put_back(new_model):
    versions = [registry.register(*new_model(), TAGS, "") for _ in range(2)]
    for version in versions:
        registry.make_champion(version)
    mlflow.MlflowClient().delete_model_version("mitoscope", "1")
    with pytest.raises(InputError, match="no eligible champion before version 2"):
        registry.roll_back()
    assert registry.find_alias("champion").number == 2


def test_an_empty_registry_has_no_champion(empty_registry, mlflow_store):
    assert registry.list_versions() == []
    assert registry.find_alias("champion") is None
    with pytest.raises(InputError, match="no champion to roll back"):
        registry.roll_back()


class TestAChampionDeletedInTheUI:
    @pytest.fixture
    def versions(self, new_model) -> list[registry.Version]:
        """Three, each of which was the champion; the last one was deleted."""
        versions = [registry.register(*new_model(), TAGS, "") for _ in range(3)]
        for version in versions:
            registry.make_champion(version)
        mlflow.MlflowClient().delete_model_version("mitoscope", "3")
        return versions

    def test_the_latest_that_is_left_is_put_back(self, versions):
        former, now = registry.roll_back()
        assert former is None and now.number == 2
        assert registry.find_alias("champion").number == 2
        assert [version.number for version in registry.roll_back()] == [2, 1]

    def test_one_that_was_rolled_back_or_retired_is_passed_over(self, versions):
        registry.retire(2)
        assert [version and version.number for version in registry.roll_back()] == [None, 1]

    def test_the_missing_champion_is_said_with_the_command_that_helps(self, versions):
        assert registry.find_alias("champion") is None
        assert "no champion; `mitoscope rollback` makes version 2 the champion again" in registry.no_version("champion")
        for number in (1, 2):
            registry.retire(number)
        assert "no champion; `mitoscope promote` chooses one" in registry.no_version("champion")
        with pytest.raises(InputError, match="there is no champion to roll back; `mitoscope promote` chooses one"):
            registry.roll_back()


def test_a_champion_made_in_the_ui_can_be_rolled_back(new_model):
    versions = [registry.register(*new_model(), TAGS, "") for _ in range(3)]
    registry.make_champion(versions[0])
    registry.make_champion(versions[1])
    mlflow.MlflowClient().set_registered_model_alias("mitoscope", "champion", "3")
    assert [version.number for version in registry.champions()] == [1, 2, 3]
    assert [version.number for version in registry.roll_back()] == [3, 2]


def test_the_champions_are_all_that_count(new_model):
    assert registry.champions() == []
    versions = [registry.register(*new_model(), TAGS, "") for _ in range(5)]
    for number in (2, 1, 3, 4, 2):  # version 5 never was
        registry.make_champion(versions[number - 1])
    assert [version.number for version in registry.champions()] == [2, 1, 3, 4]
    mlflow.MlflowClient().delete_model_version("mitoscope", "3")
    registry.roll_back()  # of 2, to 4
    assert [version.number for version in registry.champions()] == [1, 4]
    registry.retire(1)
    assert [version.number for version in registry.champions()] == [4]


class TestRetire:
    @pytest.mark.parametrize("alias", ["champion", "challenger"])
    def test_it_takes_the_alias_and_marks_the_version(self, new_model, alias):
        version = registry.register(*new_model(), TAGS, "")
        (registry.make_champion if alias == "champion" else registry.make_challenger)(version)
        assert registry.retire(1).aliases == (alias,)
        (version,) = registry.list_versions()
        assert version.retired and version.aliases == () and version.described_aliases == "retired"
        assert registry.champions() == []
        assert registry.retire(1).tags["retired"] == version.tags["retired"]  # again

    def test_a_retired_version_gets_no_alias_again(self, new_model):
        versions = [registry.register(*new_model(), TAGS, "") for _ in range(2)]
        for version in versions:
            registry.make_champion(version)
        registry.retire(1)
        (retired, _) = registry.list_versions()
        with pytest.raises(InputError, match="version 1 is retired"):
            registry.make_champion(retired)
        registry.make_challenger(retired)
        with pytest.raises(InputError, match="no eligible champion before version 2"):
            registry.roll_back()
        assert registry.find_alias("champion").number == 2 and registry.find_alias("challenger") is None

    def test_a_version_that_is_not_there_is_said(self, new_model):
        registry.register(*new_model(), TAGS, "")
        with pytest.raises(InputError, match="mitoscope: there is no version 7"):
            registry.retire(7)
