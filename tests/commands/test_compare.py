"""The comparison never shows a figure without the word synthetic, where it started, and whose data it is."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from mitoscope.commands.compare import compare
from mitoscope.errors import InputError
from mitoscope.files import write_json
from mitoscope.params import Evaluate
from mitoscope.stages.evaluate import score_test
from tests.conftest import NETWORK, tiny_params, write_params

# 8 patches of two patients. At 0.5: 3 of 4 mitoses are found, and 1 of 4 others is taken for one.
PREDICTIONS = pd.DataFrame(
    {
        "patient": ["01"] * 4 + ["02"] * 4,
        "label": [1, 1, 0, 0, 1, 1, 0, 0],
        "probability": [0.9, 0.8, 0.1, 0.2, 0.7, 0.3, 0.6, 0.1],
    }
)


def pretend_evaluated(arch: str, start: str, *, one_patient: bool = False, refit: bool = False) -> None:
    predictions = PREDICTIONS.assign(patient="01") if one_patient else PREDICTIONS
    metrics, intervals = score_test(predictions, 0.5, Evaluate(bootstrap=100, seed=0))
    fields = {"mitoses": 4, "fields": 2, "precision": 0.5, "recall": 0.25, "f1": 1 / 3, "ap": 0.125}
    bounds = {} if one_patient else {"f1": [0.11, 0.55]}
    write_json(Path("results/evaluate", arch, "metrics.json"), {"patches": metrics, "fields": fields})
    write_json(Path("results/evaluate", arch, "intervals.json"), {"patches": intervals, "fields": bounds})
    write_json(Path("results/train", f"{arch}.json"), {"start_weights": start, "refit_fields": refit})


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]):
    """Print the comparison; returns its rows as lists of cells, without frames."""

    def run() -> list[list[str]]:
        compare()
        lines = capsys.readouterr().out.splitlines()
        return [[cell.strip() for cell in re.split("[│┃]", line) if cell.strip()] for line in lines]

    return run


def test_networks_and_the_capstone(extracted, printed):
    pretend_evaluated(NETWORK, "random")
    rows = printed()
    text = " ".join(" ".join(row) for row in rows)
    assert "synthetic" in rows[0][0]
    row, fields = (row for row in rows if row[0].startswith(NETWORK[:6]))
    assert "random" in row and "4 : 4" in row and row[-5:-1] == ["75.0", "75.0", "75.0", "75.0"]
    assert "random" in fields and "4 in 2 fields" in fields and fields[-4:] == ["50.0", "25.0", "33.3", "12.5"]
    assert text.count("synthetic data") == 2 and "[11, 55]" in text
    assert re.search(r"\[\d+, \d+\]", text)  # intervals
    capstone = text[text.index("capstone") - 30 :]
    assert capstone.count("another") >= 2 and capstone.count("ImageNet") >= 2
    assert "84.9" in capstone and "77.3" in capstone and "75.9" in capstone
    assert "no yardstick" in text


def test_a_head_of_their_own_for_whole_fields_is_mentioned(extracted, printed):
    def text() -> str:
        return " ".join(" ".join(row) for row in printed())

    pretend_evaluated(NETWORK, "random")
    assert "by their own" not in text()
    pretend_evaluated(NETWORK, "random", refit=True)
    assert f"{NETWORK}: patches are scored by the network's head, whole fields by their own" in text()


def test_only_the_evaluated_are_shown(extracted, printed):
    params = tiny_params()
    params["train"]["alexnet"] = params["train"][NETWORK]
    params["weights"]["alexnet"] = "random"
    write_params(params)
    pretend_evaluated("alexnet", "imagenet (features only)", one_patient=True)
    rows = printed()
    cells = [cell for row in rows for cell in row]
    assert "alexnet" in cells and NETWORK not in cells
    assert not re.search(r"\[\d", "".join(cells))  # one patient: no interval


def test_data_that_are_not_synthetic_are_not_called_so(extracted, printed):
    summary = json.loads(Path("patches/summary.json").read_text())
    summary["dataset"] |= {"synthetic": False, "name": "clinic 7"}
    write_json(Path("patches/summary.json"), summary)
    pretend_evaluated(NETWORK, "random")
    text = " ".join(" ".join(row) for row in printed())
    assert "clinic 7" in text and "synthetic" not in text


def test_nothing_evaluated_is_said_so(extracted):
    with pytest.raises(InputError, match="no network has been evaluated; run `dvc repro` first"):
        compare()


def test_nothing_extracted_is_said_so(project):
    with pytest.raises(InputError, match="no patch store"):
        compare()
