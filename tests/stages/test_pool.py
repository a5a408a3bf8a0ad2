"""Pooling on folds made by hand: counts worked out on paper, and folds that do not belong together."""

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import pandas as pd
import pytest

from mitoscope.errors import InputError
from mitoscope.files import write_json
from mitoscope.params import Evaluate, read_params
from mitoscope.paths import CROSSVALIDATED, MODELS, Outputs, split_path
from mitoscope.reporting.results import pooled_cells
from mitoscope.stages.pool import pool, pool_counts, read_folds, settings_of
from tests.conftest import NETWORK, Params, tiny_params, write_params

PATIENTS = ["01", "02", "03", "04"]
AREA = 0.01  # mm2 of each field
# Labels and probabilities of the patients that a fold tests, and the threshold of its validation patients.
# 01 at 0.5: 0.9 found, 0.4 missed, 0.6 taken for a mitosis. 02 at 0.8: all right. 03: a mitosis that no detection
# reaches, and 04: nothing at all.
FOLDS: list[tuple[dict[str, tuple[list[int], list[float]]], float]] = [
    ({"01": ([1, 1, 0, 0], [0.9, 0.4, 0.6, 0.1])}, 0.5),
    ({"02": ([1, 0, 0], [0.85, 0.7, 0.2])}, 0.8),
    ({"03": ([1], [0.0]), "04": ([], [])}, 0.5),
]
COUNTS = {"mitoses": 4, "detections": 3, "tp": 2, "fp": 1, "fn": 2}


def write_fold(number: int) -> None:
    """Write what the stages of fold `number` leave."""
    tested, threshold = FOLDS[number]
    outputs, run_id = Outputs(NETWORK, number), f"run{number}"
    split = pd.DataFrame({"patient": PATIENTS, "fold": [0, 1, 2, 2]})
    split["subset"] = ["test" if patient in tested else "train" for patient in PATIENTS]
    split_path(number).parent.mkdir(parents=True, exist_ok=True)
    split.to_csv(split_path(number), index=False)
    others = [patient for patient in PATIENTS if patient not in tested]
    who = {"validation": others[:1], "train": others[1:]}
    write_json(outputs.trained, {"run_id": run_id, "start_weights": "random", "patients": who})
    write_json(outputs.detected, {"run_id": run_id, "model_id": f"m{number}", "settings": {"refit_fields": False}})
    write_json(
        outputs.evaluated / "test_set.json", {"run_id": run_id, "model_id": f"m{number}", "patients": list(tested)}
    )
    levels = {level: {"threshold": threshold, "domains": {}} for level in ("patches", "fields")}
    write_json(outputs.evaluated / "metrics.json", levels)
    write_json(outputs.evaluated / "intervals.json", levels)
    rows = [
        {"network": NETWORK, "patient": patient, "field": "01", "label": label, "probability": probability}
        for patient, found in tested.items()
        for label, probability in zip(*found, strict=True)
    ]
    table = pd.DataFrame(rows).assign(predicted=lambda rows: (rows.probability >= threshold).astype(int))
    for name in ("predictions", "objects"):
        table.to_csv(outputs.evaluated / f"{name}.csv", index=False)
    fields = {"patient": list(tested), "field": "01", "domain": "", "area_mm2": AREA, "mitoses_per_mm2": 1.0}
    pd.DataFrame(fields).assign(detections_per_mm2=1.0).to_csv(outputs.evaluated / "fields.csv", index=False)


def change_params(change: dict[str, Params]) -> None:
    params = tiny_params() | {"split": {"folds": len(FOLDS), "seed": 0}}
    for block, entries in change.items():
        params[block] = params.get(block, {}) | entries
    write_params(params)


def write_project() -> None:
    """Make the working directory a project after all folds of a cross-validation."""
    change_params({})
    summary = {"digest": "f" * 64, "dataset": {"name": "drawn", "synthetic": True}, "fields": {}}
    write_json(Path("patches/summary.json"), summary)
    write_json(MODELS / NETWORK / "start.json", {"source": "random", "sha256": "0"})
    for number in range(len(FOLDS)):
        write_fold(number)


@pytest.fixture
def folds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a project after all folds of a cross-validation."""
    monkeypatch.chdir(tmp_path)
    write_project()
    return tmp_path


@pytest.fixture(scope="module")
def pooled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the stage wrote for such a project; its data are under DVC."""
    folder = tmp_path_factory.mktemp("pooled")
    with contextlib.chdir(folder):
        write_project()
        Path("data.dvc").write_text("outs:\n- md5: 0123456789abcdef0123456789abcdef.dir\n  path: data\n")
        change_params({"search": {"storage": "postgresql://me:secret@host/db"}})
        pool(NETWORK)
    return folder / CROSSVALIDATED


def read_report(folder: Path = CROSSVALIDATED) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((folder / f"{NETWORK}.json").read_text())
    return report


def test_each_fold_is_cut_at_its_own_threshold_before_they_are_pooled(pooled):
    report = read_report(pooled)
    for level in ("patches", "fields"):
        scores = report["pooled"][level]
        assert {name: scores[name] for name in COUNTS} == COUNTS
        assert scores["patients"] == 4 and scores["precision"] == pytest.approx(2 / 3) and scores["recall"] == 0.5
        assert scores["f1"] == pytest.approx(4 / 7)  # 2 * 2 / (3 + 4)
        assert "ap" not in scores and "auc" not in scores
        assert set(scores["intervals"]) >= {"precision", "recall", "f1"}
        assert scores["intervals"]["recall"][0] < 0.5 < scores["intervals"]["recall"][1]
    assert report["pooled"]["fields"]["area_mm2"] == pytest.approx(4 * AREA)
    assert report["pooled"]["fields"]["detections_per_mm2"] == pytest.approx(3 / (4 * AREA))


def test_a_patient_without_detection_and_one_without_anything_count(pooled):
    table = pd.read_csv(pooled / f"{NETWORK}.csv", dtype={"patient": str})
    assert set(table.network) == {NETWORK} and list(table.level) == ["patches"] * 4 + ["fields"] * 4
    first, second, missed, empty = table[table.level == "fields"].to_dict("records")
    assert [row["fold"] for row in (first, second, missed, empty)] == [0, 1, 2, 2]
    assert (first["tp"], first["fp"], first["fn"], first["f1"]) == (1, 1, 1, 0.5)
    assert first["best_f1_not_attainable"] == pytest.approx(0.8)  # at 0.4: both found, one false
    assert second["f1"] == second["best_f1_not_attainable"] == 1
    assert (missed["detections"], missed["fn"], missed["f1"], missed["best_f1_not_attainable"]) == (0, 1, 0, 0)
    assert (empty["patient"], empty["mitoses"], empty["detections"]) == ("04", 0, 0)
    assert pd.isna(empty["recall"]) and pd.isna(empty["f1"]) and pd.isna(empty["best_f1_not_attainable"])


def test_domains_are_pooled_apart(folds):
    found = read_folds(NETWORK, 3)
    assert pool_counts(found, Evaluate())[0]["fields"]["domains"] == {}  # all fields have the same
    for fold, domain in zip(found, ("Aperio", "Aperio", "Leica"), strict=True):
        fold.fields["domain"] = domain
    pooled = pool_counts(found, Evaluate())[0]
    counts = {name: [scores[key] for key in ("tp", "fp", "fn")] for name, scores in pooled["fields"]["domains"].items()}
    assert counts == {"Aperio": [2, 1, 1], "Leica": [0, 0, 1]}
    assert pooled["fields"]["domains"]["Leica"]["area_mm2"] == pytest.approx(2 * AREA)
    assert "domains" not in pooled["patches"]


def test_a_domain_without_mitoses_has_no_recall_and_no_f1(folds):
    found = read_folds(NETWORK, 3)
    for fold in found:
        fold.fields["domain"] = ["Leica" if patient == "04" else "Aperio" for patient in fold.fields.patient]
    domains = pool_counts(found, Evaluate())[0]["fields"]["domains"]
    assert {"recall", "f1", "precision"} - set(domains["Leica"]) == {"recall", "f1"} and domains["Leica"][
        "mitoses"
    ] == 0
    assert {"recall", "f1", "precision"} <= set(domains["Aperio"])
    assert pooled_cells(domains["Leica"])[-3:] == ["0.0", "-", "-"]


def test_one_patient_has_no_interval(folds):
    first = read_folds(NETWORK, len(FOLDS))[:1]
    pooled, _ = pool_counts(first, Evaluate(bootstrap=100))
    assert pooled["patches"]["intervals"] == pooled["fields"]["intervals"] == {}


def test_the_report_holds_what_it_was_made_from(pooled):
    report = read_report(pooled)
    assert report["network"] == NETWORK and report["start_weights"] == {"source": "random", "sha256": "0"}
    assert report["dataset"] == {"name": "drawn", "synthetic": True, "md5": "0123456789abcdef0123456789abcdef.dir"}
    params = report["params"]
    assert set(params) == {"weights", "split", "extract", "train", "detection", "search", "evaluate"}
    assert params["split"] == {"folds": 3, "seed": 0} and params["evaluate"]["bootstrap"] == 100
    assert params["train"]["optimisation"]["lr"] == 0.001 and "storage" not in params["search"]
    assert [fold["run_id"] for fold in report["folds"]] == ["run0", "run1", "run2"]
    assert [fold["test"] for fold in report["folds"]] == [["01"], ["02"], ["03", "04"]]
    assert [fold["validation"] for fold in report["folds"]] == [["02"], ["01"], ["01"]]
    assert report["folds"][1]["fields"]["threshold"] == 0.8
    objects = pd.read_csv(pooled / f"{NETWORK}-objects.csv", dtype={"patient": str})
    assert list(objects.fold) == [0, 0, 0, 0, 1, 1, 1, 2] and set(objects.network) == {NETWORK}
    assert cv2.imread(str(pooled / f"{NETWORK}.png")).shape[1] > 1000


@pytest.mark.slow
def test_the_digest_changes_with_the_start_weights_and_the_data(folds, pooled):
    seen = {read_report(pooled)["digest"]}
    pool(NETWORK)  # here the data are not under DVC
    seen.add(read_report()["digest"])
    write_json(MODELS / NETWORK / "start.json", {"source": "imagenet", "sha256": "1"})
    pool(NETWORK)
    seen.add(read_report()["digest"])
    assert len(seen) == 3 and {len(digest) for digest in seen} == {64}


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        ({"extract": {"sigma_um": 2.0}}, True),
        ({"detection": {NETWORK: {"views": 8}}}, True),
        ({"evaluate": {"seed": 1}}, True),
        ({"weights": {NETWORK: "imagenet"}}, True),
        ({"extract": {"sigma_um": 1.0}}, False),  # the default, written out
        ({"split": {"fold": 1}}, False),  # the folds have numbers of their own
        ({"search": {"storage": "sqlite:///other.db"}}, False),
        ({"promote": {"min_f1": 0.9}}, False),
        ({"train": {"resnet18": {}}}, False),  # another network
    ],
)
def test_the_digest_is_of_what_the_settings_chose(tmp_path, monkeypatch, change, differs):
    monkeypatch.chdir(tmp_path)
    change_params({})
    before = settings_of(read_params(), NETWORK, chosen=True)
    change_params(change)
    assert (settings_of(read_params(), NETWORK, chosen=True) != before) == differs


def test_what_is_missing_or_of_other_folds_is_named(folds):
    remedy = f"run `mitoscope crossvalidate {NETWORK}`"
    change_params({"split": {"folds": 4}})
    with pytest.raises(InputError, match=rf"fold-0\.csv: has 3 folds, but split\.folds is 4; {remedy}"):
        pool(NETWORK)
    change_params({})
    shutil.move(split_path(1), "aside.csv")
    with pytest.raises(InputError, match=rf"fold-1\.csv: no such file, but split\.folds is 3; {remedy}"):
        pool(NETWORK)
    shutil.move("aside.csv", split_path(1))
    (Outputs(NETWORK, 2).evaluated / "metrics.json").unlink()
    with pytest.raises(InputError, match=rf"fold-2/results/evaluate/{NETWORK}/metrics\.json: .*{NETWORK}-2"):
        pool(NETWORK)
    assert not CROSSVALIDATED.exists()


def test_folds_of_several_splits_are_not_pooled(folds):
    # Fold 1 of another split tests 01, as fold 0 does: 01 would count twice and 02 not at all.
    split = pd.read_csv(split_path(1), dtype=str)
    split["subset"] = ["test", "train", "train", "train"]
    split.to_csv(split_path(1), index=False)
    with pytest.raises(InputError, match=r"fold-1/.*: the tested patients are not those in .*fold-1\.csv"):
        pool(NETWORK)
    path = Outputs(NETWORK, 1).evaluated / "test_set.json"
    write_json(path, json.loads(path.read_text()) | {"patients": ["01"]})
    report = json.loads(Outputs(NETWORK, 1).trained.read_text())
    write_json(Outputs(NETWORK, 1).trained, report | {"patients": {"validation": ["02"], "train": ["03"]}})
    with pytest.raises(InputError, match=r"crossvalidation/split: the folds do not test every patient once"):
        pool(NETWORK)


def test_a_patient_may_be_called_na(folds):
    for path in [*Path("crossvalidation").rglob("*.csv"), *Path("crossvalidation").rglob("*.json")]:
        path.write_text(path.read_text().replace('"02"', '"NA"').replace("02,", "NA,"))
    read = read_folds(NETWORK, len(FOLDS))
    _, patients = pool_counts(read, Evaluate(bootstrap=100))
    assert read[1].tested == ["NA"] and list(patients[patients.level == "fields"].patient) == ["01", "03", "04", "NA"]
