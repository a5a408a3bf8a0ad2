"""The files that detection writes: a CSV and a GeoJSON per field, and a summary of all fields."""

import csv
import io
import json
import math
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mitoscope.datasets.annotations import Centres
from mitoscope.files import write_text
from mitoscope.reporting.overlays import DETECTED

Probabilities = npt.NDArray[np.floating]

_CORNERS = 16


@dataclass(frozen=True)
class FieldCount:
    """Number of mitoses in one field of `width` x `height` px."""

    name: str
    width: int
    height: int
    mitoses: int
    area_mm2: float

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


def write_geojson(path: Path, centres: Centres, probabilities: Probabilities, *, radius: float) -> None:
    """Write the detections of a field as GeoJSON for QuPath (0.4 and later), one round annotation each.

    In QuPath (0, 0) is the top left corner of the first pixel; in this project it is the pixel's centre. So
    x = col + 0.5 and y = row + 0.5. Ids depend only on the content: the same detections give the same file.

    Source: "Exporting annotations" in QuPath's documentation (the origin), and its QuPathTypeAdapters.java and
    GsonTools.java, which read and write the format.

    Args:
        path: the GeoJSON.
        centres: (N, 2) row, col in full-resolution px.
        probabilities: (N,), written as the measurement "Probability".
        radius: radius of the annotations, px.

    Raises:
        ValueError: a number is not finite.
    """
    rows = zip(centres.tolist(), probabilities.tolist(), strict=True)
    features = [
        _feature(number, row, col, probability, radius) for number, ((row, col), probability) in enumerate(rows)
    ]
    collection = {"type": "FeatureCollection", "features": features}
    write_text(path, json.dumps(collection, allow_nan=False) + "\n")


def write_summary(path: Path, counts: Sequence[FieldCount]) -> None:
    """Write a CSV with one row per field, and a last row `all` with the pooled count, area and densities.

    The pooled density is the sum of the mitoses divided by the sum of the areas. `counts` has at least one field.
    """
    whole = FieldCount("all", 0, 0, sum(count.mitoses for count in counts), sum(count.area_mm2 for count in counts))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")  # quotes names that contain a comma
    writer.writerow(["field", "width", "height", "mitoses", "area_mm2", "per_mm2", "per_2mm2"])
    for count in [*counts, whole]:
        size = ("", "") if count is whole else (count.width, count.height)
        figures = (f"{count.area_mm2:.6f}", f"{count.per_mm2:.2f}", f"{count.per_2mm2:.2f}")
        writer.writerow([count.name, *size, count.mitoses, *figures])
    write_text(path, text.getvalue())


def _feature(number: int, row: float, col: float, probability: float, radius: float) -> dict[str, Any]:
    """One detection as a GeoJSON feature with QuPath's properties."""
    angles = [2 * math.pi * corner / _CORNERS for corner in range(_CORNERS)]
    x, y = col + 0.5, row + 0.5
    ring = [[round(x + radius * math.cos(angle), 2), round(y + radius * math.sin(angle), 2)] for angle in angles]
    # The number makes the ids of equal detections differ.
    identity = f"mitoscope {number} {row:.2f} {col:.2f} {probability:.6f} {radius:.2f}"
    return {
        "type": "Feature",
        "id": str(uuid.uuid5(uuid.NAMESPACE_OID, identity)),
        "geometry": {"type": "Polygon", "coordinates": [[*ring, ring[0]]]},
        "properties": {
            "objectType": "annotation",
            "classification": {"name": "Mitosis", "color": list(DETECTED.colour)},
            "measurements": {"Probability": round(probability, 6)},
        },
    }
