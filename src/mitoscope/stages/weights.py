"""Stage `weights@network`: the start weights of a network -> models/<network>/start.pt and start.json."""

import urllib.request
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any

from mitoscope.errors import InputError
from mitoscope.files import atomic_path, hash_file, write_json
from mitoscope.params import read_params
from mitoscope.paths import MODELS, WORK
from mitoscope.progress import console, progress

_TIMEOUT_SECONDS = 10
_CHUNK = 1 << 20


def weights(network: str) -> None:
    """Write the start weights of a network, as `weights` in params.yaml says: auto, imagenet, random or a file.

    Raises:
        InputError: bad params, or the weights are not available or belong to another network.
    """
    params = read_params()
    settings, wanted = params.train_of(network).model, params.weights_of(network)

    from mitoscope.learning import checkpoints
    from mitoscope.learning.backbones import parts
    from mitoscope.learning.networks import start_state
    from mitoscope.learning.side_by_side import together

    backbone = settings.backbone or network
    networks, paths = parts(backbone), list[Path]()  # several may stand side by side, each with its file
    try:
        if wanted in ("auto", "imagenet"):
            paths = [_imagenet(name) for name in networks]
        elif wanted != "random":
            paths = list(map(Path, parts(wanted))) if len(networks) > 1 else [Path(wanted)]
    except (OSError, HTTPException, ValueError) as error:
        if wanted == "imagenet":
            raise InputError(
                f"ImageNet weights of {backbone} are not available ({error}); set weights.{network} in params.yaml to "
                "a file, auto or random"
            ) from error
        console.print(
            f"[bold red]warning: {network} starts from RANDOM weights[/]: the ImageNet weights of {backbone} are not "
            f"available ({error}). Expect a worse model; `dvc repro -f weights@{network}` tries again."
        )
    if paths and len(paths) != len(networks):
        raise InputError(f"params.yaml: weights.{network}: {backbone} needs {len(networks)} files, joined by +")
    states: list[Mapping[str, Any]] = [checkpoints.load(path) for path in paths]
    try:
        source = together(backbone, states) if len(states) > 1 else next(iter(states), None)
        state, missing = start_state(backbone, source, settings.seed, settings.head)
    except ValueError as error:
        raise InputError(f"{'+'.join(map(str, paths)) or 'params.yaml'}: {error}") from error
    folder = MODELS / network
    checkpoints.save(folder / "start.pt", state)
    files = "+".join(path.name for path in paths)
    if not paths:
        name = "random"
    else:
        name = "imagenet" if wanted in ("auto", "imagenet") else files
        if any(not parameter.startswith(_last_layer(missing)) for parameter in missing):
            name += " (features only)"
    start = {
        "source": name,
        "file": files or None,
        "sha256": "+".join(map(hash_file, paths)) or None,
        "random_parameters": missing if paths else "all",
        "seed": settings.seed,
    }
    write_json(folder / "start.json", start)
    console.print(f"{network} starts from {name}")


def _last_layer(missing: list[str]) -> str:
    """Return the layer of the last missing parameter: the head, which never comes from the weights."""
    return missing[-1].rpartition(".")[0]


def _imagenet(backbone: str) -> Path:
    """Return the file of a backbone's ImageNet weights: from torch's cache, or downloaded to .work/imagenet.

    Raises:
        ValueError: the backbone has no ImageNet weights.
        InputError: the file's hash is wrong.
        OSError: the weights are neither cached nor reachable.
    """
    import torch

    from mitoscope.learning.backbones import imagenet_weights

    url, name, stamp = imagenet_weights(backbone)
    places = [Path(torch.hub.get_dir(), "checkpoints", name), WORK / "imagenet" / name]
    path = next((place for place in places if place.exists()), None)
    if path is None:
        path = places[-1]
        console.print(f"downloading {name} (timeout: {_TIMEOUT_SECONDS} s without data)")
        with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as answer, progress() as show:
            total = int(answer.headers.get("Content-Length", 0))
            with atomic_path(path) as temporary:
                with temporary.open("wb") as file:
                    while chunk := answer.read(_CHUNK):
                        file.write(chunk)
                        show(name, file.tell(), total)
                if not hash_file(temporary).startswith(stamp):
                    raise OSError("the download is not the file: it was cut off, or a proxy answered")
    if not hash_file(path).startswith(stamp):
        raise InputError(f"{path}: its SHA-256 does not match the one in its name; delete the file and run this again")
    return path
