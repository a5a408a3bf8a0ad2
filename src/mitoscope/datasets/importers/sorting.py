"""What the readers of annotation files share: names of images, centres of outlines, and sorting by image and class."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mitoscope.datasets.importers import Annotations, Found
from mitoscope.datasets.importers.classes import SUSPECT, Classes, Kind
from mitoscope.errors import InputError

UNCLASSIFIED = "Unclassified"  # as QuPath calls it
_LARGEST = 2**30  # bytes of an annotation file; the largest published ones have about 100 MB
_FARTHEST = 1e9  # px; no image is that large
_MOST_NAMES = 8
_MOST_IMAGES = 5
_DECIMALS = 3  # of a position in px
QUPATH_CORNER = 0.5  # px; in QuPath (0, 0) is the corner of the first pixel, here it is the pixel's middle

Points = npt.NDArray[np.float64]


class Sorter:
    """Sorts annotations by image and class, and counts what is left out.

    Args:
        paths: the files or folders of the annotations, for the messages.
        classes: the classes that are taken.
    """

    def __init__(self, paths: Sequence[Path], classes: Classes) -> None:
        self._source = str(paths[0]) if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"
        self._classes = classes
        self._centres: dict[str, dict[Kind, list[tuple[float, float]]]] = {}
        self._others: dict[str, Counter[str]] = {}
        self._left_out: Counter[str] = Counter()
        self._remarks: Counter[str] = Counter()

    def add_image(self, image: str) -> None:
        """Note that somebody has annotated this image, perhaps without finding a mitosis."""
        self._centres.setdefault(image, {"mitosis": [], "lookalike": []})

    def add(self, image: str, name: str, centre: tuple[float, float]) -> None:
        """Add one annotation.

        Args:
            image: name of its image.
            name: its class.
            centre: row, col in px.
        """
        kind = self._classes.kind(name)
        if kind:
            self.put(image, kind, centre)
            return
        self.add_image(image)
        if name == SUSPECT:
            self.leave_out("suspects that nobody has called a mitosis")
        else:
            self._others.setdefault(image, Counter())[name.strip() or UNCLASSIFIED] += 1

    def put(self, image: str, kind: Kind, centre: tuple[float, float]) -> None:
        """Add one annotation whose kind is known without a class."""
        self.add_image(image)
        self._centres[image][kind].append(centre)

    def leave_out(self, what: str) -> None:
        """Count an annotation that is neither a point nor an outline; `what` is a plural such as `lines`."""
        self._left_out[what] += 1

    def remark(self, what: str) -> None:
        """Count an annotation that is taken, but about which the user should know something."""
        self._remarks[what] += 1

    def found(self) -> Found:
        """Return everything.

        An image with annotations of other classes only is one without mitoses: they may outline a tumour. But they may
        also be mitoses of a class that nobody has named, so the notes name such images.

        Raises:
            InputError: there are annotations, but none of a known class.
        """
        others = sum(self._others.values(), Counter[str]())
        if others and not any(kinds["mitosis"] or kinds["lookalike"] for kinds in self._centres.values()):
            wanted = next(iter(self._classes.mitosis), "Mitosis")
            raise InputError(
                f"{self._source}: has no annotation of the class {wanted}, but of {_list(others)}; name the class of "
                "the mitoses with --mitosis"
            )
        notes = []
        if others:
            notes.append(f"{others.total()} annotations of other classes left out: {_list(others)}")
        if only := [image for image in self._others if not any(self._centres[image].values())]:
            named = ", ".join(f"{plain(image)}: {_list(self._others[image])}" for image in only[:_MOST_IMAGES])
            more = f" and {len(only) - _MOST_IMAGES} more" if only[_MOST_IMAGES:] else ""
            notes.append(
                f"{len(only)} images have annotations of other classes only, and are taken to have no mitosis: "
                f"{named}{more}; if one of these classes is mitoses, import again and name it with --mitosis"
            )
        notes += [f"{count} {what} left out" for what, count in self._left_out.items()]
        notes += [f"{count} {what}" for what, count in self._remarks.items()]
        by_image = {
            image: Annotations(_centres(kinds["mitosis"]), _centres(kinds["lookalike"]))
            for image, kinds in self._centres.items()
        }
        return Found(by_image, tuple(notes))


def annotation_files(paths: Sequence[Path], suffixes: Sequence[str]) -> dict[Path, str]:
    """Return the files and their names; a folder stands for the files in it that end with one of `suffixes`.

    The name of a file in a folder is its path relative to that folder, such as a/1.xml for the image a/1.tif.

    Raises:
        InputError: a path is missing or no file, or a folder has no such file.
    """
    files: dict[Path, str] = {}
    for path in paths:
        if not path.is_dir():
            if not path.is_file():
                raise InputError(f"{path}: no such file or folder; give the annotation files or their folder")
            files[path] = path.name
            continue
        inside = {file: file.relative_to(path) for file in sorted(path.rglob("*")) if file.is_file()}
        names = {
            file: name.as_posix()
            for file, name in inside.items()
            if file.name.lower().endswith(tuple(suffixes)) and not any(part.startswith(".") for part in name.parts)
        }
        if not names:
            raise InputError(f"{path}: has no file that ends with {' or '.join(suffixes)}; give the annotation files")
        files |= names
    return files


def read_content(path: Path) -> bytes:
    """Read an annotation file.

    Raises:
        InputError: it cannot be read, or is too large to be one.
    """
    try:
        if path.stat().st_size > _LARGEST:
            raise InputError(f"{path}: has more than {_LARGEST} bytes; is it an annotation file?")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def image_name(name: str, suffixes: Sequence[str]) -> str:
    """Return the name of the image that an annotation file belongs to: NAME of NAME.xml and NAME_mitoses.xml."""
    for suffix in suffixes:
        if name.lower().endswith(suffix):
            name = name[: -len(suffix)]
            break
    return name.removesuffix("_mitoses")


def name_images(files: Mapping[Path, str], suffixes: Sequence[str]) -> dict[str, Path]:
    """Return the annotation files by the names of their images.

    Args:
        files: as `annotation_files` returns them.
        suffixes: which are no part of the image's name.

    Raises:
        InputError: two files belong to one image.
    """
    named: dict[str, Path] = {}
    for path, file in files.items():
        name = image_name(file, suffixes)
        if name in named:
            raise InputError(f"{path}: annotates {plain(name)}, as {named[name]} does; give one of them")
        named[name] = path
    return named


def outline_centre(points: Points) -> tuple[Points, float]:
    """Return the centre of an outline and its area.

    Args:
        points: (N, 2) corners in any order of axes, open or closed; N is 1 or more.

    Returns:
        (2,) centre of the enclosed area, or the middle of the corners' range where it is a point or a line; the area.
    """
    origin = points[0]
    first = points - origin
    second = np.roll(first, -1, axis=0)
    cross = first[:, 0] * second[:, 1] - second[:, 0] * first[:, 1]
    area = float(cross.sum()) / 2
    extent = np.ptp(points, axis=0)
    if abs(area) <= 1e-9 * max(float(extent.max()) ** 2, 1e-9):
        return (points.min(axis=0) + points.max(axis=0)) / 2, 0.0
    centre = origin + ((first + second) * cross[:, None]).sum(axis=0) / (6 * area)
    if not ((points.min(axis=0) <= centre) & (centre <= points.max(axis=0))).all():  # an outline that crosses itself
        return (points.min(axis=0) + points.max(axis=0)) / 2, 0.0
    return centre, abs(area)


def coordinate(value: object) -> float | None:
    """Return a value of a file as a coordinate in px; None if it is no number or larger than any image."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _FARTHEST:
        return None
    return float(value)


def plain(text: str) -> str:
    """Return text from a file in one line, at most 60 characters, for a message."""
    shown = "".join(letter if letter.isprintable() else "?" for letter in text)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def _list(counts: Counter[str]) -> str:
    """Name the most frequent classes with their counts."""
    named = [f"{plain(name)} ({count})" for name, count in counts.most_common(_MOST_NAMES)]
    more = len(counts) - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "")


def _centres(centres: list[tuple[float, float]]) -> Points:
    # The centres of outlines are sums, which end in digits such as 912.5000000000001.
    return np.array(centres, dtype=np.float64).reshape(-1, 2).round(_DECIMALS)
