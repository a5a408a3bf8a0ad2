"""Collect what MLflow needs to log a detector."""

from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema
from mlflow.types.schema import Array, Object, Property

import mitoscope
from mitoscope.datasets.readers import Image
from mitoscope.detection.detector import Detector
from mitoscope.detection.sent import FIELD
from mitoscope.serving.rows import MICRONS, PATCH, encode_patch

# Distributions that the code of a served model imports. `mitoscope` itself is logged as code.
_NEEDS = (
    "filelock",
    "imagecodecs",
    "mlflow",
    "numpy",
    "opencv-python-headless",
    "pandas",
    "pillow",
    "psutil",
    "pydantic",
    "pyyaml",
    "scikit-learn",
    "scipy",
    "tifffile",
    "torch",
    "torchvision",
)


class LoggedModelParts(NamedTuple):
    """What is logged with a detector file.

    Attributes:
        model_code: module that MLflow runs to load the model.
        package: folder of the package `mitoscope`, which is logged with the model.
        signature: input columns, all optional, and output columns.
        example: example input table.
        requirements: pip requirements with the installed versions.
    """

    model_code: Path
    package: Path
    signature: ModelSignature
    example: pd.DataFrame
    requirements: list[str]


def describe(detector: Detector, example_patch: Image) -> LoggedModelParts:
    """Return what to log with a detector.

    Args:
        detector: the detector to log.
        example_patch: (P, P, 3) uint8 RGB, a patch of the detector's size.
    """
    package = Path(mitoscope.__file__).parent
    needs = _NEEDS + (("timm",) if "timm/" in detector.model.backbone else ())
    return LoggedModelParts(
        model_code=package / "serving" / "model.py",
        package=package,
        signature=_signature(),
        example=pd.DataFrame({PATCH: [encode_patch(example_patch)]}),
        requirements=[f"{name}=={version(name)}" for name in needs],
    )


def _signature() -> ModelSignature:
    """Return the columns. Each is optional, because a row has either a field or a patch."""
    mitosis = Object([Property(name, DataType.double) for name in ("row", "col", "probability")])
    return ModelSignature(
        inputs=Schema(
            [
                ColSpec(DataType.string, FIELD, required=False),
                ColSpec(DataType.double, MICRONS, required=False),
                ColSpec(DataType.string, PATCH, required=False),
            ]
        ),
        outputs=Schema(
            [
                ColSpec(Array(mitosis), "mitoses", required=False),
                ColSpec(DataType.double, "threshold", required=False),
                ColSpec(DataType.double, "probability", required=False),
                ColSpec(DataType.boolean, "mitosis", required=False),
            ]
        ),
    )
