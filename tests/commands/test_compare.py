"""The comparison never shows a figure without the word synthetic, where it started, and whose data it is."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from mitoscope.commands.compare import compare
from mitoscope.errors import InputError
from mitoscope.files import write_json
from tests.conftest import NETWORK, tiny_params, write_params
from tests.results import change, read, write_results

Printed = Callable[[], list[list[str]]]


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Printed:
    """Print the comparison; returns its rows as lists of cells, without frames."""

    def run() -> list[list[str]]:
        compare()
        lines = capsys.readouterr().out.splitlines()
        return [[cell.strip() for cell in re.split("[│┃]", line) if cell.strip()] for line in lines]

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
    assert text(rows[-1:]) == "Thresholds chosen on the validation patients; in brackets 95 % intervals by patient."


def test_nothing_that_was_measured_elsewhere_is_shown(extracted, printed):
    write_results()
    shown = text(printed())
    assert "capstone" not in shown and "another dataset" not in shown and "84.9" not in shown


def test_a_head_of_their_own_for_whole_fields_is_mentioned(extracted, printed):
    write_results()
    assert "by their own" not in text(printed())
    write_results(refit=True)
    assert f"{NETWORK}: patches are scored by the network's head, whole fields by their own" in text(printed())


def test_only_the_evaluated_are_shown(extracted, printed):
    add_network("other")
    outputs = write_results("other", start="imagenet (features only)")
    write_json(outputs.evaluated / "intervals.json", {"patches": {}, "fields": {}})  # a single patient
    cells = [cell for row in printed() for cell in row]
    assert "other" in cells and NETWORK not in cells
    assert not re.search(r"\[\d", "".join(cells))


def test_scores_that_do_not_belong_to_the_detector_are_left_out_and_said_so(extracted, printed):
    add_network("other")
    write_results()
    outputs = write_results("other")
    change(outputs.detected, model_id="another")
    shown = text(printed())
    reason = "results/evaluate/other: holds the scores of another detector than results/detector/other.json"
    assert f"other is left out: {reason}; run `dvc repro evaluate@other` first" in shown
    assert shown.count("75.0") == 4


def test_data_that_are_not_synthetic_are_not_called_so(extracted, printed):
    path = Path("patches/summary.json")
    change(path, dataset=read(path)["dataset"] | {"synthetic": False, "name": "clinic 7"})
    write_results()
    shown = text(printed())
    assert "clinic 7" in shown and "synthetic" not in shown


def test_nothing_evaluated_is_said_so(extracted):
    with pytest.raises(InputError, match="no network has been evaluated; run `dvc repro` first"):
        compare()


def test_nothing_extracted_is_said_so(project):
    with pytest.raises(InputError, match="no patch store"):
        compare()
