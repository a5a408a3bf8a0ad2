"""The comparison shows every score with its data and start weights, and says which network is better."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from mitoscope.commands.compare import compare
from mitoscope.errors import InputError
from mitoscope.files import write_json
from mitoscope.params import Evaluate
from tests.conftest import NETWORK, tiny_params, write_params
from tests.evaluation.test_intervals import objects
from tests.results import add_domains, change, read, write_results
from tests.tables import read_rows

Printed = Callable[[], list[list[str]]]


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Printed:
    """Print the comparison; returns its rows as lists of cells, without frames."""

    def run() -> list[list[str]]:
        compare()
        return read_rows(capsys.readouterr().out)

    return run


def text(rows: list[list[str]]) -> str:
    return " ".join(" ".join(row) for row in rows)


def add_network(name: str) -> None:
    params = tiny_params()
    params["train"][name] = params["train"][NETWORK] | {"model": {"backbone": NETWORK}}
    write_params(params)


def test_both_levels_are_shown_with_their_intervals(extracted, printed):
    write_results()
    rows = printed()
    assert "synthetic" in rows[0][0]
    patches, fields = (row for row in rows if row[0].startswith(NETWORK[:6]))
    assert "random" in patches and "4 : 4" in patches and patches[-5:] == ["75.0", "75.0", "75.0", "75.0", "80.0"]
    assert "random" in fields and "4 in 2 fields" in fields and fields[-4:] == ["50.0", "25.0", "33.3", "12.5"]
    assert text(rows).count("synthetic data") == 2 and "[50, 100]" in text(rows) and "[11, 55]" in text(rows)
    assert text(rows[-1:]) == "Thresholds are chosen on the validation patients; brackets: 95 % intervals by patient."


def test_nothing_that_was_measured_elsewhere_is_shown(extracted, printed):
    write_results()
    shown = text(printed())
    assert "capstone" not in shown and "another dataset" not in shown and "84.9" not in shown


def test_domains_have_a_table_of_their_own(extracted, printed):
    outputs = write_results()
    scores = {"patients": 1, "mitoses": 2, "fields": 3, "precision": 0.5, "recall": 1.0, "f1": 2 / 3, "ap": 0.9}
    domains = {"Aperio [red]": scores, "Leica": scores | {"precision": 0.25}}
    add_domains(outputs, domains, {name: {} for name in domains})
    rows = [row for row in printed() if len(row) == 7]
    assert [(row[1], row[3]) for row in rows[1:]] == [("Aperio [red]", "50.0"), ("Leica", "25.0")]


def test_a_field_head_is_mentioned(extracted, printed):
    write_results()
    assert "field head" not in text(printed())
    write_results(refit=True)
    assert f"{NETWORK}: the network's own head scores patches, a field head scores whole fields" in text(printed())


def test_only_the_evaluated_are_shown(extracted, printed):
    add_network("other")
    outputs = write_results("other", start="imagenet (features only)")
    write_json(outputs.evaluated / "intervals.json", {"patches": {}, "fields": {}})  # a single patient
    cells = [cell for row in printed() for cell in row]
    assert "other" in cells and NETWORK not in cells
    assert not re.search(r"\[\d", "".join(cells))


def test_scores_of_another_detector_are_left_out_with_the_reason(extracted, printed):
    add_network("other")
    write_results()
    outputs = write_results("other")
    change(outputs.detected, model_id="another")
    shown = text(printed())
    reason = "results/evaluate/other: contains scores of another detector than results/detector/other.json"
    assert f"other is not shown: {reason}; run `dvc repro evaluate@other` first" in shown
    assert shown.count("75.0") == 4


def test_it_ends_with_the_better_network(extracted, printed):
    add_network("other")
    for network, found in ((NETWORK, 1), ("other", 2)):
        outputs = write_results(network)
        objects(p01=(found, 2 - found, 0), p02=(2, 0, 3 - found)).to_csv(outputs.evaluated / "objects.csv", index=False)
        path = outputs.evaluated / "metrics.json"
        change(path, fields=read(path)["fields"] | {"f1": {1: 6 / 9, 2: 8 / 9}[found]})
    rows = printed()
    start = next(number for number, row in enumerate(rows) if row and row[0].startswith("Thresholds are chosen"))
    shown = text(rows[start:])
    assert f"On synthetic data, other is better than {NETWORK} by 22.2 points of F1 in the test" in shown
    assert shown.endswith("2 patients are too few to rule out chance.")


def test_the_bootstrap_is_that_of_params_yaml(extracted, printed, monkeypatch):
    asked: list[Evaluate] = []
    monkeypatch.setattr("mitoscope.commands.compare.judge", lambda _, settings, **__: asked.append(settings))
    params = tiny_params()
    params["evaluate"] = {"bootstrap": 123, "seed": 7}
    write_params(params)
    write_results()
    printed()
    assert asked == [Evaluate(bootstrap=123, seed=7)]


def test_real_data_are_not_called_synthetic(extracted, printed):
    path = Path("patches/summary.json")
    change(path, dataset=read(path)["dataset"] | {"synthetic": False, "name": "clinic 7"})
    write_results()
    shown = text(printed())
    assert "clinic 7" in shown and "synthetic" not in shown


def test_without_an_evaluated_network_the_error_says_so(extracted):
    with pytest.raises(InputError, match="no network has been evaluated; run `dvc repro` first"):
        compare()


def test_without_patches_the_error_says_so(project):
    with pytest.raises(InputError, match="no patch store"):
        compare()
