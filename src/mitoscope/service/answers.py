"""What the service answers: the mitoses of a field with all that a count needs, as JSON or as GeoJSON."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, Field

from mitoscope.detection.detector import Detector
from mitoscope.detection.sent import SentField
from mitoscope.reporting.exports import TRANSPARENT, UNNORMALISED, FieldCount, detected_annotations, geojson
from mitoscope.reporting.overlays import NUCLEUS_UM


class Problem(BaseModel):
    """Why there is no answer."""

    detail: str = Field(description="One line.")


class ServedModel(BaseModel):
    """The detector that answers."""

    name: str = Field(description="As the service was started: a file, a run, or models:/mitoscope@champion.")
    version: int | None = Field(description="Version in the registry; null unless the service follows an alias.")
    network: str
    run_id: str = Field(description="MLflow run of the training.")
    detector_sha256: str = Field(description="Of the file detector.pt; `mitoscope detect` writes it to model.json.")
    threshold: float = Field(description="A candidate with this probability or more is a mitosis.")
    microns_per_pixel: float = Field(description="Pixel size of the training fields, um.")
    synthetic: bool = Field(description="Whether it was trained on synthetic data.")


class Mitosis(BaseModel):
    """A detected mitosis."""

    row: float = Field(description="px from the top; 0 is the middle of the first pixel.")
    col: float = Field(description="px from the left.")
    probability: float


class Answer(BaseModel):
    """The mitoses of a field."""

    model: ServedModel
    width: int = Field(description="px")
    height: int = Field(description="px")
    microns_per_pixel: float = Field(description="Pixel size that was used, um.")
    pixel_size_from: Literal["request", "file", "model"] = Field(description="Where the pixel size is from.")
    mitoses: list[Mitosis] = Field(description="The most probable first.")
    count: int
    area_mm2: float = Field(description="Area of the field without its transparent parts.")
    per_mm2: float
    per_2mm2: float = Field(description="For a field smaller than 2 mm2 only an extrapolation.")
    notes: list[str] = Field(description="What is special about the field.")
    use: Literal["research only"] = "research only"


@dataclass(frozen=True)
class Served:
    """A detector in use.

    Attributes:
        detector: the detector, on its device.
        model: what the answers say of it.
    """

    detector: Detector
    model: ServedModel

    @classmethod
    def of(cls, detector: Detector, *, name: str, version: int | None, sha256: str) -> "Served":
        """Return a detector with its description.

        Args:
            detector: the detector, on its device.
            name: as the user gave it.
            version: its version in the registry, if it is from there.
            sha256: of its file.
        """
        origin = detector.origin
        return cls(
            detector,
            ServedModel(
                name=name,
                version=version,
                network=origin.network,
                run_id=origin.run_id,
                detector_sha256=sha256,
                threshold=detector.threshold,
                microns_per_pixel=origin.microns_per_pixel,
                synthetic=origin.synthetic,
            ),
        )


def answer(served: Served, field: SentField, microns_per_pixel: float | None) -> Answer:
    """Find the mitoses of a field, as `mitoscope detect` does.

    Args:
        served: the detector.
        field: the image file.
        microns_per_pixel: pixel size as sent, um; None = as the file says, or else the model's.

    Raises:
        InputError: the image is damaged or not 8-bit RGB, or its pixel size does not fit the detector.
        SizeError: the detector enlarges the field to too many pixels.
    """
    detector = served.detector
    microns = field.pixels_for(detector, microns_per_pixel)
    picture = field.decode()
    found = detector.detect(picture.pixels, microns, opaque=picture.opaque)
    rows, columns = picture.shape
    count = FieldCount("", columns, rows, len(found.points), picture.area_mm2(microns), microns)
    notes = []
    if share := picture.transparent:
        notes.append(f"{share} {TRANSPARENT}")
    if detector.extract.stain != "none" and not found.normalised:
        notes.append(UNNORMALISED)
    return Answer(
        model=served.model,
        width=columns,
        height=rows,
        microns_per_pixel=microns,
        pixel_size_from="request" if microns_per_pixel else "file" if field.microns_per_pixel else "model",
        mitoses=[
            Mitosis(row=row, col=col, probability=probability)
            for (row, col), probability in zip(found.points.tolist(), found.probabilities.tolist(), strict=True)
        ],
        count=count.mitoses,
        area_mm2=count.area_mm2,
        per_mm2=count.per_mm2,
        per_2mm2=count.per_2mm2,
        notes=notes,
    )


def as_geojson(found: Answer) -> dict[str, Any]:
    """Return an answer as the GeoJSON that `mitoscope detect` writes for QuPath."""
    centres = np.array([(mitosis.row, mitosis.col) for mitosis in found.mitoses]).reshape(-1, 2)
    annotations = detected_annotations(centres, np.array([mitosis.probability for mitosis in found.mitoses]))
    return geojson(annotations, radius=NUCLEUS_UM / found.microns_per_pixel, shape=(found.height, found.width))
