"""Stage `weights@arch`: what a network starts from -> models/<arch>/start.pt and start.json."""

import hashlib
import re
import urllib.request
from http.client import HTTPException
from pathlib import Path

from mitoscope.errors import InputError
from mitoscope.files import atomic_path, write_json
from mitoscope.params import read_params
from mitoscope.paths import MODELS, WORK
from mitoscope.progress import console, progress

_TIMEOUT_SECONDS = 10
_CHUNK = 1 << 20


def weights(arch: str) -> None:
    """Write the start weights of network `arch` as `weights` in params.yaml says: auto, imagenet, random or a file."""
    block, wanted = read_params().for_network(arch)

    from mitoscope.learning import checkpoints
    from mitoscope.learning.networks import start_state

    path: Path | None
    try:
        path = _imagenet(arch) if wanted in ("auto", "imagenet") else None if wanted == "random" else Path(wanted)
    except (OSError, HTTPException) as error:
        if wanted == "imagenet":
            raise InputError(
                f"ImageNet weights of {arch} are neither cached nor reachable ({error}); "
                "set weights in params.yaml to a file, auto or random"
            ) from error
        console.print(
            f"[bold red]warning: {arch} starts from RANDOM weights[/]: its ImageNet weights are neither cached nor "
            f"reachable ({error}). Expect a worse model; `dvc repro -f weights@{arch}` tries again."
        )
        path = None
    source = None if path is None else checkpoints.load(path)
    try:
        state, missing = start_state(arch, source, block.seed, block.head)
    except ValueError as error:
        raise InputError(f"{path or 'params.yaml'}: {error}") from error
    folder = MODELS / arch
    checkpoints.save(folder / "start.pt", state)
    if path is None:
        name = "random"
    else:
        name = "imagenet" if wanted in ("auto", "imagenet") else path.name
        if any(not parameter.startswith(_last_layer(missing)) for parameter in missing):
            name += " (features only)"
    start = {
        "source": name,
        "file": None if path is None else path.name,
        "sha256": None if path is None else _sha256(path),
        "random_parameters": "all" if path is None else missing,
        "seed": block.seed,
    }
    write_json(folder / "start.json", start)
    console.print(f"{arch} starts from {name}")


def _last_layer(missing: list[str]) -> str:
    """The layer of the last missing parameter: the head, which is always new."""
    return missing[-1].rpartition(".")[0]


def _imagenet(arch: str) -> Path:
    """The file of torchvision's IMAGENET1K_V1 weights, from torch's cache, or downloaded to .work/imagenet.

    Raises:
        InputError: torchvision has no such network, or the file's hash is wrong.
        OSError: neither cached nor reachable.
    """
    import torch
    from torchvision.models import get_model_weights

    try:
        url: str = get_model_weights(arch)["IMAGENET1K_V1"].url
    except (ValueError, KeyError) as error:
        raise InputError(f"params.yaml: torchvision has no network {arch!r} with ImageNet weights") from error
    name = url.rsplit("/", 1)[-1]
    # torchvision puts the start of the file's SHA-256 into its name.
    stamp = re.search(r"-([0-9a-f]{8,})\.", name)

    def whole(file: Path) -> bool:
        return stamp is not None and _sha256(file).startswith(stamp[1])

    places = [Path(torch.hub.get_dir()) / "checkpoints" / name, WORK / "imagenet" / name]
    path = next((place for place in places if place.exists()), None)
    if path is None:
        path = places[-1]
        console.print(f"downloading {name} (up to {_TIMEOUT_SECONDS} s of silence, then giving up)")
        with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as answer, progress() as show:
            total = int(answer.headers.get("Content-Length", 0))
            with atomic_path(path) as temporary:
                with temporary.open("wb") as file:
                    while chunk := answer.read(_CHUNK):
                        file.write(chunk)
                        show(name, file.tell(), total)
                if not whole(temporary):
                    raise OSError("what came is not the file: cut off, or a proxy's answer")
    if not whole(path):
        raise InputError(f"{path}: its SHA-256 is not the one in its name; delete it and run again")
    return path


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
