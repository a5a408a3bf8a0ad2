"""What no field shows alone: the same image under two patients, and pixel sizes that only some fields have."""

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np

from mitoscope.datasets.fields import FieldOfView
from mitoscope.datasets.readers import Image


def hash_pixels(image: Image) -> str:
    """Return the SHA-256 of a field's shape and pixels, which is independent of file name and lossless format."""
    return hashlib.sha256(str(image.shape).encode() + np.ascontiguousarray(image).tobytes()).hexdigest()


def find_conflicts(fields: Sequence[FieldOfView], pixels: Sequence[str], sources: Sequence[str]) -> Iterator[str]:
    """Yield one line for each image that two patients have, and one if only some fields have a known pixel size.

    Args:
        fields: the fields.
        pixels: their `hash_pixels`.
        sources: where the pixel size of each is from, as in `datasets.fields.PixelSize`.
    """
    owners: dict[str, FieldOfView] = {}
    for field, digest in zip(fields, pixels, strict=True):
        first = owners.setdefault(digest, field)
        if first.patient != field.patient:
            yield (
                f"{field.image}: has the pixels of {first.image.name}, which is of another patient, so one patient "
                "would be in training and test; remove one of them"
            )
    unknown = [field for field, source in zip(fields, sources, strict=True) if source == "default"]
    if unknown and len(unknown) < len(fields):
        yield (
            f"{unknown[0].image}: has no known pixel size, like {len(unknown)} of {len(fields)} fields; write it into "
            "fields.csv, or microns_per_pixel into dataset.yaml"
        )
