"""The model as MLflow logs and serves it: PNG patches in, probabilities out.

MLflow runs this file when it loads a model ("models from code"), so nothing is ever unpickled.
"""

import base64
import binascii
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

INPUT, PROBABILITY, MITOSIS = "patch", "probability", "mitosis"


def encode(patch: npt.NDArray[np.uint8]) -> str:
    """An (H, W, 3) uint8 RGB patch as base64 of a PNG."""
    _, png = cv2.imencode(".png", patch[..., ::-1])
    return base64.b64encode(png.tobytes()).decode()


def decode(text: str, patch_size: int) -> npt.NDArray[np.uint8]:
    """The patch that `encode` turned into text.

    Raises:
        ValueError: it is no base64, no image, or not an 8-bit RGB image of patch_size x patch_size px.
    """
    try:
        content = np.frombuffer(base64.b64decode(text, validate=True), np.uint8)
        image = cv2.imdecode(content, cv2.IMREAD_UNCHANGED) if content.size else None
    except (binascii.Error, TypeError, ValueError, cv2.error) as error:
        raise ValueError(f"{INPUT}: is not base64 of a PNG image") from error
    expected = (patch_size, patch_size, 3)
    if image is None or image.shape != expected or image.dtype != np.uint8:
        found = "no image" if image is None else f"{image.shape} {image.dtype}"
        raise ValueError(f"{INPUT}: expected an RGB image of {expected} uint8, found {found}")
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
        """Probability of a mitosis per patch, and whether it reaches the model's own threshold."""
        import torch

        patches = [decode(text, self.network.patch_size) for text in model_input[INPUT]]
        if not patches:
            return pd.DataFrame({PROBABILITY: pd.Series(dtype=float), MITOSIS: pd.Series(dtype=bool)})
        with torch.inference_mode():
            batch = torch.from_numpy(np.stack(patches)).permute(0, 3, 1, 2)
            probabilities = self.network(batch).softmax(dim=1)[:, 1].double().numpy()
        return pd.DataFrame({PROBABILITY: probabilities, MITOSIS: probabilities >= self.threshold})


set_model(MitosisModel())
