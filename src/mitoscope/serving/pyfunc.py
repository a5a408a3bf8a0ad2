"""The model as MLflow logs and serves it: PNG patches in, probabilities out.

MLflow runs this file when it loads a model ("models from code"), so nothing is ever unpickled.
"""

import base64
import binascii
import json
import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc.model import PythonModel, PythonModelContext

INPUT, PROBABILITY, MITOSIS = "patch", "probability", "mitosis"
_SLICE = 64  # patches decoded and scored at once: memory stays bounded, however long the table is
_COLOURS = {0: "grey", 2: "RGB", 3: "palette", 4: "grey and alpha", 6: "RGBA"}  # PNG's colour types


class PatchRefused(MlflowException):
    """A patch that cannot be scored; the server answers 400 with this one line."""

    def __init__(self, line: str) -> None:
        super().__init__(line, INVALID_PARAMETER_VALUE)
        self.line = line

    def serialize_as_json(self) -> str:
        """The answer's body. MLflow's server has put the whole table before the message by then."""
        return json.dumps({"error_code": self.error_code, "message": self.line})


def encode(patch: npt.NDArray[np.uint8]) -> str:
    """An (H, W, 3) uint8 RGB patch as base64 of a PNG."""
    _, png = cv2.imencode(".png", patch[..., ::-1])
    return base64.b64encode(png.tobytes()).decode()


def decode(text: str, patch_size: int) -> npt.NDArray[np.uint8]:
    """The patch that `encode` turned into text.

    Nothing is decompressed before the PNG's header has been believed: a few bytes may claim gigabytes of pixels.

    Raises:
        ValueError: it is no base64 of a PNG, or not an 8-bit RGB image of patch_size x patch_size px.
    """
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise ValueError(f"{INPUT} is not base64 of a PNG file") from error
    if len(content) < 26 or content[:8] != b"\x89PNG\r\n\x1a\n" or content[12:16] != b"IHDR":
        raise ValueError(f"{INPUT} is not base64 of a PNG file")
    width, height, bits, colour = struct.unpack(">IIBB", content[16:26])
    if (width, height, bits, colour) != (patch_size, patch_size, 8, 2):
        found = f"{width} x {height} px, {bits}-bit {_COLOURS.get(colour, 'unknown')}"
        raise ValueError(f"{INPUT} is a PNG of {found}; expected {patch_size} x {patch_size} px, 8-bit RGB")
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None or image.shape != (patch_size, patch_size, 3):  # broken, or with a transparent colour
        raise ValueError(f"{INPUT} is a broken PNG, or one with transparency")
    return np.ascontiguousarray(image[..., ::-1])


class MitosisModel(PythonModel):
    """Answers a table with a column `patch` by a table with the columns `probability` and `mitosis`."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read the network from the model's own folder."""
        from mitoscope.learning.checkpoints import load_network

        self.network, kept = load_network(Path(context.artifacts["network"]))
        self.threshold = float(kept["threshold"])

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Probability of a mitosis per patch, and whether it reaches the model's own threshold.

        Raises:
            PatchRefused: a row is no patch of this model; says which and why.
        """
        texts = model_input[INPUT].tolist()
        slices = [self._score(texts[start : start + _SLICE], start) for start in range(0, len(texts), _SLICE)]
        probabilities = np.concatenate([np.empty(0), *slices])
        return pd.DataFrame({PROBABILITY: probabilities, MITOSIS: probabilities >= self.threshold})

    def _score(self, texts: list[str], first: int) -> npt.NDArray[np.float64]:
        """Probabilities of (N,) patches; `first` is the row of the first one, for messages."""
        import torch

        patches = []
        for row, text in enumerate(texts, start=first):
            try:
                patches.append(decode(text, self.network.patch_size))
            except ValueError as error:
                remedy = "send patches as `mitoscope export-patches` writes them"
                raise PatchRefused(f"row {row} (the first is 0): {error}; {remedy}") from error
        with torch.inference_mode():
            batch = torch.from_numpy(np.stack(patches)).permute(0, 3, 1, 2)
            probabilities: npt.NDArray[np.float64] = self.network(batch).double().softmax(dim=1)[:, 1].numpy()
        return probabilities


set_model(MitosisModel())
