"""The comparison shows every score with its data and start weights, and says which network is better."""

import io
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from mitoscope.commands import compare as command
from mitoscope.commands.compare import compare
from mitoscope.errors import InputError
from mitoscope.files import write_json
from mitoscope.params import Evaluate
from tests.conftest import NETWORK, tiny_params, write_params
from tests.evaluation.test_intervals import objects
from tests.results import add_domains, change, read, write_results

Printed = Callable[[], list[str]]


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Printed:
    """Print the comparison; returns its lines."""

    def run() -> list[str]:
        compare()
        return capsys.readouterr().out.splitlines()

    return run


def add_network(name: str) -> None:
    params = tiny_params()
    params["train"][name] = params["train"][NETWORK] | {"model": {"backbone": NETWORK}}
    write_params(params)


def test_both_levels_are_shown_with_their_intervals(extracted, printed):
    write_results()
    lines = printed()
    whole, patches = (line.strip() for line in lines if "synthetic data" in line)
    assert whole == "Whole fields of the test patients, synthetic data: mitoses found within 7.5 um"
    assert patches == "Test patches, synthetic data (none at the edge of a field)"
    first, second = (number for number, line in enumerate(lines) if line.startswith(NETWORK))
    assert lines[first].split() == [NETWORK, "4", "in", "2", "fields", "50.0", "25.0", "33.3", "12.5"]
    assert lines[first + 1].split() == ["random", "[11,", "55]"]
    assert lines[second].split() == [NETWORK, "4", ":", "4", "75.0", "75.0", "75.0", "75.0", "80.0"]
    assert lines[second + 1].split() == ["random", "[50,", "100]"]
    assert lines[-1] == "Thresholds are chosen without the test patients; brackets: 95 % intervals by patient."


def test_in_80_columns_every_number_is_whole(extracted, monkeypatch):
    outputs = write_results(start="imagenet (features only)")
    intervals = {score: [0.1, 1.0] for score in ("accuracy", "precision", "recall", "f1", "ap")}
    write_json(outputs.evaluated / "intervals.json", {"patches": intervals, "fields": intervals})
    scores = read(outputs.evaluated / "metrics.json")["fields"]
    add_domains(outputs, {"Aperio": scores, "Leica": scores}, {"Aperio": intervals, "Leica": intervals})
    screen = Console(width=80, file=io.StringIO())
    monkeypatch.setattr(command, "console", screen)
    compare()
    shown = screen.file.getvalue()
    assert "…" not in shown and max(map(len, shown.splitlines())) <= 80
    assert shown.count("[10, 100]") == 4 + 2 * 4 + 5


def test_a_field_head_is_mentioned(extracted, printed):
    write_results()
    assert "field head" not in " ".join(printed())
    write_results(refit=True)
    assert f"{NETWORK}: the network's own head scores patches, a field head scores whole fields" in " ".join(printed())


def test_only_the_evaluated_are_shown(extracted, printed):
    add_network("other")
    outputs = write_results("other", start="imagenet (features only)")
    write_json(outputs.evaluated / "intervals.json", {"patches": {}, "fields": {}})  # a single patient
    shown = " ".join(printed())
    assert "other" in shown and NETWORK not in shown and not re.search(r"\[\d", shown)


def test_scores_of_another_detector_are_left_out_with_the_reason(extracted, printed):
    add_network("other")
    write_results()
    outputs = write_results("other")
    change(outputs.detected, model_id="another")
    shown = " ".join(printed())
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
    lines = printed()
    shown = " ".join(lines[lines.index(next(line for line in lines if line.startswith("Thresholds are chosen"))) :])
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
    shown = " ".join(printed())
    assert "clinic 7" in shown and "synthetic" not in shown


def test_without_an_evaluated_network_the_error_says_so(extracted):
    with pytest.raises(InputError, match="no network has been evaluated; run `dvc repro` first"):
        compare()


def test_without_patches_the_error_says_so(project):
    with pytest.raises(InputError, match="no patch store"):
        compare()
