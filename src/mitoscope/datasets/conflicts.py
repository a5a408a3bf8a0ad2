"""What no field shows alone: the same image under two patients, and pixel sizes that only some fields have."""

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np

from mitoscope.datasets.fields import FieldOfView
from mitoscope.datasets.readers import Image


def hash_pixels(image: Image) -> str:
    """Return the SHA-256 of a field's shape and pixels, which is independent of file name and lossless format."""
    digest = hashlib.sha256(str(image.shape).encode())
    digest.update(np.ascontiguousarray(image).data)  # which copies nothing, unlike `tobytes`
    return digest.hexdigest()


def find_conflicts(fields: Sequence[FieldOfView], pixels: Sequence[str], sources: Sequence[str]) -> Iterator[str]:
    """Yield why these fields cannot be used together, as `find_copies` and `find_unknown_sizes` do."""
    yield from find_copies(fields, pixels)
    yield from find_unknown_sizes(fields, sources)


def find_copies(fields: Sequence[FieldOfView], pixels: Sequence[str]) -> Iterator[str]:
    """Yield one line if two patients have the same image; `pixels` are the `hash_pixels` of the fields."""
    owners: dict[str, FieldOfView] = {}
    firsts = [owners.setdefault(digest, field) for field, digest in zip(fields, pixels, strict=True)]
    copies = [(field, first) for field, first in zip(fields, firsts, strict=True) if first.patient != field.patient]
    if copies:
        field, first = copies[0]
        more = f" ({len(copies)} images are such copies)" if len(copies) > 1 else ""
        yield (
            f"{field.image}: has the pixels of {first.image.name}, which is of another patient{more}, so one patient "
            "would be in training and test; remove one of them"
        )


def find_unknown_sizes(fields: Sequence[FieldOfView], sources: Sequence[str]) -> Iterator[str]:
    """Yield one line if only some fields have a known pixel size.

    Args:
        fields: the fields.
        sources: where the pixel size of each is from, as in `datasets.fields.PixelSize`.
    """
    unknown = [field for field, source in zip(fields, sources, strict=True) if source == "default"]
    if unknown and len(unknown) < len(fields):
        yield (
            f"{unknown[0].image}: has no known pixel size, like {len(unknown)} of {len(fields)} fields; write it into "
            "fields.csv, or microns_per_pixel into dataset.yaml"
        )
