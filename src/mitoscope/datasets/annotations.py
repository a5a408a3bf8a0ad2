"""Mitosis centres, read from a CSV per field or from the discs in Janowczyk's `_pc.png`, and distances to them."""

import math
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from scipy.spatial import KDTree

from mitoscope.datasets.fields import FieldOfView
from mitoscope.datasets.images import read_mask
from mitoscope.errors import InputError
from mitoscope.files import write_text

Centres = npt.NDArray[np.float64]


def read_centres(field: FieldOfView, shape: tuple[int, int], order: str = "row,col") -> Centres:
    """Read the mitosis centres of a field of `shape` (rows, columns) as (N, 2) float64: row, col in pixels.

    They come from the CSV, or from the discs in `_pc.png` if there is no CSV; without either file the field has no
    mitoses. `order` is the dataset's `annotation_order`.

    Raises:
        InputError: the file cannot be read, or a row is not two numbers, lies outside the image or repeats a centre.
    """
    centres, problems = scan_centres(field, shape, order)
    if problems:
        raise InputError(problems[0])
    return centres


def scan_centres(field: FieldOfView, shape: tuple[int, int], order: str = "row,col") -> tuple[Centres, list[str]]:
    """Read the centres like `read_centres`, but continue after a bad row and collect the problems of all rows.

    Raises:
        InputError: the file as a whole cannot be read.
    """
    path = field.annotation
    if not path.exists():
        return (_disc_centres(field.mask("pc"), shape) if field.mask("pc").exists() else np.empty((0, 2))), []
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not a text file; expected one `{order}` per line") from error
    seen: dict[tuple[float, float], int] = {}
    problems = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        numbers = _two_numbers(line)
        if numbers is None:
            problems.append(f"{path}: row {number}: {line.strip()[:60]!r} is not two numbers; expected `{order}`")
            continue
        row, col = numbers if order == "row,col" else numbers[::-1]
        if not (0 <= row < shape[0] and 0 <= col < shape[1]):
            problems.append(
                f"{path}: row {number}: row {row:g}, col {col:g} lies outside the image of {shape[0]} rows and "
                f"{shape[1]} columns; is annotation_order in dataset.yaml correct ({order})?"
            )
        elif (row, col) in seen:
            problems.append(f"{path}: row {number}: the same centre as row {seen[row, col]}; remove one of them")
        else:
            seen[row, col] = number
    return np.array(list(seen), dtype=np.float64).reshape(-1, 2), problems


def write_centres(path: Path, centres: Centres) -> None:
    """Write (N, 2) mitosis centres as `row,col` lines at full precision."""
    write_text(path, "".join(f"{float(row)!r},{float(col)!r}\n" for row, col in centres))


def distance_to_nearest(points: Centres, centres: Centres) -> npt.NDArray[np.float64]:
    """Return the (N,) distances from (N, 2) points to the nearest of (M, 2) centres, in their unit; NaN if M is 0."""
    if not len(centres):
        return np.full(len(points), np.nan)
    distances, _ = KDTree(centres).query(points)
    return np.asarray(distances, dtype=np.float64)


def _two_numbers(line: str) -> tuple[float, float] | None:
    """Return the two finite numbers of a CSV line, or None if it contains anything else."""
    try:
        first, second = (float(cell) for cell in line.split(","))
    except ValueError:
        return None
    return (first, second) if math.isfinite(first) and math.isfinite(second) else None


def _disc_centres(path: Path, shape: tuple[int, int]) -> Centres:
    """Return the centroids (row, col) of the connected components of a `_pc.png`."""
    mask = read_mask(path, shape).astype(np.uint8)
    _, _, _, centroids = cv2.connectedComponentsWithStats(mask, connectivity=8)
    return centroids[1:, ::-1].astype(np.float64)  # the first is the background; OpenCV returns x, y
