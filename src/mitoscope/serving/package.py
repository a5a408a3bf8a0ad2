"""What MLflow needs to log a detector."""

from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema
from mlflow.types.schema import Array, Object, Property

import mitoscope
from mitoscope.datasets.images import Image
from mitoscope.detection.detector import Detector
from mitoscope.serving.rows import FIELD, MICRONS, PATCH, encode_patch

# The distributions that the code of a served model imports, used there or not. `mitoscope` itself travels as code.
_NEEDS = (
    "filelock",
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
    "torch",
    "torchvision",
)


class LoggedModelParts(NamedTuple):
    """All that is logged beside a detector's file.

    Attributes:
        model_code: the module that MLflow runs to load the model.
        package: folder of the package `mitoscope`, which travels with the model.
        signature: the columns that the model takes, all optional, and those of its answers.
        example: a table that the model answers.
        requirements: pip requirements with the installed versions.
    """

    model_code: Path
    package: Path
    signature: ModelSignature
    example: pd.DataFrame
    requirements: list[str]


def describe(detector: Detector, example_patch: Image) -> LoggedModelParts:
    """What to log with a detector.

    Args:
        detector: is logged.
        example_patch: (P, P, 3) uint8 RGB, a patch of the detector's size.
    """
    package = Path(mitoscope.__file__).parent
    needs = _NEEDS + (("timm",) if detector.model.backbone.startswith("timm/") else ())
    return LoggedModelParts(
        model_code=package / "serving" / "model.py",
        package=package,
        signature=_signature(),
        example=pd.DataFrame({PATCH: [encode_patch(example_patch)]}),
        requirements=[f"{name}=={version(name)}" for name in needs],
    )


def _signature() -> ModelSignature:
    """The columns. Every one is optional, because a row has a field or a patch."""
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
