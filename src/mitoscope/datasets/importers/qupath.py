"""Read annotations in GeoJSON, as QuPath 0.3 to 0.6 and `mitoscope detect` write it.

Source: QuPath's QuPathTypeAdapters.java, ROITypeAdapters.java and GsonTools.java, which write the format.
"""

import gzip
import io
import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mitoscope.datasets.importers import Found
from mitoscope.datasets.importers.classes import Classes
from mitoscope.datasets.importers.detected import AS_WRITTEN, is_as_written
from mitoscope.datasets.importers.sorting import (
    QUPATH_CORNER,
    UNCLASSIFIED,
    Points,
    Sorter,
    annotation_files,
    coordinate,
    name_images,
    outline_centre,
    plain,
    read_content,
)
from mitoscope.errors import InputError

SUFFIXES = (".geojson", ".geojson.gz", ".json", ".json.gz")
_LARGEST = 2**30  # unpacked bytes
_LEFT_OUT = {"root": "root objects", "tile": "tiles", "tmaCore": "tissue cores"}
_FORM = "export it from QuPath as GeoJSON"


class _ShapeError(Exception):
    """A geometry that is not as GeoJSON has it."""


def read_qupath(paths: Sequence[Path], classes: Classes) -> Found:
    """Read annotations of QuPath: NAME.geojson and NAME_mitoses.geojson belong to the image NAME.

    A point, each point of a MultiPoint, and the centre of a Polygon or a MultiPolygon is one figure; for a cell, it is
    the centre of the nucleus. Lines, objects without a geometry, tiles and the like are left out and counted. An object
    without a class has the class `Unclassified`. A derived class is `Tumor: Mitosis`, as in QuPath.

    Args:
        paths: files .geojson or .json, also packed as .gz, or folders of .geojson files.
        classes: the classes that are taken.

    Raises:
        InputError: a file cannot be read, is not GeoJSON, or has no annotation of a known class but others.
    """
    files = name_images(annotation_files(paths, SUFFIXES[:2]), SUFFIXES)
    sorter = Sorter(paths, classes)
    for image, path in files.items():
        sorter.add_image(image)
        if is_as_written(path):
            sorter.remark(AS_WRITTEN)
        try:
            for place, feature in _features(path, _load(path)):
                try:
                    _sort(sorter, image, feature)
                except _ShapeError as error:
                    raise InputError(f"{path}: {place}: {error}; {_FORM}") from error
        except RecursionError as error:
            raise InputError(f"{path}: has too many brackets in brackets; {_FORM}") from error
    return sorter.found()


def _load(path: Path) -> Any:
    """Return the JSON of a file."""
    content = read_content(path)
    try:
        if content.startswith(b"\x1f\x8b"):
            content = gzip.GzipFile(fileobj=io.BytesIO(content)).read(_LARGEST + 1)
            if len(content) > _LARGEST:
                raise InputError(f"{path}: unpacks to more than {_LARGEST} bytes; is it an annotation file?")
        return json.loads(content)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: is a damaged .gz file; copy it again") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is not a JSON file; {_FORM}") from error


def _features(path: Path, content: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every feature with its place in the file, children after their parents."""
    if isinstance(content, list):
        waiting = [(f"object {number}", item) for number, item in enumerate(content, start=1)]
    elif isinstance(content, dict) and content.get("type") == "FeatureCollection":
        items = content.get("features")
        if not isinstance(items, list):
            raise InputError(f"{path}: is a FeatureCollection without features; {_FORM}")
        waiting = [(f"object {number}", item) for number, item in enumerate(items, start=1)]
    elif isinstance(content, dict) and content.get("type") == "Feature":
        waiting = [("object 1", content)]
    elif isinstance(content, dict) and content.get("type") == "Multiple points":
        raise InputError(f"{path}: has points in mm for evaluators; import the GeoJSON or, with csv, the CSV beside it")
    else:
        raise InputError(f"{path}: is JSON, but no GeoJSON with features; {_FORM}")
    seen: set[str] = set()
    for place, item in waiting:  # which grows
        if not isinstance(item, dict) or item.get("type") != "Feature":
            raise InputError(f"{path}: {place}: is no GeoJSON feature; {_FORM}")
        properties = _properties(item)
        for name in ("childObjects", "children"):
            children = properties.get(name)
            waiting += [(f"{place}, child", child) for child in children] if isinstance(children, list) else []
        identity = json.dumps([item.get("id"), item.get("geometry")])
        if item.get("id") is None or identity not in seen:  # an object may be in the list and among the children
            seen.add(identity)
            yield place, item


def _sort(sorter: Sorter, image: str, feature: dict[str, Any]) -> None:
    """Add a feature's figures to the sorter."""
    properties = _properties(feature)
    kind = properties.get("objectType", properties.get("object_type"))
    if isinstance(kind, str) and kind in _LEFT_OUT:
        sorter.leave_out(_LEFT_OUT[kind])
        return
    geometry = feature.get("nucleusGeometry") or feature.get("geometry")
    if geometry is None:
        sorter.leave_out("objects without a geometry")
        return
    centres = _centres(geometry)
    if not centres:
        sorter.leave_out("lines and empty outlines")
    name = _class_name(properties.get("classification"))
    for x, y in centres:
        sorter.add(image, name, (y - QUPATH_CORNER, x - QUPATH_CORNER))


def _properties(feature: dict[str, Any]) -> dict[str, Any]:
    properties = feature.get("properties")
    return properties if isinstance(properties, dict) else {}


def _class_name(classification: Any) -> str:
    """Return the class as QuPath shows it, from any of the forms in which its versions write it."""
    if isinstance(classification, str):
        return classification
    if isinstance(classification, dict):
        names = classification.get("names")
        if isinstance(names, list) and names and all(isinstance(name, str) for name in names):
            return ": ".join(names)
        if isinstance(classification.get("name"), str):
            return str(classification["name"])
    return UNCLASSIFIED


def _centres(geometry: Any) -> list[tuple[float, float]]:
    """Return the x, y of each figure that a geometry marks, px; none for lines and empty geometries."""
    if not isinstance(geometry, dict):
        raise _ShapeError("has no geometry with a type")
    kind, coordinates = geometry.get("type"), geometry.get("coordinates")
    if kind == "Point":
        return [_point(coordinates)]
    if kind == "MultiPoint":
        return [_point(item) for item in _items(coordinates)]
    if kind in ("LineString", "MultiLineString"):
        return []
    if kind == "Polygon":
        return _middle([_items(coordinates)])
    if kind == "MultiPolygon":
        return _middle([_items(item) for item in _items(coordinates)])
    if kind == "GeometryCollection":
        polygons = []
        for part in _items(geometry.get("geometries")):
            if isinstance(part, dict) and part.get("type") == "Polygon":
                polygons.append(_items(part.get("coordinates")))
            elif isinstance(part, dict) and part.get("type") == "MultiPolygon":
                polygons += [_items(item) for item in _items(part.get("coordinates"))]
        return _middle(polygons)
    raise _ShapeError(f"has the unknown geometry {plain(str(kind))}")


def _middle(polygons: list[list[Any]]) -> list[tuple[float, float]]:
    """Return the centre of the area of polygons, each a ring and the rings of its holes; none if there is no ring."""
    parts: list[tuple[Points, float]] = []
    for rings in polygons:
        for number, ring in enumerate(rings):
            corners = np.array([_point(corner) for corner in _items(ring)], dtype=np.float64).reshape(-1, 2)
            if len(corners):
                centre, area = outline_centre(corners)
                parts.append((centre, -area if number else area))
    if not parts:
        return []
    area = sum(size for _, size in parts)
    if area > 0:
        centre = sum((part * size for part, size in parts), np.zeros(2)) / area
    else:
        centre = np.mean([part for part, _ in parts], axis=0)
    return [(float(centre[0]), float(centre[1]))]


def _items(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise _ShapeError("has coordinates of another form than its geometry")
    return value


def _point(value: Any) -> tuple[float, float]:
    """Return x, y."""
    x, y = (coordinate(value[0]), coordinate(value[1])) if isinstance(value, list) and len(value) > 1 else (None, None)
    if x is None or y is None:
        raise _ShapeError(f"has {plain(json.dumps(value))}, which is not a position x, y in px")
    return x, y
