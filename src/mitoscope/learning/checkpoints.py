"""Checkpoints that are whole or absent, and are read without running code from them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mitoscope.errors import InputError
from mitoscope.files import atomic_path
from mitoscope.learning.networks import PatchNetwork, build


def save(path: Path, content: Mapping[str, Any]) -> None:
    """Write `content` (tensors, numbers, text, lists and dicts of them) to `path` atomically.

    Equal content gives equal bytes, under any name: torch writes a path's name into the file, so it gets no path.

    Raises:
        OSError: it cannot be written; an older file stays as it was.
    """
    with atomic_path(path) as temporary:
        try:
            with temporary.open("wb") as file:
                torch.save(dict(content), file)
        except RuntimeError as error:  # what torch makes of a failed write
            raise OSError(f"{path}: cannot be written ({str(error).splitlines()[0]}); is the disk full?") from error


def load(path: Path) -> dict[str, Any]:
    """Read what `save` wrote, or a state dict, to the CPU.

    Raises:
        InputError: the file is missing, no checkpoint, truncated, or holds more than tensors and plain values.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except Exception as error:  # on garbage torch's reader stumbles in many ways: IndexError, struct.error, ...
        raise InputError(f"{path}: is no checkpoint that can be read safely, or is truncated") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds {type(content).__name__}, expected a dictionary of tensors")
    return content


def save_network(path: Path, model: PatchNetwork, **evidence: Any) -> None:
    """Write a network as one file that needs nothing else; `evidence` (threshold, run id, ...) travels with it."""
    save(path, {**model.describe(), **evidence, "state": model.inner.state_dict()})


def load_network(path: Path) -> tuple[PatchNetwork, dict[str, Any]]:
    """Read what `save_network` wrote: the network in evaluation mode, and the rest of the file.

    Raises:
        InputError: as `load`; or the file holds no network, or one whose package is not installed.
    """
    content = load(path)
    try:
        model = build(content, content.pop("state"))
    except KeyError as error:
        raise InputError(f"{path}: holds no network of mitoscope (it lacks {error})") from error
    except (AttributeError, TypeError, ValueError) as error:
        raise InputError(f"{path}: holds a network that cannot be built ({error})") from error
    return model.eval(), content
