"""A training is named by all that it depends on, leaves what later stages need, and ends with one line where it cannot.

Whole trainings that are killed are in tests/pipeline.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import cv2
import mlflow
import pandas as pd
import pytest
import torch

import mitoscope
from mitoscope.errors import InputError
from mitoscope.files import exclusive, write_json
from mitoscope.learning import checkpoints
from mitoscope.learning.devices import Device
from mitoscope.params import Train
from mitoscope.paths import Outputs
from mitoscope.stages.search import search
from mitoscope.stages.split import split
from mitoscope.stages.train import train
from mitoscope.stages.train.inputs import read_inputs, start_model
from mitoscope.stages.weights import weights
from mitoscope.tracking import runs
from mitoscope.tracking.provenance import hash_settings
from tests.conftest import NETWORK, tiny_params, write_params

pytestmark = pytest.mark.slow

START = Path("models", NETWORK, "start.pt")
OUTPUTS = Outputs(NETWORK)


def set_training(part: str, **entries: object) -> None:
    params = tiny_params()
    params["train"][NETWORK][part] |= entries
    write_params(params)


def fingerprint(device: Device) -> str:
    return hash_settings(read_inputs(OUTPUTS).evidence(device))


def runs_so_far() -> int:
    return len(mlflow.search_runs(search_all_experiments=True))


# What a training depends on.


def other_start_weights() -> None:
    state = checkpoints.load(START)
    checkpoints.save(START, {name: tensor + 1 for name, tensor in state.items()})


def other_patches() -> None:
    summary = Path("patches/summary.json")
    summary.write_text(json.dumps(json.loads(summary.read_text()) | {"digest": "0" * 64}))


def other_split() -> None:
    OUTPUTS.split.write_text(OUTPUTS.split.read_text() + "\n")


@pytest.mark.parametrize(
    "change",
    [
        lambda: set_training("optimisation", lr=0.002),
        lambda: set_training("sampling", seed=1),
        lambda: set_training("model", trainable="head"),
        other_start_weights,
        other_patches,
        other_split,
    ],
    ids=["lr", "seed", "trainable", "start weights", "patches", "split"],
)
def test_the_fingerprint_names_the_settings_and_files(ready, here, change: Callable[[], None]):
    before = fingerprint(here)
    change()
    assert fingerprint(here) != before


def test_the_fingerprint_names_nothing_else(ready, here):
    before = fingerprint(here)
    params = tiny_params()
    block = Train.model_validate(params["train"][NETWORK])
    params["train"][NETWORK] = block.model_dump(mode="json")  # every entry, also those at their defaults
    params["evaluate"]["bootstrap"] = 500
    params["detection"][NETWORK] = {"views": 4}  # trains nothing
    params["train"]["another"] = {}
    write_params(params)
    assert fingerprint(here) == before


def test_the_fingerprint_names_the_machine(ready, here, monkeypatch):
    before = fingerprint(here)
    assert fingerprint(replace(here, bf16=True)) != before
    assert fingerprint(replace(here, world=2)) != before
    with monkeypatch.context() as patch:
        patch.setattr(torch, "__version__", "9.9")
        assert fingerprint(here) != before
    for package, module in (("torchvision", "learning.backbones"), ("numpy", "stages.train.inputs")):

        def after_an_upgrade(name: str, upgraded: str = package) -> str:
            return "99.9" if name == upgraded else version(name)

        monkeypatch.setattr(f"mitoscope.{module}.version", after_an_upgrade)
        assert fingerprint(here) != before


def test_the_fingerprint_names_the_threads(ready, here, other_threads):
    before = fingerprint(here)
    other_threads()
    assert fingerprint(here) != before


@pytest.mark.parametrize(
    ("module", "counts"),
    [
        ("learning/loop.py", True),
        ("learning/backbones/torchvision.py", True),
        ("detection/stored.py", True),
        ("stages/train/inputs.py", True),
        ("reporting/figures.py", False),
        ("stages/evaluate.py", False),
    ],
)
def test_the_fingerprint_names_the_code_that_trains(ready, here, tmp_path, monkeypatch, module, counts):
    inputs = read_inputs(OUTPUTS)
    package = tmp_path / "changed"
    shutil.copytree(Path(mitoscope.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    before = inputs.evidence(here)
    monkeypatch.setattr(mitoscope, "__file__", str(package / "__init__.py"))
    assert inputs.evidence(here) == before  # wherever the package is installed
    (package / module).write_text((package / module).read_text() + "\n# another version\n")
    assert (inputs.evidence(here)["code"] != before["code"]) == counts


def test_found_settings_take_the_place_of_the_blocks(ready):
    rotations = {"positive": [0], "negative": [90]}
    settings = read_inputs(OUTPUTS, {"optimisation": {"lr": 0.05}, "sampling": {"rotations": rotations}}).settings
    found = settings.sampling.rotations
    assert (settings.optimisation.lr, found.positive, found.negative) == (0.05, (0,), (90,))
    block = tiny_params()["train"][NETWORK]
    assert settings.optimisation.weight_decay == block["optimisation"]["weight_decay"]
    assert settings.sampling.near_um == block["sampling"]["near_um"]
    with pytest.raises(
        InputError, match=rf"{NETWORK}\.json: settings\.optimisation\.lr must be more than 0, not -1; run `dvc"
    ):
        read_inputs(OUTPUTS, {"optimisation": {"lr": -1}})


def test_a_fold_has_patients_and_a_name_of_its_own(ready):
    outputs = Outputs(NETWORK, 1)
    with pytest.raises(InputError, match=r"crossvalidation/split/fold-1\.csv: no such file; run `dvc repro cross"):
        read_inputs(outputs)
    split(fold=1)
    inputs, own = read_inputs(outputs), read_inputs(OUTPUTS)
    assert (inputs.name, own.name) == (f"{NETWORK}-fold1", NETWORK)
    assert (set(inputs.rows.patient), set(own.rows.patient)) == ({"01", "04"}, {"03", "04"})
    assert (inputs.split["fold"], own.split["fold"]) == (1, 0)
    assert inputs.tags() == own.tags() | {"fold": "1", "crossvalidation": "true"}
    assert inputs.sources["start"] == own.sources["start"]


# What cannot be trained.


def test_a_network_starts_from_its_start_weights(ready):
    model = start_model(read_inputs(OUTPUTS))
    start = checkpoints.load(START)
    assert all(torch.equal(tensor, start[name]) for name, tensor in model.inner.state_dict().items())


def test_another_networks_start_weights_are_rejected(ready):
    checkpoints.save(START, {"foreign.weight": torch.zeros(1)})
    with pytest.raises(
        InputError, match=rf"start\.pt: the weights do not fit .*; run `dvc repro -f weights@{NETWORK}`"
    ):
        start_model(read_inputs(OUTPUTS))


def test_start_weights_must_be_there(extracted):
    with pytest.raises(InputError, match=rf"start\.pt: no such file; run `dvc repro search@{NETWORK}` first"):
        train(NETWORK)


def test_every_process_needs_two_patches_of_a_batch(ready, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "5")  # of a batch of 8
    with pytest.raises(InputError, match=rf"train\.{NETWORK}\.optimisation\.batch_size: each process gets"):
        train(NETWORK)


def test_validation_needs_mitoses(ready):
    table = pd.read_csv(OUTPUTS.split, dtype={"patient": str})
    index = pd.read_csv("patches/index.csv", dtype={"patient": str, "field": str})
    validated = table.patient[table.subset == "validation"]
    index.loc[index.patient.isin(validated) & (index.label == 1), "edge"] = True
    index.to_csv("patches/index.csv", index=False)
    with pytest.raises(InputError, match="the validation patients lack mitoses or negatives"):
        train(NETWORK)


def add_network(backbone: str, input_size: int) -> None:
    """Prepare a training of the network `mine`."""
    params = tiny_params()
    params["weights"]["mine"] = "random"
    params["train"]["mine"] = {"model": {"backbone": backbone, "input_size": input_size}}
    write_params(params)
    weights("mine")
    search("mine")


def test_an_input_size_that_the_network_cannot_take_begins_no_run(ready):
    add_network("timm/test_vit3", 48)
    before = runs_so_far()
    cause = r"Input height \(48\) doesn't match model \(160\)"
    with pytest.raises(InputError, match=rf"train\.mine\.model: timm/test_vit3 fails with input_size 48: .*{cause}"):
        train("mine")
    assert runs_so_far() == before


@pytest.mark.filterwarnings("ignore:The default weight initialization of GoogleNet")
def test_a_network_with_several_outputs_is_rejected(ready):
    add_network("googlenet", 64)
    with pytest.raises(InputError, match=r"train\.mine\.model: googlenet fails .* several outputs are not supported"):
        train("mine")


def test_a_diverging_training_names_the_setting(ready):
    set_training("optimisation", lr=1e30)
    with pytest.raises(InputError, match=rf"train\.{NETWORK}: training diverged in epoch 1 .*; lower lr"):
        train(NETWORK)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", "is not a JSON file"),
        ("[]", "is not a JSON object"),
        ("{}", "is not a result of a search"),
        ('{"settings": 3}', "is not a result of a search"),
        ('{"settings": {"lr": 0.1}}', "is not a result of a search"),
    ],
)
def test_a_broken_result_of_a_search_is_rejected(ready, content, problem):
    path = OUTPUTS.searched / f"{NETWORK}.json"
    path.write_text(content)
    with pytest.raises(InputError, match=rf"{NETWORK}\.json: {problem}; run `dvc repro search@"):
        train(NETWORK)
    path.unlink()
    with pytest.raises(InputError, match=rf"{NETWORK}\.json: no such file; run `dvc repro search@{NETWORK}` first"):
        train(NETWORK)


def test_a_second_trainer_is_told_the_firsts_process(ready):
    pid = os.getpid()
    said = f"another training of {NETWORK} is still running as process {pid}; .* `kill {pid}`"
    with exclusive(Path(f".work/train-{NETWORK}.lock"), ""), pytest.raises(InputError, match=said):
        train(NETWORK)


# An interrupted training.


@pytest.fixture
def other_threads() -> Iterator[Callable[[], None]]:
    """What changes the number of torch's threads, for this test only."""
    before = torch.get_num_threads()
    yield lambda: torch.set_num_threads(before + 1)
    torch.set_num_threads(before)


@pytest.fixture
def interrupting(monkeypatch) -> None:
    """Ctrl-C after every epoch, when its checkpoint is on the disk."""
    log_epochs = runs.log_epochs

    def log_and_interrupt(*arguments):
        log_epochs(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "log_epochs", log_and_interrupt)


def test_an_interrupted_training_goes_on_unless_the_threads_differ(ready, interrupting, other_threads, capsys):
    set_training("optimisation", epochs=2, patience=2)
    write_json(OUTPUTS.searched / f"{NETWORK}.json", {"settings": {"optimisation": {"lr": 0.002}}})

    def run_until_interrupted() -> dict[str, tuple[str, int]]:
        """Run ids and numbers of epochs by the folders of the checkpoints."""
        with pytest.raises(KeyboardInterrupt):
            train(NETWORK)
        folders = [path for path in Path(".work").iterdir() if path.is_dir()]
        return {
            folder.name: ((folder / "run_id").read_text(), len(checkpoints.load(folder / "last.pt")["history"]))
            for folder in folders
        }

    ((name, (run_id, epochs)),) = run_until_interrupted().items()
    said = capsys.readouterr().out
    assert epochs == 1 and "interrupted; run this again to continue" in said and "resumed" not in said
    run = mlflow.get_run(run_id)
    assert run.info.status == "KILLED" and run.data.params["train.optimisation.lr"] == "0.002"  # as the search found
    threads = str(torch.get_num_threads())
    other_threads()
    found = run_until_interrupted()
    said = capsys.readouterr().out
    assert f"{name}: not resumed, because this interrupted training differs in threads" in said
    (other,) = found.keys() - {name}
    assert found[name] == (run_id, 1) and found[other][0] != run_id and found[other][1] == 1
    tags = [mlflow.get_run(found[folder][0]).data.tags for folder in (name, other)]
    assert tags[0]["threads"] == threads != tags[1]["threads"] and tags[0]["fingerprint"] != tags[1]["fingerprint"]
    assert run_until_interrupted() == found
    assert f"{other}: this interrupted training is resumed after its last epoch" in capsys.readouterr().out


# What a training leaves.


def test_a_training_writes_its_outputs_and_leaves_no_checkpoints(detected):
    assert {path.name for path in Path("results/train").iterdir()} == {
        f"{NETWORK}{kind}" for kind in (".json", ".csv", ".png")
    }
    assert {path.name for path in Path("models", NETWORK).iterdir()} == {
        "start.pt",
        "start.json",
        "best.pt",
        "detector.pt",
    }
    assert not [path for path in Path(".work").iterdir() if path.is_dir()]
    curves = pd.read_csv(OUTPUTS.trained.with_suffix(".csv"))
    assert curves.epoch.tolist() == [1, 2] and set(curves.network) == {NETWORK}
    assert {"train_loss", "validation_best_f1", "validation_threshold"} <= set(curves)
    report = json.loads(OUTPUTS.trained.read_text())
    best = curves.validation_best_f1.max()
    assert report["network"] == NETWORK and report["start_weights"] == "random" and report["epochs"] == 2
    assert report["best_epoch"] == curves.epoch[curves.validation_best_f1 == best].iloc[0]
    assert report["validation_f1"] == pytest.approx(best)
    assert report["patients"] == {"train": ["03", "04"], "validation": ["02"]} and report["fold"] == 0
    _, kept = checkpoints.load_network(OUTPUTS.weights)
    names = {"threshold": "threshold", "run_id": "run_id", "epoch": "best_epoch"}
    assert {name: kept[name] for name in names} == {name: report[entry] for name, entry in names.items()}


def test_the_run_holds_what_the_weights_depend_on(detected):
    report = json.loads(OUTPUTS.trained.read_text())
    run = mlflow.get_run(report["run_id"])
    tags = run.data.tags
    assert run.info.status == "FINISHED"
    assert (tags["network"], tags["start_weights"], tags["synthetic"], tags["fold"]) == (NETWORK, "random", "true", "0")
    assert tags["threads"].isdecimal() and tags["precision"] in ("bf16", "fp32") and tags["torch"] == torch.__version__
    assert tags["fingerprint"] == report["fingerprint"] and tags["crossvalidation"] == "false"
    assert run.data.params["train.optimisation.epochs"] == "2"
    assert run.data.params["train.sampling.flips"] == "True"  # at its default
    assert run.data.params["split.fold"] == "0" and run.data.params["start.source"] == "random"
    assert run.data.metrics["best_validation/best_f1"] == round(report["validation_f1"], 4)
    (dataset,) = run.inputs.dataset_inputs
    assert dataset.dataset.name.startswith("synthetic")
    last = mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path="checkpoints/last.pt")
    model, _ = checkpoints.load_network(Path(last))
    assert (model.backbone, model.patch_size, model.input_size) == (NETWORK, 32, 32)


def test_mined_negatives_are_shown(detected):
    run_id = json.loads(OUTPUTS.trained.read_text())["run_id"]
    picture = mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path="pictures/mined.png")
    assert cv2.imread(picture).shape[1] == 10 * 134 + 6
    curves = pd.read_csv(OUTPUTS.trained.with_suffix(".csv"))
    assert curves.mining_mean_score.isna().tolist() == [True, False]
