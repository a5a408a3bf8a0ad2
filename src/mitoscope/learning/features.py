"""The features of a frozen network, kept on disk: every fold of a cross-validation needs the same ones."""

import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from mitoscope.files import atomic_path
from mitoscope.learning.backbones import find, versions
from mitoscope.learning.batches import Windows
from mitoscope.learning.devices import Device
from mitoscope.learning.networks import PatchNetwork
from mitoscope.learning.scoring import OnBatch, pool_patches

Features = npt.NDArray[np.float32]


def pool_cached(
    model: PatchNetwork,
    windows: Windows,
    device: Device,
    *,
    views: int,
    cache: Path,
    out: Features,
    on_batch: OnBatch | None = None,
) -> None:
    """Fill `out` with the features that `pool_patches` gives, from the files in `cache` where they are there.

    All windows of a field are computed together, so that its features do not depend on who asks first.

    Args:
        model: the network, on `device`.
        windows: (M,) windows of memory-mapped stores, whose file names become those of the features.
        device: where to compute.
        views: number of views, as in `score_patches`.
        cache: folder with the features of this network and these views.
        out: (M, C) array to fill.
        on_batch: called with the number of windows done and the total.
    """
    done = 0
    for number in np.unique(windows.store):
        store, inside = windows.stores[number], np.flatnonzero(windows.store == number)
        path = cache / Path(store.filename).name
        features = _read(path, (len(store), model.pooled.channels))
        if features is None:
            features = pool_patches(model, Windows.of(store), device, views=views)
            with atomic_path(path) as temporary:
                np.save(temporary, features)
        out[inside] = features[windows.record[inside]]
        done += len(inside)
        if on_batch:
            on_batch(done, len(windows))


def digest_features(model: PatchNetwork, device: Device, evidence: Sequence[object]) -> str:
    """Return the SHA-256 of what the features of a network depend on.

    Args:
        model: the network, with a pooled head.
        device: where it computes.
        evidence: further JSON values that tell the features, such as the digest of the patches.
    """
    source, name = find(model.backbone)
    known = {
        "network": model.describe(),
        "normalisation": source.normalisation(name),
        "packages": versions(model.backbone),
        "torch": torch.__version__,  # with its build
        "device": [device.torch.type, device.bf16, torch.get_num_threads()],
        "evidence": list(evidence),
    }
    digest = sha256(json.dumps(known, sort_keys=True).encode())
    for key, tensor in model.pooled.features.state_dict().items():
        digest.update(key.encode() + tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _read(path: Path, shape: tuple[int, int]) -> Features | None:
    """Read an array memory-mapped; None if it is missing, damaged or of another shape."""
    try:
        features = np.load(path, mmap_mode="r")
    except (FileNotFoundError, EOFError, ValueError):
        return None
    return features if features.shape == shape and features.dtype == np.float32 else None
