"""The card fits MLflow's column and states the limits of the detector."""

import pytest

from mitoscope.files import write_json
from mitoscope.params import Detection, FieldHeadSettings
from mitoscope.reporting.model_card import Evidence
from mitoscope.reporting.results import read_results
from tests.results import change, write_results

DATASET = {"name": "drawn", "synthetic": True, "microns_per_pixel": 0.25, "source": "drawn here", "licence": None}


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def evidence(**dataset: object) -> Evidence:
    return Evidence(read_results(write_results("small")), DATASET | dataset, "e" * 32, "abc + changes")


def test_the_card_says_what_was_measured_and_where_the_limits_are():
    card = evidence().card()
    for words in (
        "# small for mitotic figures",
        "Research only",
        "Synthetic data",
        "| fields | F1 | 0.333 | 0.110 to 0.550 |",
        "trained on 03",
        "tested on 01, 02",
        "SHA-256 ffffffffffff",
        "patches 0.5000, fields 0.4000",
        "licence:\n  not given",
        "git\n  abc + changes",
        "**Limits**",
    ):
        assert words in card
    assert "Synthetic" not in evidence(synthetic=False).card()


def test_the_card_says_who_decided_what():
    assert "trained on 03; epoch and thresholds from\n  04; tested on" in evidence().card()
    outputs = write_results("small")
    change(outputs.detected, settings=Detection(field_head=FieldHeadSettings(inner_folds=5)).model_dump(mode="json"))
    card = Evidence(read_results(outputs), DATASET, "e" * 32, "").card()
    assert "epoch and patch threshold from\n  04; field head and field threshold from all of these" in card


def test_the_card_fits_whatever_the_dataset_says_of_itself():
    outputs = write_results("small")
    many = [f"{number:04}" for number in range(2000)]
    change(outputs.trained, patients={"train": many, "validation": ["v"]})
    found = Evidence(read_results(outputs), DATASET | {"name": "n" * 9000, "source": "word " * 9000}, "e" * 32, "")
    assert len(found.card()) < 5000 and "2000 patients" in found.card() and "git\n  unknown" in found.card()
    assert all(len(value) <= 100_000 for value in found.tags().values())


def test_without_intervals_the_card_says_why():
    outputs = write_results("small")
    write_json(outputs.evaluated / "intervals.json", {"patches": {}, "fields": {"domains": {}}})
    assert "| no interval: only one patient |" in Evidence(read_results(outputs), DATASET, "e" * 32, "").card()


def test_the_tags_hold_the_evidence():
    tags = evidence().tags()
    assert {name: tags[name] for name in ("network", "dataset", "synthetic", "test_fields_f1", "test_patients")} == {
        "network": "small",
        "dataset": "drawn",
        "synthetic": "true",
        "test_fields_f1": "0.333333",
        "test_patients": "01 02",
    }
