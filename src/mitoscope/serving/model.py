"""The detector as MLflow loads and serves it: rows with a field or a patch in, mitoses or a probability out.

MLflow runs this file when it loads a model ("models from code"), so nothing is ever unpickled. The package `mitoscope`
travels in the model's folder, and a process that has not imported it before takes it from there.

One process serves one version: Python imports a package once, so the second version that a process loads gets its own
weights and settings, but the code of the first. Where that code differs, loading says so in one line.
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
    """Answers every row of a table; the columns and the answers are those of `mitoscope.serving.answers`."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read the detector from the model's own folder, onto the GPU where there is one."""
        warn_of_other_code(Path(__file__).parent / "code" / "mitoscope")
        # Other code may lack what is imported here; the warning above then comes before the error.
        from mitoscope.detection.detector import Detector
        from mitoscope.learning.devices import join

        with join() as device:
            self.detector = Detector.load(Path(context.artifacts["detector"])).to(device.torch)

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """One answer per row, in the order of the rows.

        Raises:
            RowRejected: a row cannot be answered; the line says which and why.
        """
        from mitoscope.serving.answers import answer

        return answer(self.detector, model_input)


def warn_of_other_code(travelled: Path) -> None:
    """Log one line where the `mitoscope` in use is not the code in the folder `travelled`, which need not exist."""
    used = Path(mitoscope.__file__).parent
    if travelled.is_dir() and not travelled.samefile(used) and _digest(travelled) != _digest(used):
        logging.getLogger("mitoscope").warning(
            "the code that travelled with this model (%s) differs from the mitoscope that this process has imported "
            "(%s), and so may its answers; load each version in a process of its own",
            travelled,
            used,
        )


def _digest(package: Path) -> str:
    """SHA-256 of the names and the content of a package's Python files."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(package).as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


set_model(MitosisModel())
