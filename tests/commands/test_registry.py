import io

import mlflow
import pytest
from rich.console import Console

from mitoscope.commands import registry as commands
from mitoscope.commands.registry import registry, retire, rollback
from mitoscope.errors import InputError
from mitoscope.files import read_json, write_json
from mitoscope.paths import REGISTRY
from mitoscope.tracking.registry import find_alias, make_champion, register
from mitoscope.tracking.store import connect

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """The lock of the registry lies in the working directory's .work."""
    monkeypatch.chdir(tmp_path)


def add_version(**tags) -> None:
    client = connect()
    run_id = client.create_run(client.get_experiment_by_name("mitoscope").experiment_id).info.run_id
    model = mlflow.initialize_logged_model("detector", source_run_id=run_id)
    make_champion(register(model.model_id, run_id, tags, "a card"))


def test_the_table_shows_aliases_and_evidence(empty_registry, mlflow_store, capsys):
    evidence = {"start_weights": "random", "dataset": "drawn", "synthetic": "true", "test_fields_f1": "0.7251"}
    add_version(architecture="small", **evidence)
    add_version(network="large", test_fields_f1="0.5000")  # `architecture` is of version 0.1
    registry()
    rows = [line for line in capsys.readouterr().out.splitlines() if "small" in line or "large" in line]
    assert "large" in rows[0] and "champion" in rows[0] and "50.0" in rows[0]
    for words in ("small", "random", "drawn (synthetic)", "72.5"):
        assert words in rows[1]
    assert "champion" not in rows[1]


def test_the_table_is_readable_in_80_columns(empty_registry, mlflow_store, monkeypatch):
    scores = dict.fromkeys(
        ("validation_fields_f1", *(f"test_fields_{name}" for name in ("recall", "precision"))), "0.6"
    )
    add_version(network="mobilenet_v3_small", dataset="drawn", synthetic="true", test_fields_f1="0.7", **scores)
    screen = Console(width=80, file=io.StringIO())
    monkeypatch.setattr(commands, "console", screen)
    registry()
    shown = screen.file.getvalue()
    assert "…" not in shown and max(map(len, shown.splitlines())) <= 80
    for words in ("champion", "drawn", "(synthetic)", "60.0", "70.0", "precision", "F1"):
        assert words in shown


def test_a_rollback_says_who_is_the_champion(empty_registry, mlflow_store, capsys):
    add_version(network="small")
    add_version(network="large")
    rollback()
    assert "version 1 is the champion again, version 2 is rolled back" in capsys.readouterr().out
    registry()
    assert "rolled back" in capsys.readouterr().out
    with pytest.raises(InputError, match="no eligible champion before version"):
        rollback()


def test_a_rollback_where_the_champion_was_deleted_says_who_is_it_now(empty_registry, mlflow_store, capsys):
    add_version(network="small")
    add_version(network="large")
    mlflow.MlflowClient().delete_model_version("mitoscope", "2")
    rollback()
    assert capsys.readouterr().out == "mitoscope: version 1 is the champion again\n"


def test_retiring_the_champion_says_how_to_get_another(empty_registry, mlflow_store, capsys):
    add_version(network="small")
    add_version(network="large")
    retire(2)
    said = capsys.readouterr().out
    assert "version 2 is retired" in said and "`mitoscope rollback`" in said
    assert find_alias("champion") is None
    retire(1)
    assert "rollback" not in capsys.readouterr().out
    registry()
    assert capsys.readouterr().out.count("retired") == 2


def test_status_learns_of_it(empty_registry, mlflow_store):
    add_version(network="small")
    add_version(network="large")
    write_json(REGISTRY, {"versions": {"large": 2}, "champion": 2, "challenger": None})
    rollback()
    assert read_json(REGISTRY, "")["champion"] == 1
    retire(1)
    assert read_json(REGISTRY, "") == {"versions": {"large": 2}, "champion": None, "challenger": None}


def test_an_empty_registry_says_how_to_fill_it(empty_registry, mlflow_store, capsys):
    registry()
    assert "nothing is registered yet; run `dvc repro` and then `mitoscope promote`" in capsys.readouterr().out


@pytest.mark.parametrize("command", [registry, rollback, lambda: retire(1)])
def test_in_another_folder_nothing_is_made(no_mlflow_environment, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"mitoscope: there is no MLflow store .*; run this in the project's folder"):
        command()
    assert not list(tmp_path.iterdir())
