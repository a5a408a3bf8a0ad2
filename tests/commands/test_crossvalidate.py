"""The front door: what it checks and says before DVC runs, and how it ends when DVC fails or is interrupted.

DVC is real here, and its stage a short program. Whole cross-validations are in tests/pipeline.
"""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
import yaml

from mitoscope.commands.crossvalidate import FOLDS, PIPELINE, crossvalidate, plan, run_dvc, write_folds
from mitoscope.errors import InputError
from mitoscope.files import exclusive
from mitoscope.params import Split, read_params
from tests.conftest import NETWORK, tiny_params, write_params
from tests.tables import read_rows

pytestmark = pytest.mark.slow

COUNTS = {"mitoses": 2, "detections": 1, "tp": 1, "fp": 0, "fn": 1, "precision": 1.0, "recall": 0.5, "f1": 2 / 3}
REPORT = {
    "network": NETWORK,
    "dataset": {"name": "drawn", "synthetic": True},
    "start_weights": {"source": "random"},
    "folds": [{}, {}, {}, {}],
    "pooled": {"patches": COUNTS | {"patients": 2, "intervals": {"f1": (0.5, 1.0)}}},
}
# A network of no mitosis has no recall; a patient may be called NA.
PATIENTS = [
    {"level": "patches", "patient": "01", **COUNTS, "best_f1_not_attainable": 0.8},
    {"level": "patches", "patient": "NA", **COUNTS, "mitoses": 0, "recall": None, "best_f1_not_attainable": None},
]
SLEEPS = "import pathlib, time; pathlib.Path('started').touch(); time.sleep(60)"


@pytest.fixture
def dvc(project: Path) -> Any:
    """The small project under DVC, whose stage `pool` is a Python program. Returns what sets that program."""

    def set_program(program: str) -> None:
        outs = [f"results/crossvalidate/{NETWORK}.{suffix}" for suffix in ("json", "csv")]
        stage = {"wdir": "..", "cmd": f"{sys.executable} pool.py", "deps": [str(FOLDS), "pool.py"], "outs": outs}
        PIPELINE.parent.mkdir(exist_ok=True)
        PIPELINE.write_text(yaml.safe_dump({"stages": {"pool": {"foreach": [NETWORK], "do": stage}}}))
        Path("pool.py").write_text(program)

    Path(".dvc").mkdir()
    Path(".dvc/config").write_text("[core]\n    analytics = false\n    no_scm = true\n")
    return set_program


def writes_results() -> str:
    """A program that leaves what stage `pool` would."""
    csv = pd.DataFrame(PATIENTS).to_csv(index=False)
    return f"""
from pathlib import Path
Path("results/crossvalidate").mkdir(parents=True, exist_ok=True)
Path("results/crossvalidate/{NETWORK}.json").write_text({json.dumps(REPORT)!r})
Path("results/crossvalidate/{NETWORK}.csv").write_text({csv!r})
"""


def test_it_says_what_each_fold_tests_and_prints_what_was_pooled(dvc, capfd):
    dvc(writes_results())
    crossvalidate(NETWORK)
    said = capfd.readouterr().out
    assert f"{NETWORK}: 4 folds; 0 of them have results" in said
    assert "fold 0: tests 01; validates on 02" in said and "fold 3: tests 04" in said
    assert f"Running stage 'crossvalidation/dvc.yaml:pool@{NETWORK}'" in said
    assert f"{NETWORK}, random start weights, synthetic data: test patches of 4 folds" in said
    rows = {row[0]: row for row in read_rows(said)}
    assert rows["01"] == ["01", "2", "1", "1", "0", "1", "100.0", "50.0", "66.7", "80.0"]
    assert rows["NA"][-3:] == ["-", "66.7", "-"]
    assert "[50, 100]" in said and "a diagnosis, not a result" in said

    written = FOLDS.stat().st_mtime_ns
    Path(f"crossvalidation/{NETWORK}/fold-2/results/evaluate/{NETWORK}").mkdir(parents=True)
    Path(f"crossvalidation/{NETWORK}/fold-2/results/evaluate/{NETWORK}/metrics.json").touch()
    crossvalidate(NETWORK)
    said = capfd.readouterr().out
    assert "1 of them have results" in said and "Running stage" not in said and "test patches of 4 folds" in said
    assert FOLDS.stat().st_mtime_ns == written


def test_the_list_of_folds_follows_params_yaml(project):
    write_folds(4)
    assert FOLDS.read_text() == (Path(__file__).parents[2] / FOLDS).read_text()  # the repository has 4 folds too
    write_folds(3)
    assert yaml.safe_load(FOLDS.read_text()) == {"folds": [0, 1, 2]}


def test_every_patient_is_tested_in_one_fold(project):
    splits = plan(read_params().split)
    tested = [patient for split in splits for patient in split.patient[split.subset == "test"]]
    assert sorted(tested) == ["01", "02", "03", "04"]


def test_a_fold_that_cannot_work_is_found_before_the_first_one_runs(dvc):
    dvc("raise SystemExit('it ran')")
    for annotations in Path("data").glob("03_*.csv"):
        annotations.write_text("")
    with pytest.raises(InputError, match=r"with split\.fold . the .* patients \(03\) have no mitosis"):
        crossvalidate(NETWORK)
    assert not FOLDS.exists()


def test_an_unknown_network_is_said_so(project):
    with pytest.raises(InputError, match=r"params\.yaml: train has no entry 'resnet'"):
        crossvalidate("resnet")


def test_a_second_cross_validation_is_kept_out(project):
    with (
        exclusive(Path(f".work/crossvalidate-{NETWORK}.lock"), "busy"),
        pytest.raises(
            InputError, match=rf"another cross-validation of {NETWORK} is still running as process \d+; .*`kill"
        ),
    ):
        crossvalidate(NETWORK)


def test_a_failing_stage_shows_its_message_and_how_to_go_on(dvc, capfd):
    dvc("raise SystemExit('the disk is full')")
    with pytest.raises(
        InputError, match=rf"{NETWORK} failed, DVC says why above; run `mitoscope crossvalidate {NETWORK}` again"
    ):
        crossvalidate(NETWORK)
    said = "".join(capfd.readouterr())
    assert "the disk is full" in said and "exited with 1" in said


def test_where_dvc_itself_fails_nothing_is_said_of_the_data(dvc, monkeypatch, capfd):
    dvc(writes_results())
    Path("a_file").touch()
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(Path("a_file/folder").resolve()))
    with pytest.raises(InputError) as caught:
        crossvalidate(NETWORK)
    assert "data.dvc" not in str(caught.value)
    assert "a_file" in capfd.readouterr().err


def test_an_interrupted_one_has_stopped_dvc_and_its_stage(dvc):
    dvc(SLEEPS)
    # SIGTERM to this process only, as `kill` sends it: no terminal tells DVC of it.
    with subprocess.Popen(
        [sys.executable, "-m", "mitoscope", "crossvalidate", NETWORK], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as command:
        deadline = time.monotonic() + 60
        while not Path("started").exists() and command.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        children = psutil.Process(command.pid).children(recursive=True)
        assert len(children) >= 2
        command.send_signal(signal.SIGTERM)
        said = command.communicate(timeout=30)[0].decode()
    assert command.returncode == 130
    last = f"{NETWORK}: the cross-validation was interrupted; run `mitoscope crossvalidate {NETWORK}` again to continue"
    assert said.splitlines()[-1] == f"{last} where it was"
    assert "No such process" not in said
    assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)


def test_an_interrupt_while_dvc_ends_is_no_error(dvc, monkeypatch):
    """DVC has just ended when the interrupt comes, and there is no process any more."""
    poll = subprocess.Popen.poll

    def poll_and_interrupt(process: subprocess.Popen[bytes]) -> int | None:
        code = poll(process)
        if code is not None:
            signal.raise_signal(signal.SIGINT)
        return code

    monkeypatch.setattr(subprocess.Popen, "poll", poll_and_interrupt)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run_dvc("--version")
    assert signal.getsignal(signal.SIGINT) == before


def test_more_folds_than_patients_are_said_so(project):
    write_params(tiny_params() | {"split": {"folds": 5}})
    with pytest.raises(InputError, match=r"split\.folds is 5, but there are only 4 patients"):
        plan(Split(folds=5))
