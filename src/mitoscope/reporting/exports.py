"""The files that detection writes: a CSV, a GeoJSON and a JSON per field, and a summary of all fields."""

import csv
import io
import json
import math
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mitoscope.datasets.annotations import Centres
from mitoscope.errors import InputError
from mitoscope.files import write_json, write_text
from mitoscope.reporting.overlays import DETECTED

Probabilities = npt.NDArray[np.floating]

# What is special about a field; the first begins with a share.
TRANSPARENT = "of it is transparent; this part has no candidates and does not count as area"
UNNORMALISED = "too little tissue for stain normalisation; left unchanged"
_CORNERS = 16
_THINNEST = 0.05  # px, of an outline at the border
_HEADER = ("field", "width", "height", "mitoses", "area_mm2", "per_mm2", "per_2mm2")
_SIZE_HEADER = ("microns_per_pixel", "pixel_size_from")


@dataclass(frozen=True)
class FieldCount:
    """Number of mitoses in one field.

    Attributes:
        name: name of the field.
        width: px.
        height: px.
        mitoses: number of detections.
        area_mm2: area of the field without its transparent parts.
        microns_per_pixel: pixel size of the field that was used, um; None for all fields together.
        pixel_size_from: what gave the pixel size.
    """

    name: str
    width: int
    height: int
    mitoses: int
    area_mm2: float
    microns_per_pixel: float | None = None
    pixel_size_from: str = ""

    @property
    def per_mm2(self) -> float:
        """Density, mitoses per square millimetre."""
        return self.mitoses / self.area_mm2

    @property
    def per_2mm2(self) -> float:
        """Mitoses per 2 mm2, the area of the ten high-power fields of Nottingham grading.

        Ten fields of 0.5 mm in diameter are 1.96 mm2. This is not a mitotic score, which is counted where mitoses are
        densest.
        """
        return 2 * self.per_mm2


def write_detections_csv(path: Path, centres: Centres, probabilities: Probabilities) -> None:
    """Write the detections of a field as CSV with the header `row,col,probability`, in the order given.

    Args:
        path: the CSV.
        centres: (N, 2) row, col in full-resolution px, written with 2 decimals.
        probabilities: (N,), written with 6 decimals.
    """
    rows = zip(centres.tolist(), probabilities.tolist(), strict=True)
    lines = [f"{row:.2f},{col:.2f},{probability:.6f}\n" for (row, col), probability in rows]
    write_text(path, "".join(["row,col,probability\n", *lines]))


class Annotation(NamedTuple):
    """An annotation for QuPath.

    Attributes:
        row: px.
        col: px.
        kind: its class in QuPath.
        colour: RGB of the class, for a QuPath that does not have it yet.
        name: what the list of annotations shows; may be empty.
        measurements: values by name.
    """

    row: float
    col: float
    kind: str = "Mitosis"
    colour: tuple[int, int, int] = DETECTED.colour
    name: str = ""
    measurements: Mapping[str, float] = {}


def detected_annotations(centres: Centres, probabilities: Probabilities) -> list[Annotation]:
    """Return the detections of a field as annotations, in the order given.

    Args:
        centres: (N, 2) row, col in full-resolution px.
        probabilities: (N,), the measurement "Probability".
    """
    return [
        Annotation(row, col, measurements={"Probability": probability})
        for (row, col), probability in zip(centres.tolist(), probabilities.tolist(), strict=True)
    ]


def write_annotations(
    path: Path, annotations: Sequence[Annotation], *, radius: float, shape: tuple[int, int], points: bool = False
) -> None:
    """Write annotations of a field as GeoJSON, as `geojson` returns them.

    Raises:
        ValueError: a number is not finite.
    """
    content = geojson(annotations, radius=radius, shape=shape, points=points)
    write_text(path, json.dumps(content, allow_nan=False) + "\n")


def geojson(
    annotations: Sequence[Annotation], *, radius: float, shape: tuple[int, int], points: bool = False
) -> dict[str, Any]:
    """Return annotations of a field as GeoJSON for QuPath (0.3 and later).

    In QuPath (0, 0) is the top left corner of the first pixel; in this project it is the pixel's centre. So
    x = col + 0.5 and y = row + 0.5. Ids depend only on the content: the same annotations give the same file.

    Every outline lies inside the image: near the border the circle becomes an ellipse round the same centre, so that
    the centre of an outline is always that of the annotation, also after QuPath has written it again.

    Source: "Exporting annotations" in QuPath's documentation (the origin), and its QuPathTypeAdapters.java and
    GsonTools.java, which read and write the format.

    Args:
        annotations: in the order of the file; measurements are rounded to 6 decimals.
        radius: radius of the outlines, px.
        shape: rows and columns of the image.
        points: points instead of outlines.
    """
    features = []
    for number, (row, col, kind, colour, name, measurements) in enumerate(annotations):
        x, y = col + 0.5, row + 0.5
        if points:
            geometry = {"type": "Point", "coordinates": [round(x, 2), round(y, 2)]}
        else:
            geometry = {"type": "Polygon", "coordinates": [_ring(x, y, radius, shape)]}
        # The number makes the ids of equal annotations differ.
        values = "".join(f"{value:.6f} " for value in measurements.values())
        identity = f"mitoscope {number} {row:.2f} {col:.2f} {values}{radius:.2f}"
        properties = {
            "objectType": "annotation",
            **({"name": name} if name else {}),
            "classification": {"name": kind, "color": list(colour)},
            "measurements": {key: round(value, 6) for key, value in measurements.items()},
        }
        feature = {"type": "Feature", "id": str(uuid.uuid5(uuid.NAMESPACE_OID, identity))}
        features.append(feature | {"geometry": geometry, "properties": properties})
    return {"type": "FeatureCollection", "features": features}


def write_evaluator_json(
    path: Path, centres: Centres, probabilities: Probabilities, *, microns_per_pixel: float
) -> None:
    """Write the detections of a field as "Multiple points" in mm, for the evaluators of MIDOG and grand-challenge.

    x = col and y = row times the pixel size, with the origin in the middle of the first pixel; z is 0.

    MIDOG also takes candidates below the threshold, named "non-mitotic figure", for its average precision. They are
    left out here: the F1 score is the same, and the average precision that of the detections alone.

    Source: the README of DeepMicroscopy/MIDOG25_T1_reference_docker, and of MIDOG 2025's evaluation container.

    Args:
        path: the JSON.
        centres: (N, 2) row, col in full-resolution px.
        probabilities: (N,).
        microns_per_pixel: pixel size of the image, um.

    Raises:
        ValueError: a number is not finite.
    """
    scale = microns_per_pixel / 1000
    points = [
        {
            "name": "mitotic figure",
            "point": [round(col * scale, 7), round(row * scale, 7), 0],
            "probability": round(probability, 6),
        }
        for (row, col), probability in zip(centres.tolist(), probabilities.tolist(), strict=True)
    ]
    version = {"major": 1, "minor": 0}
    write_json(path, {"name": "Points of interest", "type": "Multiple points", "points": points, "version": version})


def write_summary(path: Path, counts: Sequence[FieldCount]) -> None:
    """Write a CSV with one row per field, and a last row `all` with the pooled count, area and densities.

    The pooled density is the sum of the mitoses divided by the sum of the areas. `counts` has at least one field.
    """
    whole = FieldCount("all", 0, 0, sum(count.mitoses for count in counts), sum(count.area_mm2 for count in counts))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")  # quotes names that contain a comma
    writer.writerow([*_HEADER, *_SIZE_HEADER])
    for count in [*counts, whole]:
        size = ("", "") if count is whole else (count.width, count.height)
        figures = (f"{count.area_mm2:.9g}", f"{count.per_mm2:.2f}", f"{count.per_2mm2:.2f}")
        microns = "" if count.microns_per_pixel is None else f"{count.microns_per_pixel:.6g}"
        writer.writerow([count.name, *size, count.mitoses, *figures, microns, count.pixel_size_from])
    write_text(path, text.getvalue())


def read_counts(path: Path) -> list[FieldCount]:
    """Read the rows of a summary that `write_summary` wrote, without the last one.

    Raises:
        InputError: the file is not such a summary.
    """
    try:
        first, *rows = csv.reader(io.StringIO(path.read_text(encoding="utf-8"), newline=""))
        if tuple(first) != (*_HEADER, *_SIZE_HEADER):
            raise ValueError("another header")
        counts = [
            FieldCount(name, int(width), int(height), int(mitoses), float(area), float(microns), source)
            for name, width, height, mitoses, area, _, _, microns, source in rows[:-1]
        ]
        if not all(count.area_mm2 > 0 for count in counts):
            raise ValueError("a field without area")
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{path}: is no summary that this version of `mitoscope detect` wrote") from error
    return counts


def _ring(x: float, y: float, radius: float, shape: tuple[int, int]) -> list[list[float]]:
    """Return a closed ring round x, y with the radius, px, that stays inside an image of `shape` (rows, columns)."""
    rows, columns = shape
    wide, high = (max(_THINNEST, min(radius, at, size - at)) for at, size in ((x, columns), (y, rows)))
    angles = [2 * math.pi * corner / _CORNERS for corner in range(_CORNERS)]
    ring = [[round(x + wide * math.cos(angle), 2), round(y + high * math.sin(angle), 2)] for angle in angles]
    return [*ring, ring[0]]
