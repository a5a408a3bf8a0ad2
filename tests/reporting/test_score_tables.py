"""`compare` and `report` show the same tables."""

import pytest

from mitoscope.reporting.results import read_results
from mitoscope.reporting.score_tables import score_tables
from tests.results import add_domains, write_results


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_every_table_names_the_data_the_networks_and_their_start_weights():
    evaluated = [read_results(write_results("small")), read_results(write_results("large", start="imagenet"))]
    fields, patches = score_tables([results.scores for results in evaluated], "synthetic")
    assert "synthetic data" in fields.title and "synthetic data" in patches.title
    assert fields.columns == ["network", "start weights", "mitoses", "precision %", "recall %", "F1 %", "AP %"]
    assert fields.rows == [
        ["small", "random", "4 in 2 fields", "50.0", "25.0", "33.3\n[11, 55]", "12.5"],
        ["large", "imagenet", "4 in 2 fields", "50.0", "25.0", "33.3\n[11, 55]", "12.5"],
    ]
    assert patches.columns[2:5] == ["mitoses : negatives", "accuracy %", "precision %"]
    assert patches.rows[0][:5] == ["small", "random", "4 : 4", "75.0", "75.0"]


def test_domains_have_a_table_of_their_own():
    outputs = write_results("small")
    scores = {"patients": 1, "mitoses": 2, "fields": 3, "precision": 0.5, "recall": 1.0, "f1": 2 / 3, "ap": 0.9}
    domains = {"Aperio [red]": scores, "Leica": scores | {"precision": 0.25}}
    add_domains(outputs, domains, {name: {} for name in domains})
    _, table, _ = score_tables([read_results(outputs).scores], "clinic 7")
    assert table.title.startswith("Whole fields of the test patients, clinic 7 data, by domain")
    assert table.columns[:4] == ["network", "domain", "mitoses", "precision %"]
    assert [row[:4] for row in table.rows] == [
        ["small", "Aperio [red]", "2 in 3 fields of 1 patient", "50.0"],
        ["small", "Leica", "2 in 3 fields of 1 patient", "25.0"],
    ]
