"""Stage `train@network`: patches + split + start weights -> models/<network>/best.pt and results/train/<network>.*.

It writes weights; stage `detector` makes a detector from them.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mitoscope.errors import InputError
from mitoscope.files import exclusive, read_json, write_json
from mitoscope.params import Extract, read_params
from mitoscope.paths import DATA, WORK, Outputs
from mitoscope.progress import console, progress
from mitoscope.stages.train.inputs import Inputs, read_inputs, start_model
from mitoscope.stages.train.outputs import write_outputs
from mitoscope.tracking.provenance import dataset_digest, git_state, hash_settings

if TYPE_CHECKING:
    from mitoscope.learning.devices import Device
    from mitoscope.learning.schedule import Epoch


def train(network: str, fold: int | None = None) -> None:
    """Train a network, as its block in params.yaml says; a killed training continues where it was.

    Under torchrun each process trains on its share; the first process logs the run and writes the outputs.

    Args:
        network: name of an entry under `train` in params.yaml.
        fold: fold of the cross-validation; None = the project's own split.

    Raises:
        InputError: bad params or inputs, or another training of this network is running.
    """
    from mitoscope.evaluation.metrics import patch_scores
    from mitoscope.learning.devices import join
    from mitoscope.learning.loop import fit

    read_params().train_of(network)
    outputs = Outputs(network, fold)
    searched = _searched(outputs)
    inputs = read_inputs(outputs, searched)
    model = start_model(inputs)
    with join() as device:
        evidence = inputs.evidence(device)
        fingerprint = hash_settings(evidence)
        work = WORK / f"train-{inputs.name}-{fingerprint[:12]}"
        fit_here = partial(
            fit,
            model,
            inputs.training,
            inputs.validation,
            inputs.settings,
            device=device,
            measure=patch_scores,
            work=work,
            fingerprint=fingerprint,
        )
        if not device.first:
            fit_here()
            return
        if searched:
            console.print(f"{network}: uses {json.dumps(searched)} from {outputs.searched / f'{network}.json'}")
        busy = (
            f"another training of {inputs.name} is still running as process {{pid}}; wait for it, or stop it with "
            "`kill {pid}` and run this again to continue from its last epoch"
        )
        with exclusive(WORK / f"train-{inputs.name}.lock", busy):
            _prepare(work, evidence)
            with _logged_run(inputs, device, work, fingerprint) as (run_id, log_epochs), progress() as show:
                try:
                    fitted = fit_here(on_epoch=log_epochs, on_batch=show)
                except KeyboardInterrupt:
                    console.print(f"{network}: interrupted; run this again to continue from the last epoch")
                    raise
                except FloatingPointError as error:
                    raise InputError(f"params.yaml: train.{network}: {error}") from error
                write_outputs(inputs, run_id, fitted, work, fingerprint)
            shutil.rmtree(work)


def _searched(outputs: Outputs) -> dict[str, Any]:
    """Return the settings that stage `search` found; empty if the search is off."""
    path = outputs.searched / f"{outputs.network}.json"
    if not path.exists():
        raise InputError(f"{path}: no such file; run {outputs.repro('search')} first")
    again = f"run {outputs.repro('search')} with -f"
    found = read_json(path, again)
    try:
        settings = {part: dict(entries) for part, entries in found["settings"].items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: is not a result of a search; {again}") from error
    return settings


def _prepare(work: Path, evidence: dict[str, Any]) -> None:
    """Create the folder of the checkpoints; report an interrupted training that is resumed, or why it is not."""
    record = work / "evidence.json"
    if record.exists():
        if (work / "last.pt").exists():
            console.print(f"{work}: this interrupted training is resumed after its last epoch")
        return
    prefix = work.name.rpartition("-")[0]
    for other in sorted(WORK.glob(f"{prefix}-????????????/evidence.json")):
        before = json.loads(other.read_text(encoding="utf-8"))
        differs = [name for name in evidence if before.get(name) != evidence[name]]
        if (other.parent / "last.pt").exists():
            console.print(
                f"{other.parent}: not resumed, because this interrupted training differs in {', '.join(differs)}"
            )
    write_json(record, evidence)


@contextmanager
def _logged_run(
    inputs: Inputs, device: "Device", work: Path, fingerprint: str
) -> "Iterator[tuple[str, Callable[[list[Epoch]], None]]]":
    """Open the MLflow run; yield its id and a function that logs the epochs so far."""
    from mitoscope.tracking import runs

    evidence, start = inputs.evidence(device), inputs.start
    params = {
        "train": inputs.settings.model_dump(),
        "extract": Extract.model_validate(inputs.summary["settings"]).model_dump(),
        "split": inputs.split,
        "start": {name: start[name] for name in ("source", "file", "sha256")},
    }
    where = f"{device.world} x {device.torch.type}"
    machine = {name: str(evidence[name]) for name in ("precision", "threads", "torch")} | {"device": where}
    positives = int(inputs.training.labels.sum())
    console.print(
        f"{inputs.name}: starts from {start['source']} weights, trains on {where} in {evidence['precision']} with "
        f"{positives} windows of mitoses and {len(inputs.training) - positives} negatives",
    )
    tags = inputs.tags() | {"fingerprint": fingerprint} | machine | git_state()
    with runs.training_run(inputs.name, work / "run_id", params, tags) as run_id:
        runs.log_dataset(inputs.summary["dataset"]["name"], dataset_digest(DATA, inputs.summary["digest"]), DATA)

        def log_epochs(history: "list[Epoch]") -> None:
            runs.log_epochs(run_id, history)
            now = history[-1]
            console.print(
                f"{inputs.name} epoch {len(history)}/{inputs.settings.optimisation.epochs}: loss "
                f"{now['train/loss']:.3f}, validation loss {now['validation/loss']:.3f}, best F1 "
                f"{now['validation/best_f1']:.3f}; {now['throughput/train_patches_per_second']:.0f} patches/s",
            )

        yield run_id, log_epochs
