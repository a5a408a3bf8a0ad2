"""Detection in one field from its image, as `mitoscope detect` and the comparison with the champion need it."""

import math
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt

from mitoscope.datasets.annotations import Centres
from mitoscope.datasets.images import Image, Mask
from mitoscope.errors import InputError
from mitoscope.evaluation.matching import MATCH_UM, suppress
from mitoscope.histology.blue_ratio import find_candidates
from mitoscope.histology.stain import normalise
from mitoscope.histology.windows import cut_windows, resize, to_scale, window_size
from mitoscope.progress import console

if TYPE_CHECKING:
    from mitoscope.learning.devices import Place
    from mitoscope.learning.networks import PatchNetwork

_AT_ONCE = 4096  # windows in memory: 200 MB of 128 px


def load_detector(model: str) -> "tuple[PatchNetwork, dict[str, Any]]":
    """A network and what its file says beside the weights: `fields`, `field_head`, `field_threshold` and more.

    Args:
        model: a file best.pt, `runs:/<run>/best` or `models:/<name>@<alias>`.

    Raises:
        InputError: there is no such model, or it was saved without what whole fields need.
    """
    from mitoscope.detection.field_head import FieldHead
    from mitoscope.learning import checkpoints
    from mitoscope.tracking.models import network_file

    with network_file(model) as path:
        network, kept = checkpoints.load_network(path)
    if "typical_spread" not in kept.get("fields", {}):
        raise InputError(f"{model}: was saved without its settings for whole fields; train it again with `dvc repro`")
    kept["fields"].setdefault("views", 1)  # files from before there was a choice lack this and the next
    head, kept["field_head"] = kept.get("field_head"), None
    if kept["fields"].setdefault("refit_fields", False):
        try:
            kept["field_head"] = FieldHead.restore(head, network.channels)
        except ValueError as error:
            raise InputError(
                f"{model}: its head of whole fields does not fit the network; train it again with `dvc repro`"
            ) from error
    return network, kept


def detect_field(
    image: Image,
    mask: Mask | None,
    network: "PatchNetwork",
    kept: dict[str, Any],
    place: "Place",
    microns_per_pixel: float,
) -> tuple[Centres, npt.NDArray[np.float64]]:
    """Detect the mitoses of one field as training and evaluation would.

    Args:
        image: (H, W, 3) uint8 RGB.
        mask: (H, W) bool, where candidates may lie; None = anywhere.
        network: from the model's file.
        kept: the rest of that file, with `fields`, `field_head` and `field_threshold`.
        place: where to compute.
        microns_per_pixel: of the image; it is resized to the pixel size that the network knows.

    Returns:
        (N, 2) row, col in the image's pixels, and (N,) probabilities, the highest first.
    """
    from mitoscope.detection.calibration import calibrate
    from mitoscope.learning.batches import PatchSet
    from mitoscope.learning.scoring import pool_patches, score_patches

    settings, head = kept["fields"], kept["field_head"]
    zoom = microns_per_pixel / settings["microns_per_pixel"]
    known, normalised = normalise(resize(image, zoom), settings["stain"])
    if settings["stain"] != "none" and not normalised:
        console.print("too little tissue to normalise the stain of the next field: left as it is", style="yellow")
    if mask is not None:
        size = (known.shape[1], known.shape[0])
        mask = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST).astype(np.bool_)
    area_mm2 = known.shape[0] * known.shape[1] * settings["microns_per_pixel"] ** 2 / 1e6
    candidates = find_candidates(
        known,
        mask,
        count=math.ceil(settings["candidates_per_mm2"] * area_mm2),
        sigma=settings["sigma"],
        window=settings["peak_window"],
    )
    reduced = resize(known, settings["scale"])
    score = pool_patches if head else score_patches
    scored: list[npt.NDArray[Any]] = []
    for start in range(0, len(candidates), _AT_ONCE):
        some = slice(start, start + _AT_ONCE)
        centres = to_scale(candidates[some], settings["scale"])
        windows, _ = cut_windows(reduced, centres, window_size(network.patch_size))
        numbers = np.arange(len(windows))
        patches = PatchSet([windows], np.zeros_like(numbers), numbers, np.zeros_like(numbers))
        scored.append(score(network, patches, place, views=settings["views"]))
    if not scored:
        return np.empty((0, 2)), np.empty(0)
    answers = np.concatenate(scored)
    probabilities: npt.NDArray[np.float64] = head.probabilities(answers) if head else answers
    if settings["typical_spread"] is not None:
        probabilities = calibrate(probabilities, settings["typical_spread"])
    found = np.flatnonzero(probabilities >= kept["field_threshold"])
    found = found[suppress(candidates[found], probabilities[found], MATCH_UM / settings["microns_per_pixel"])]
    return to_scale(candidates[found], 1 / zoom), probabilities[found]
