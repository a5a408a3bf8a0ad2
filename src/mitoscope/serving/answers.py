"""Answer each row of a table with a detector."""

from typing import Any

import pandas as pd

from mitoscope.detection.detector import Detector
from mitoscope.errors import InputError
from mitoscope.learning.batches import Windows
from mitoscope.serving.rows import FieldRow, Patches, PatchRow, RowRejected, read_rows


def answer(detector: Detector, table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return one answer per row, in the order of the rows.

    For a field: `{"mitoses": [{"row", "col", "probability"}, ...], "threshold"}`, the result of `Detector.detect`, with
    the most probable mitosis first, and row and col in pixels of the field. For a patch: `{"probability", "mitosis"}`,
    where `mitosis` says whether the probability reaches the detector's threshold for single patches.

    Args:
        detector: the detector.
        table: input of `rows.read_rows`.

    Raises:
        MlflowException: the table has neither a column of fields nor one of patches.
        RowRejected: a row cannot be answered. All rows are checked before any is answered.
    """
    rows = read_rows(table, detector.model.patch_size)
    sizes = {row.row: _pixels_for(detector, row) for row in rows if isinstance(row, FieldRow)}
    patches = [row for row in rows if isinstance(row, PatchRow)]
    probabilities = iter(detector.classify(Windows.of(Patches(patches))).tolist())
    return [
        _answer_field(detector, row, sizes[row.row])
        if isinstance(row, FieldRow)
        else _answer_patch(detector, next(probabilities))
        for row in rows
    ]


def _pixels_for(detector: Detector, row: FieldRow) -> float:
    """Return the pixel size to use for a field, um, if the detector takes the field."""
    try:
        return row.field.pixels_for(detector, row.microns_per_pixel)
    except InputError as error:
        raise RowRejected(row.row, str(error)) from error


def _answer_field(detector: Detector, row: FieldRow, microns: float) -> dict[str, Any]:
    found = detector.detect(row.decode(), microns)
    mitoses = [
        {"row": point[0], "col": point[1], "probability": probability}
        for point, probability in zip(found.points.tolist(), found.probabilities.tolist(), strict=True)
    ]
    return {"mitoses": mitoses, "threshold": detector.threshold}


def _answer_patch(detector: Detector, probability: float) -> dict[str, Any]:
    return {"probability": probability, "mitosis": probability >= detector.patch_threshold}
