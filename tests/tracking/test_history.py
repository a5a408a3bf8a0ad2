"""Trainings are found again, whatever was deleted around them."""

from pathlib import Path

import mlflow
import pytest

from mitoscope.errors import InputError
from mitoscope.tracking import history
from mitoscope.tracking.runs import log_dataset, log_training, training_run
from mitoscope.tracking.store import EXPERIMENT, open_store

DIGEST = "0123456789abcdef0123456789abcdef.dir"


def train(network: str, digest: str = DIGEST, *, to_the_end: bool = True) -> str:
    Path("last.pt").touch()
    with training_run(network, Path(f"{network}_run"), {"lr": 0.1}, {"network": network}) as run_id:
        log_dataset("drawn", digest, Path("data"))
        if to_the_end:
            log_training(metrics={"validation/best_f1": 0.5}, last_checkpoint=Path("last.pt"), pictures=[])
    return run_id


def delete_experiment() -> None:
    client = open_store()
    client.delete_experiment(client.get_experiment_by_name(EXPERIMENT).experiment_id)


def test_the_trainings_on_a_dataset_are_found_the_newest_first(own_store):
    assert history.finished_trainings(DIGEST) == []  # the store has no experiment yet
    first, second = train("small"), train("large")
    train("other", "f" * 32)
    train("cancelled", to_the_end=False)
    found = history.finished_trainings(DIGEST)
    assert [training.run_id for training in found] == [second, first]
    assert found[1] == history.training(first)
    assert (found[1].name, found[1].digest, found[1].params) == ("small", DIGEST, {"lr": "0.1"})
    assert found[1].tags["network"] == "small" and found[1].metrics == {"best_validation/best_f1": 0.5}

    delete_experiment()
    assert [training.run_id for training in history.finished_trainings(DIGEST)] == [second, first]
    assert history.training(first).name == "small"
    with pytest.raises(InputError, match="restore it with `"):
        history.log_text([first], "text", "report.html")


def test_a_training_whose_run_was_deleted_is_said(own_store):
    run_id = train("small")
    mlflow.MlflowClient().delete_run(run_id)
    with pytest.raises(InputError, match=f"there is no run {run_id}, in which the network was trained"):
        history.training(run_id)
    assert history.finished_trainings(DIGEST) == []


def test_files_of_a_run_are_written_and_fetched(own_store, tmp_path):
    run_id = train("small")
    history.log_text([run_id], "a page", "pages/report.html")
    fetched = history.fetch(run_id, "pages/report.html", tmp_path)
    assert fetched is not None and fetched.read_text() == "a page"
    assert history.fetch(run_id, "pages/other.html", tmp_path) is None
