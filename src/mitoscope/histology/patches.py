"""The patch store: one array of windows per field and one index of all.

A window is wider than a patch, so that the patch can be cropped at any rotation from real pixels; rotations are
therefore not stored. The store knows nothing of training, validation and test: `train` joins `results/split.csv`.
It holds the annotated centres (label 1) and every candidate, as whole fields are scored by their candidates alone:
one near a mitosis has label 1 too, and `is_sample` tells it from the samples of the patch level.

    patches/01_02.npy     (N, S, S, 3) uint8 RGB, read memory-mapped
    patches/index.csv     one row per window, COLUMNS; the windows of a field are numbered by `record`
    patches/summary.json  counts, what was dropped and why, the settings and a digest of the content
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd

from mitoscope.errors import InputError
from mitoscope.histology.blue_ratio import find_candidates, to_scale
from mitoscope.histology.fields import Centres, FieldOfView, Image, read_candidate_mask, read_centres, read_image
from mitoscope.histology.stain import Method as Stain
from mitoscope.histology.stain import normalise

COLUMNS = ("patient", "field", "label", "center", "row", "col", "source", "distance", "edge", "record")

Windows = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class FieldPatches:
    """What one field gave: its index rows, their windows, its area, and whether its stain could be normalised."""

    index: pd.DataFrame
    windows: Windows
    area_mm2: float
    normalised: bool


def window_size(patch_size: int) -> int:
    """Side of the window from which a patch can be cropped at any angle, of the same parity as the patch.

    The patch's corner pixel lies (patch_size - 1) / sqrt 2 from its middle, and must lie between pixels of the window.
    """
    side = math.ceil((patch_size - 1) * math.sqrt(2) + 1)
    return side + (side - patch_size) % 2


def resize(image: Image, scale: float) -> Image:
    """Resize an (H, W, 3) image: reduced (`scale` < 1) by averaging pixels, enlarged by cubic interpolation."""
    if scale == 1:
        return image
    size = tuple(max(1, round(side * scale)) for side in (image.shape[1], image.shape[0]))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, size, interpolation=how), dtype=np.uint8)


def cut_windows(image: Image, centres: Centres, size: int) -> tuple[Windows, npt.NDArray[np.bool_]]:
    """Cut a window around each centre; outside the image it is the reflected border.

    Args:
        image: (H, W, 3) uint8.
        centres: (N, 2) row, col in this image.
        size: side of the windows, px.

    Returns:
        (N, size, size, 3) uint8, and (N,) bool: part of the window is reflected border.
    """
    rows, columns = image.shape[:2]
    pad = size // 2 + 1
    padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)), mode="reflect")
    corners = np.floor(centres - (size - 1) / 2 + 0.5).astype(int)
    windows = np.empty((len(centres), size, size, 3), np.uint8)
    for window, (top, left) in zip(windows, corners + pad, strict=True):
        window[:] = padded[top : top + size, left : left + size]
    edge = (corners < 0).any(axis=1) | (corners + size > (rows, columns)).any(axis=1)
    return windows, np.asarray(edge, dtype=np.bool_)


def extract_field(
    field: FieldOfView,
    *,
    stain: Stain,
    scale: float,
    patch_size: int,
    sigma: float,
    peak_window: int,
    candidates_per_mm2: float,
    exclusion_um: float,
    microns_per_pixel: float,
    annotation_order: str,
) -> FieldPatches:
    """Cut the windows of one field: its mitoses, the candidates near them, the other candidates; strongest first.

    Raises:
        InputError: the image, the CSV or the mask is bad.
    """
    image = read_image(field.image)
    shape = (image.shape[0], image.shape[1])
    centres = read_centres(field, shape, annotation_order)
    mask = read_candidate_mask(field.image, shape)
    image, normalised = normalise(image, stain)
    area_mm2 = shape[0] * shape[1] * microns_per_pixel**2 / 1e6
    candidates = find_candidates(
        image, mask, count=math.ceil(candidates_per_mm2 * area_mm2), sigma=sigma, window=peak_window
    )
    distance_um = nearest(candidates, centres) * microns_per_pixel
    near = distance_um <= exclusion_um  # false for NaN: without a mitosis nothing is near one
    places = np.concatenate([centres, candidates[near], candidates[~near]])
    windows, edge = cut_windows(resize(image, scale), to_scale(places, scale), window_size(patch_size))
    positives, negatives = len(centres) + int(near.sum()), int((~near).sum())
    index = pd.DataFrame(
        {
            "patient": field.patient,
            "field": field.field,
            "label": np.repeat([1, 0], (positives, negatives)),
            "center": np.concatenate([np.arange(positives), np.arange(negatives)]),
            "row": places[:, 0].round(2),
            "col": places[:, 1].round(2),
            "source": np.repeat(["annotation", "candidate"], (len(centres), len(candidates))),
            "distance": np.concatenate([np.zeros(len(centres)), distance_um[near], distance_um[~near]]).round(2),
            "edge": edge,
            "record": np.arange(len(places)),
        },
        columns=list(COLUMNS),
    )
    return FieldPatches(index, windows, area_mm2, normalised)


def is_sample(index: pd.DataFrame) -> "pd.Series[bool]":
    """Which rows of the index are samples of the patch level: the annotated centres, and candidates far from them."""
    return (index.source == "annotation") | (index.label == 0)


def nearest(points: Centres, centres: Centres) -> npt.NDArray[np.float64]:
    """Distance from each of (N, 2) points to the nearest of (M, 2) centres, in their unit; NaN where M is 0."""
    if not len(centres):
        return np.full(len(points), np.nan)
    return np.asarray(np.linalg.norm(points[:, None] - centres[None], axis=2).min(axis=1), dtype=np.float64)


def store_path(patches: Path, patient: str, field: str) -> Path:
    """The array of one field in the folder `patches`."""
    return patches / f"{patient}_{field}.npy"


def read_index(patches: Path) -> pd.DataFrame:
    """Read `index.csv` of the folder `patches`: COLUMNS, patient and field as text, edge as bool.

    Raises:
        InputError: there is no patch store.
    """
    path = patches / "index.csv"
    if not path.exists():
        raise InputError(f"{path}: no patch store; run `dvc repro extract` first")
    # A patient may be called NA: only an empty distance is missing.
    types = {"patient": str, "field": str, "edge": bool}
    return pd.read_csv(path, dtype=types, keep_default_na=False, na_values={"distance": [""]})


def read_summary(patches: Path) -> dict[str, Any]:
    """Read `summary.json` of the folder `patches`.

    Raises:
        InputError: there is no patch store.
    """
    path = patches / "summary.json"
    if not path.exists():
        raise InputError(f"{path}: no patch store; run `dvc repro extract` first")
    summary: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return summary


def sample_name(row: Any, angle: float = 0) -> str:
    """A sample's name in every table and gallery, the capstone's: `01_02_class0_center0_rot45.png`.

    `row` has the attributes patient, field, label and center, as a row of the index has.
    """
    return f"{row.patient}_{row.field}_class{row.label}_center{row.center}_rot{angle:g}.png"
