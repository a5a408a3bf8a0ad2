import mlflow
import pytest

from mitoscope.commands.registry import registry, rollback
from mitoscope.errors import InputError
from mitoscope.tracking.registry import crown, register
from mitoscope.tracking.store import connect


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """The lock of the registry lies in the working directory's .work."""
    monkeypatch.chdir(tmp_path)


def add_version(**tags) -> None:
    client = connect()
    run_id = client.create_run(client.get_experiment_by_name("mitoscope").experiment_id).info.run_id
    model = mlflow.initialize_logged_model("best", source_run_id=run_id)
    crown(register(model.model_id, run_id, tags, "a card"))


def test_the_table_shows_aliases_and_evidence(empty_registry, mlflow_store, capsys):
    evidence = {"start_weights": "random", "dataset": "drawn", "synthetic": "true", "test_fields_f1": "0.7251"}
    add_version(architecture="alexnet", **evidence)
    add_version(architecture="densenet161", test_fields_f1="0.5000")
    registry()
    rows = [line for line in capsys.readouterr().out.splitlines() if "net" in line]
    assert "densenet161" in rows[0] and "champion" in rows[0] and "50.0" in rows[0]
    for words in ("alexnet", "random", "drawn (synthetic)", "72.5"):
        assert words in rows[1]
    assert "champion" not in rows[1]


def test_a_rollback_says_who_is_the_champion(empty_registry, mlflow_store, capsys):
    add_version(architecture="alexnet")
    add_version(architecture="densenet161")
    rollback()
    assert "version 1 is the champion again, version 2 is rolled back" in capsys.readouterr().out
    registry()
    assert "rolled back" in capsys.readouterr().out
    with pytest.raises(InputError, match="no champion before it"):
        rollback()


def test_an_empty_registry_says_how_to_fill_it(empty_registry, mlflow_store, capsys):
    registry()
    assert "nothing is registered yet; `mitoscope promote`" in capsys.readouterr().out


@pytest.mark.parametrize("command", [registry, rollback])
def test_in_another_folder_nothing_is_made(no_mlflow_environment, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"mitoscope: there is no MLflow store .*; run this in the project's folder"):
        command()
    assert not list(tmp_path.iterdir())
