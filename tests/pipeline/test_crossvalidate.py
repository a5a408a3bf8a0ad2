"""A cross-validation through DVC that is interrupted in its second fold and started again.

The networks are stood in for: training and testing one in every fold would take minutes, and other modules do that.
Dataset, split, patches, DVC, git and the command are real.
"""

import hashlib
import json
import signal
import time

import pandas as pd
import pytest
import yaml

from .conftest import Params, Project

pytestmark = pytest.mark.slow

# Trains in no time, but the second training hangs after its checkpoint while .work/hang exists.
STAND_IN = """
import csv, json, sys, time
from pathlib import Path

stage, arch, *outs = sys.argv[1:]
for out in map(Path, outs):
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"source": "random"})) if out.suffix else out.mkdir(exist_ok=True)
if stage == "weights":
    sys.exit()
(patient,) = [row["patient"] for row in csv.DictReader(open("results/split.csv")) if row["subset"] == "test"]
if stage == "train":
    checkpoint = Path(".work", f"checkpoint-{patient}")
    run_id = f"{'resumed' if checkpoint.exists() else 'fresh'} {patient}"
    checkpoint.touch()
    while Path(".work/hang").exists() and len(list(Path(".work").glob("checkpoint-*"))) == 2:
        time.sleep(0.05)
    Path(f"results/train/{arch}.json").write_text(json.dumps({"run_id": run_id}))
else:
    rows = f"patient,field,label,probability,predicted\\n{patient},01,1,0.9,1\\n{patient},01,0,0.1,0\\n"
    for name in ("predictions", "objects"):
        Path(f"results/evaluate/{arch}/{name}.csv").write_text(rows)
    row = f"patient,area_mm2,mitoses_per_mm2,detections_per_mm2\\n{patient},0.01,100,100\\n"
    Path(f"results/evaluate/{arch}/fields.csv").write_text(row)
    metrics = {level: {"threshold": 0.5} for level in ("patches", "fields")}
    Path(f"results/evaluate/{arch}/metrics.json").write_text(json.dumps(metrics))
"""
COMMAND = ("mitoscope", "crossvalidate", "alexnet")


@pytest.fixture
def three_patients(project: Project) -> Project:
    """Three synthetic patients with a small field each; that there are three folds is not committed."""
    project.run("mitoscope", "synthesize", "--patients", "3", "--fields", "1", "--size", "400", "--seed", "3")
    (project.folder / "data.dvc").unlink()
    project.run("dvc", "add", "--quiet", "data")
    (project.folder / "stand_in.py").write_text(STAND_IN)
    pipeline = yaml.safe_load((project.folder / "dvc.yaml").read_text())
    for name in ("weights", "train", "evaluate"):
        stage = pipeline["stages"][name]["do"]
        outs = [*stage["outs"], *stage.get("metrics", [])]
        stage["cmd"] = f"python stand_in.py {name} ${{key}} {' '.join(outs)}"
    (project.folder / "dvc.yaml").write_text(yaml.safe_dump(pipeline, sort_keys=False))
    project.run("git", "add", "--all")
    identity = ("-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false")
    project.run("git", *identity, "commit", "--quiet", "--message", "three patients")

    def set_folds(params: Params) -> None:
        params["split"] = {"folds": 3, "fold": 1, "seed": 0}

    project.change_params(set_folds)
    project.run("dvc", "repro", "split")
    return project


def state(project: Project) -> dict[str, str]:
    """What must stay as it is: git's state and every file, dvc.lock among them, but for the command's reports."""
    tools = {".git", ".dvc", ".work", "__pycache__", "crossvalidate"}
    files = [path for path in project.folder.rglob("*") if path.is_file() and not tools & set(path.parts)]
    commands = ("git status --porcelain", "git rev-parse HEAD", "git symbolic-ref HEAD", "git stash list")
    digests = {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    return digests | {command: project.run(*command.split()) for command in commands}


def test_interrupted_it_leaves_the_project_as_it_was_and_goes_on_later(three_patients: Project) -> None:
    project = three_patients
    before = state(project)
    work = project.folder / ".work"
    work.mkdir(exist_ok=True)
    (work / "hang").touch()
    running = project.start(*COMMAND)
    deadline = time.monotonic() + 300
    while len(list(work.glob("checkpoint-*"))) < 2 and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    assert running.poll() is None, "it ended before it could be interrupted"
    running.send_signal(signal.SIGTERM)
    assert running.wait(60) != 0
    assert state(project) == before
    assert not list((project.folder / ".dvc/tmp").glob("crossvalidate*"))
    (work / "hang").unlink()

    said = project.run(*COMMAND)
    assert state(project) == before
    assert said.count("Running stage 'extract'") == 0
    assert said.count("Running stage 'train@alexnet'") == 2  # the first fold was finished
    report = json.loads((project.folder / "results/crossvalidate/alexnet.json").read_text())
    tested = [patient for fold in report["folds"] for patient in fold["test"]]
    assert sorted(tested) == ["01", "02", "03"]
    run_ids = [fold["run_id"] for fold in report["folds"]]
    assert run_ids == [f"fresh {tested[0]}", f"resumed {tested[1]}", f"fresh {tested[2]}"]
    assert report["pooled"]["patches"]["tp"] == report["pooled"]["fields"]["tp"] == 3
    objects = pd.read_csv(project.folder / "results/crossvalidate/alexnet-objects.csv", dtype={"patient": str})
    assert list(objects.patient.unique()) == tested
    experiments = project.run("git", "for-each-ref", "--format=%(refname)", "refs/exps").split()
    assert [name.rpartition("/")[2] for name in experiments] == [f"crossvalidate-alexnet-fold{k}" for k in range(3)]
