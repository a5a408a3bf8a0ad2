"""Checkpoints, written atomically and read without running code from them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mitoscope.errors import InputError
from mitoscope.files import atomic_path
from mitoscope.learning.networks import PatchNetwork, build


def save(path: Path, content: Mapping[str, Any]) -> None:
    """Write `content` (tensors, numbers, text, lists and dicts of them) to `path` atomically.

    The same content gives the same bytes, whatever the file name: torch would store the name of a path in the file, so
    it gets a file object instead.

    Raises:
        OSError: the file cannot be written; an existing file is left unchanged.
    """
    with atomic_path(path) as temporary:
        try:
            with temporary.open("wb") as file:
                torch.save(dict(content), file)
        except RuntimeError as error:  # torch's error for a failed write
            raise OSError(f"{path}: cannot be written ({str(error).splitlines()[0]}); is the disk full?") from error


def load(path: Path) -> dict[str, Any]:
    """Read a file that `save` wrote, or a state dict, to the CPU.

    Raises:
        InputError: the file is missing, truncated, not a checkpoint, or contains more than tensors and plain values.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except Exception as error:  # torch raises many types of errors for a damaged file: IndexError, struct.error, ...
        raise InputError(f"{path}: is truncated, or is not a checkpoint that can be read safely") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: contains {type(content).__name__}, expected a dictionary of tensors")
    return content


def save_network(path: Path, model: PatchNetwork, **evidence: Any) -> None:
    """Write a network as one self-contained file, together with `evidence` (threshold, run id, ...)."""
    save(path, {**model.describe(), **evidence, "state": model.inner.state_dict()})


def load_network(path: Path) -> tuple[PatchNetwork, dict[str, Any]]:
    """Read a file that `save_network` wrote; return the network in evaluation mode, and the rest of the file.

    Raises:
        InputError: as in `load`; or the file contains no network, or one whose package is not installed.
    """
    content = load(path)
    try:
        model = build(content, content.pop("state"))
    except KeyError as error:
        raise InputError(f"{path}: is not a mitoscope network (it lacks {error})") from error
    except (AttributeError, TypeError, ValueError) as error:
        raise InputError(f"{path}: contains a network that cannot be built ({error})") from error
    return model.eval(), content
