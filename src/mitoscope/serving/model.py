"""The model that MLflow loads and serves: it takes rows with a field or a patch, and returns mitoses or probabilities.

MLflow runs this file when it loads a model ("models from code"), so nothing is unpickled. The model's folder contains
the package `mitoscope`, and a process that has not imported the package yet imports it from there.

Load each version in a process of its own: Python imports a package once, so a second version in the same process gets
its own weights and settings, but the code of the first. If that code differs, loading logs a warning of one line.
"""

import hashlib
import logging
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

import mitoscope


class MitosisModel(PythonModel):
    """Model that answers each row of a table, as described in `mitoscope.serving.answers`."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the detector from the model's folder, onto the GPU if there is one."""
        warn_of_other_code(Path(__file__).parent / "code" / "mitoscope")
        # Other code may lack these modules; the warning above then comes before the ImportError.
        from mitoscope.detection.detector import Detector
        from mitoscope.learning.devices import join

        with join() as device:
            self.detector = Detector.load(Path(context.artifacts["detector"])).to(device.torch)

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """Return one answer per row, in the order of the rows.

        Raises:
            RowRejected: a row cannot be answered; the message says which and why.
        """
        from mitoscope.serving.answers import answer

        return answer(self.detector, model_input)


def warn_of_other_code(travelled: Path) -> None:
    """Log a warning if the imported `mitoscope` differs from the code in the folder `travelled`, if that exists."""
    used = Path(mitoscope.__file__).parent
    if travelled.is_dir() and not travelled.samefile(used) and _digest(travelled) != _digest(used):
        logging.getLogger("mitoscope").warning(
            "the code that was logged with this model (%s) differs from the mitoscope that this process has imported "
            "(%s), so answers may differ; load each version in a process of its own",
            travelled,
            used,
        )


def _digest(package: Path) -> str:
    """Return the SHA-256 of the names and contents of a package's Python files."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(package).as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


set_model(MitosisModel())
