"""Read annotations in the XML of Aperio ImageScope.

<Annotations><Annotation Id="1" Name="Mitosis"><Regions><Region Type="2" Text=""><Vertices><Vertex X="10" Y="20"/>
"""

from collections.abc import Sequence
from pathlib import Path
from xml.parsers import expat

import numpy as np

from mitoscope.datasets.importers import Found
from mitoscope.datasets.importers.classes import Classes
from mitoscope.datasets.importers.sorting import (
    Sorter,
    annotation_files,
    coordinate,
    name_images,
    outline_centre,
    plain,
    read_content,
)
from mitoscope.errors import InputError

SUFFIXES = (".xml",)
_ARROW, _RULER = "3", "4"  # types of regions; 0 is drawn by hand, 1 a rectangle, 2 an ellipse
_BOXES = ("1", "2")


def read_imagescope(paths: Sequence[Path], classes: Classes) -> Found:
    """Read annotations of ImageScope: NAME.xml belongs to the image NAME.

    The centre of a region is one figure. Its class is its text, if that names a class that is taken; else the name of
    its layer, else an attribute of its layer. A layer without any name is called `layer` and its Id. Rulers, arrows
    (which of their ends is the tip is not written) and regions that are cut out are left out and counted.

    X and Y are taken as they are: row = Y, col = X. Whether ImageScope counts from the corner or the middle of the
    first pixel is not documented; the difference is half a pixel.

    Args:
        paths: files .xml, or folders of them.
        classes: the classes that are taken.

    Raises:
        InputError: a file cannot be read, is not ImageScope's, or has no annotation of a known class but others.
    """
    files = name_images(annotation_files(paths, SUFFIXES), SUFFIXES)
    sorter = Sorter(paths, classes)
    for image, path in files.items():
        sorter.add_image(image)
        _File(path, image, sorter, classes).read()
    return sorter.found()


class _File:
    """Reads one file element by element; what is open is in the attributes."""

    def __init__(self, path: Path, image: str, sorter: Sorter, classes: Classes) -> None:
        self.path = path
        self.image = image
        self.sorter = sorter
        self.classes = classes
        self.root = ""
        self.regions_seen = self.vertices_seen = 0
        self.names: list[str] = []  # of the layer: its name, then its attributes
        self.number = ""  # of the layer
        self.regions: list[tuple[dict[str, str], list[tuple[float, float]]]] = []  # of the layer
        self.in_region = False

    def read(self) -> None:
        parser = expat.ParserCreate()
        parser.StartDoctypeDeclHandler = self._reject
        parser.StartElementHandler = self._open
        parser.EndElementHandler = self._close
        try:
            parser.Parse(read_content(self.path), True)
        except (expat.ExpatError, ValueError, LookupError) as error:
            raise InputError(f"{self.path}: is not an XML file, or is cut off ({error}); export it again") from error
        if self.root != "Annotations" or (self.regions_seen and not self.vertices_seen):
            raise InputError(
                f"{self.path}: is XML, but has no Annotations with vertices as ImageScope writes them; export it as "
                "GeoJSON or CSV"
            )

    def _reject(self, *_: object) -> None:
        # Entities, which are defined there, can grow to any size or name other files.
        raise InputError(f"{self.path}: has a DOCTYPE, which ImageScope never writes; the file is not safe")

    def _open(self, tag: str, attributes: dict[str, str]) -> None:
        self.root = self.root or tag  # others, such as ASAP, have Annotations inside of their own
        if tag == "Annotation":
            self.names, self.number, self.regions = [attributes.get("Name", "")], attributes.get("Id", "?"), []
        elif tag == "Attribute" and not self.in_region:
            value, name = attributes.get("Value", ""), attributes.get("Name", "")
            self.names += [value, name] if name != "Description" else [value]
        elif tag == "Region":
            self.regions_seen += 1
            self.regions.append((attributes, []))
            self.in_region = True
        elif tag == "Vertex" and self.regions:
            self.vertices_seen += 1
            self.regions[-1][1].append(self._vertex(attributes))

    def _close(self, tag: str) -> None:
        if tag == "Region":
            self.in_region = False
        elif tag == "Annotation":  # only now all names of the layer are known
            for attributes, corners in self.regions:
                self._sort(attributes, corners)
            self.regions = []

    def _vertex(self, attributes: dict[str, str]) -> tuple[float, float]:
        """Return row, col."""
        numbers = []
        for name in ("Y", "X"):
            text = attributes.get(name, "").replace(",", ".")  # of a Windows with decimal commas
            try:
                number = coordinate(float(text))
            except ValueError:
                number = None
            if number is None:
                raise InputError(f"{self.path}: a vertex has {name} {plain(repr(text))}, which is not a position in px")
            numbers.append(number)
        return numbers[0], numbers[1]

    def _sort(self, attributes: dict[str, str], corners: list[tuple[float, float]]) -> None:
        kind = attributes.get("Type", "0")
        if kind in (_ARROW, _RULER):
            self.sorter.leave_out("arrows" if kind == _ARROW else "rulers")
            return
        if attributes.get("NegativeROA", "0") not in ("", "0"):
            self.sorter.leave_out("regions that are cut out")
            return
        if not corners:
            self.sorter.leave_out("regions without a vertex")
            return
        points = np.array(corners, dtype=np.float64)
        if kind in _BOXES:  # two corners of the box, or four
            centre = (points.min(axis=0) + points.max(axis=0)) / 2
        else:
            centre, _ = outline_centre(points)
        text = attributes.get("Text", "").strip()
        names = [name for name in (text, *self.names) if name.strip()]
        known = next((name for name in names if self.classes.kind(name)), None)
        layer = next((name for name in (*self.names, text) if name.strip()), f"layer {self.number}")
        if known and text and known != text:
            self.sorter.remark("regions have a text that names no class; the class of their layer is taken")
        self.sorter.add(self.image, known or layer, (float(centre[0]), float(centre[1])))
