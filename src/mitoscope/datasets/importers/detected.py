"""Files that `mitoscope detect` wrote: a detector's output until somebody corrects them."""

from pathlib import Path

from mitoscope.errors import InputError
from mitoscope.files import hash_file, read_json

ROUNDING = 0.05  # px; `detect` and QuPath round positions to 0.01
AS_WRITTEN = "files are as `mitoscope detect` wrote them: a detector's mitoses, which nobody has corrected"


def is_as_written(geojson: Path) -> bool | None:
    """Whether this GeoJSON is as `mitoscope detect` wrote it, by the model.json beside it; None if it wrote none."""
    name = geojson.name.removesuffix("_mitoses.geojson")
    try:
        written = read_json(geojson.with_name("model.json"), "")["geojson_sha256"][name]
    except (InputError, KeyError, TypeError):  # no model.json, or another program's
        return None
    return hash_file(geojson) == written if geojson.is_file() else None
