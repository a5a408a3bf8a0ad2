"""A folder of labelled fields, read for one detector without a patch store: its test on other people's data."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from mitoscope.cluster import results
from mitoscope.datasets.annotations import Centres, read_centres
from mitoscope.datasets.conflicts import find_conflicts, hash_pixels
from mitoscope.datasets.fields import Description, FieldOfView, PixelSize, pixel_size
from mitoscope.datasets.readers import read_candidate_mask, read_picture
from mitoscope.detection.detector import Detector
from mitoscope.detection.stored import StoredFields
from mitoscope.errors import InputError
from mitoscope.histology.prepared import prepare
from mitoscope.histology.windows import FieldWindows
from mitoscope.learning.batches import Windows
from mitoscope.params import Extract


class LabelledFolder(NamedTuple):
    """The fields of a folder with their mitoses and the candidates of one detector.

    Attributes:
        stored: as from a patch store; the windows are cut from the images on access.
        sizes: pixel size of every field and where it is from, by name PP_FF.
        unnormalised: number of fields with too little tissue to normalise their stain, as the detector asks for.
    """

    stored: StoredFields
    sizes: dict[str, PixelSize]
    unnormalised: int


@dataclass(frozen=True)
class _Field:
    """What is kept of a field: positions, (N, 2) row, col in px, and facts; no pixels."""

    candidates: Centres
    mitoses: Centres
    size: PixelSize
    area_mm2: float
    pixels_sha256: str
    normalised: bool


@dataclass(frozen=True, eq=False)
class _WindowsOfField:
    """The windows around the candidates of one field, which is read again when they are needed."""

    field: FieldOfView
    points: Centres
    microns_per_pixel: float
    settings: Extract

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, record: int, /) -> npt.NDArray[np.uint8]:
        return _prepare(self)[record]


@lru_cache(maxsize=1)  # scoring goes from field to field; all fields of a folder would fill the memory
def _prepare(windows: _WindowsOfField) -> FieldWindows:
    prepared = prepare(read_picture(windows.field.image), windows.microns_per_pixel, windows.settings)
    return prepared.windows(windows.points)


def read_folder(
    fields: Sequence[FieldOfView],
    description: Description,
    detector: Detector,
    on_field: Callable[[int, int], None] | None = None,
) -> LabelledFolder:
    """Read the images and mitoses of labelled fields, and find the candidates of a detector.

    Args:
        fields: the fields of the folder, at least one.
        description: its dataset.yaml.
        detector: tells how a field becomes candidates and windows.
        on_field: called with the number of fields read and the total.

    Raises:
        InputError: an image, a CSV or a mask is bad, pixels are too far from those of the detector's training, two
            patients have the same image, or only some fields have a known pixel size.
    """
    found: dict[str, _Field] = {}
    for field, read in zip(fields, results(partial(_read_field, description, detector), fields), strict=True):
        found[field.name] = read
        if on_field:
            on_field(len(found), len(fields))
    digests, sources = [read.pixels_sha256 for read in found.values()], [read.size.source for read in found.values()]
    if conflict := next(find_conflicts(fields, digests, sources), None):
        raise InputError(conflict)
    images: dict[str, list[str]] = {}
    for field, digest in zip(fields, digests, strict=True):
        images.setdefault(field.patient, []).append(digest)
    stores = [
        _WindowsOfField(field, read.candidates, read.size.microns, detector.extract)
        for field, read in zip(fields, found.values(), strict=True)
    ]
    stored = StoredFields(
        windows=Windows(
            stores,
            store=np.repeat(np.arange(len(stores)), [len(store) for store in stores]),
            record=np.concatenate([np.arange(len(store)) for store in stores]),
        ),
        candidates=_table(fields, [read.candidates for read in found.values()]),
        truths=_table(fields, [read.mitoses for read in found.values()]),
        microns_per_pixel={name: read.size.microns for name, read in found.items()},
        areas_mm2={name: read.area_mm2 for name, read in found.items()},
        domains={field.name: field.domain for field in fields},
        images=images,
    )
    sizes = {name: read.size for name, read in found.items()}
    return LabelledFolder(stored, sizes, sum(not read.normalised for read in found.values()))


def _read_field(description: Description, detector: Detector, field: FieldOfView) -> _Field:
    picture = read_picture(field.image)
    size = pixel_size(field.microns_per_pixel, picture.microns_per_pixel, description)
    try:
        detector.check_pixels(size.microns)
    except InputError as error:
        raise InputError(f"{field.image}: {error} ({size.source} gives it)") from error
    mitoses = read_centres(field, picture.shape, description.annotation_order)
    prepared = prepare(picture, size.microns, detector.extract)
    return _Field(
        candidates=prepared.candidates(read_candidate_mask(field.image, picture.shape)),
        mitoses=mitoses,
        size=size,
        area_mm2=prepared.area_mm2,
        pixels_sha256=hash_pixels(picture.pixels),
        normalised=prepared.normalised or detector.extract.stain == "none",
    )


def _table(fields: Sequence[FieldOfView], points: Sequence[Centres]) -> pd.DataFrame:
    """Return patient, field, row and col of the points of each field, with the two decimals of the patch store."""
    counts = [len(centres) for centres in points]
    rows, cols = np.concatenate(points).round(2).T
    return pd.DataFrame(
        {
            "patient": np.repeat(np.array([field.patient for field in fields], dtype=object), counts),
            "field": np.repeat(np.array([field.field for field in fields], dtype=object), counts),
            "row": rows,
            "col": cols,
        }
    )
