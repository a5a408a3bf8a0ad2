"""The benchmarks run at tiny size, and their page is drawn from results.json; what they measure is not tested."""

import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
from benchmarks import __main__ as command
from benchmarks import capstone, report, results
from benchmarks.bench import Bench, run
from benchmarks.networks import Case
from benchmarks.results import Growth, Measured, Row
from benchmarks.rows.page import CHROMIUM
from typer.testing import CliRunner

from mitoscope.errors import InputError

CASE = Case("squeezenet1_1", 64, batch_size=4)
MACHINE = {"processor": "A", "torch": "2"}
TRAINING = Row(
    "AlexNet, 224 px", "patches/s", {"mitoscope": [9.0, 11.0, 10.0], "plain": [5.0, 4.0, 5.0]}, "plain", "A."
)
VIEWS = Growth("Views", "s", "views", {"AlexNet": {1.0: [2.0], 8.0: [12.0]}})
ROWS = {  # and in each what makes it small
    "batch_size": {"case": CASE, "sizes": (2, 4)},
    "detect": {"case": CASE, "slice_": 20},
    "extract": {"fields": (1, 2)},
    "input_path": {"cases": (CASE,)},
    "memory": {"case": CASE, "sizes_gb": (0.001,)},
    "mining": {"case": replace(CASE, mined=True), "pool": 50},
    "page": {"cases": ((replace(CASE, head="pooled"), 1),), "side": 300, "networks": ("network.onnx",)},
    "scoring": {"cases": (CASE,)},
    "service": {"case": CASE, "requests": 20},
    "stain": {"count": 10},
    "store": {"shares": (0.5, 1.0)},
    "training": {"cases": (CASE,), "side": 64},
    "views": {"case": Case("alexnet", 64, head="pooled")},
}


@pytest.fixture(scope="module")
def bench(tmp_path_factory, here):
    """One round with three small fields."""
    scratch = tmp_path_factory.mktemp("bench")
    return Bench(1, here, scratch, lambda *_: None, seconds=0, samples=100, patients=3, field_size=600)


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
def test_a_row_runs(bench, name, programs, monkeypatch):
    if name == "page" and CHROMIUM is None:
        pytest.skip("needs Chromium")
    monkeypatch.setattr(sys, "executable", str(programs / "python"))
    tables = import_module(f"benchmarks.rows.{name}").measure(bench, **ROWS[name])
    assert tables
    for table in tables:
        series = [table.variants] if isinstance(table, Row) else table.series.values()
        assert all(len(values) == 1 for measured in series for values in measured.values())
        if isinstance(table, Row):
            assert table.baseline in table.variants


def test_every_row_is_tested():
    assert set(command.NAMES) == {*ROWS, "commands"}


def test_the_commands_need_a_project(bench, capsys):
    from benchmarks.rows import commands

    assert commands.measure(bench) == []
    assert "--project" in capsys.readouterr().out


def test_a_folder_without_a_pipeline_is_rejected_and_stays_empty(bench, tmp_path):
    from benchmarks.rows import commands

    with pytest.raises(InputError, match="give a project whose pipeline has run"):
        commands.measure(replace(bench, project=tmp_path))
    assert not list(tmp_path.iterdir())


def test_results_that_cannot_be_written_end_before_anything_is_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(command, "measure", lambda *_: pytest.fail("measured"))
    (tmp_path / "file").touch()
    done = CliRunner().invoke(command.app, ["mining", "--out", str(tmp_path / "file/results")])
    assert done.exit_code == 2
    assert "error: " in done.output and "file/results" in done.output.replace("\n", "")


def test_variants_take_turns(bench):
    order = []

    def work(name):
        return lambda: order.append(name) or 1.0

    found = replace(bench, rounds=2).in_turn("letters", {name: work(name) for name in "abc"})
    assert "".join(order) == "abcabc"
    assert found == {"a": [1, 1], "b": [1, 1], "c": [1, 1]}


def test_an_epoch_lasts_as_long_as_asked_however_slow_the_first_batches_are(monkeypatch):
    epochs = []

    def train_rate(case, samples, device):
        epochs.append(case.batches)
        return case.samples / (case.samples / 1000 + (2 if len(epochs) == 1 else 0.01))  # 1,000 patches per second

    monkeypatch.setattr(Case, "train_rate", train_rate)
    lasting = replace(CASE, batch_size=10).lasting(3, None, None)
    assert lasting.batches == pytest.approx(300, rel=0.05)
    assert epochs[:2] == [2, 2] and len(epochs) < 6


@pytest.mark.slow
def test_devices_are_compared_on_the_same_windows(bench, here):
    from benchmarks.rows import scoring

    model, windows = CASE.model, bench.data.samples.windows
    scores, reference = scoring.on_both(model, windows, here)
    assert scores.shape == reference.shape == (len(windows),)
    assert (scores == reference).all() and scores.std() > 0
    assert scoring.compare(scores, scores).startswith("The largest difference of a probability is 0.")
    assert "is 0.5." in scoring.compare(scores, scores + 0.5)


def test_a_program_that_fails_is_named(tmp_path):
    with pytest.raises(InputError, match=r"`python3 -c raise SystemExit\('no'\)` failed \(no\)"):
        run(["python3", "-c", "raise SystemExit('no')"], tmp_path)


@pytest.mark.slow
def test_the_capstone_writes_a_png_per_rotation(bench, tmp_path):
    field = bench.data.fields[0]
    assert capstone.cut(field.image, [(200, 300), (300, 200)], [1, 0], tmp_path, "01_01") == 5
    names = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.png"))
    assert names == [
        "0/01_01_class0_center1_rot0.png",
        "0/01_01_class0_center1_rot45.png",
        "1/01_01_class1_center0_rot0.png",
        "1/01_01_class1_center0_rot45.png",
        "1/01_01_class1_center0_rot90.png",
    ]


def test_the_page_is_drawn_from_the_results(tmp_path):
    results.write(
        tmp_path / "results.json",
        {"views": Measured("Views", MACHINE, [VIEWS]), "training": Measured("Training", MACHINE, [TRAINING])},
    )
    done = CliRunner().invoke(command.app, ["--draw", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    page = (tmp_path / "results.md").read_text()
    assert "| processor | A |" in page
    assert "| mitoscope | 10 | 9 to 11 | 2 |" in page
    assert "| **plain** | 5 | 4 to 5 | 1 |" in page
    assert "| 8 | 12 (6) |" in page
    assert page.index("## Training") < page.index("## Views")
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {"training.png", "views.png"}
    assert "![Views](pictures/views.png)" in page


def test_only_the_rows_that_ran_are_rewritten(bench, tmp_path):
    results.write(tmp_path / "results.json", {"training": Measured("Training", MACHINE, [TRAINING])})
    command.measure("stain", bench, tmp_path)
    found = results.read(tmp_path / "results.json")
    assert found["training"] == Measured("Training", MACHINE, [TRAINING])
    assert found["stain"].title == "Stain normalisation and cutting against TIAToolbox"
    assert found["stain"].machine["torch"]


def test_results_of_two_machines_say_so(tmp_path):
    page = tmp_path / "results.md"
    other = MACHINE | {"processor": "B"}
    report.write_page(page, {"a": Measured("A", MACHINE, [TRAINING]), "b": Measured("B", other, [VIEWS])})
    text = page.read_text()
    assert "| processor | A | B |" in text
    assert "On machine 2." in text


def test_damaged_results_are_named(tmp_path):
    path = tmp_path / "results.json"
    path.write_text('{"training": {}}')
    with pytest.raises(InputError, match=r"results\.json: .*; remove it and measure again"):
        results.read(path)


def test_an_unknown_row_is_rejected():
    done = CliRunner().invoke(command.app, ["speed"])
    assert done.exit_code == 2
    assert "there is no row speed" in done.output


def test_the_committed_page_shows_the_committed_results(tmp_path):
    here = Path(command.__file__).parent
    report.write_page(tmp_path / "results.md", results.read(here / "results.json"))
    assert (tmp_path / "results.md").read_text() == (here / "results.md").read_text()


@pytest.mark.parametrize(
    ("value", "text"), [(1234.5, "1,234"), (12.345, "12.3"), (0.0123, "0.0123"), (0.00001234, "0.000012")]
)
def test_numbers_have_three_digits(value, text):
    assert report.number(value) == text
