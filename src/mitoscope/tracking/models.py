"""Find a detector by name: a file, a run in the MLflow store, or a version in its registry."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from mitoscope.errors import InputError
from mitoscope.tracking.registry import CHAMPION, MODEL, find_alias, list_versions, no_version
from mitoscope.tracking.runs import DETECTOR
from mitoscope.tracking.store import open_store, require_database, store, without_passwords


@contextmanager
def detector_file(model: str) -> Iterator[Path]:
    """Yield the path of a detector file; a downloaded file is removed when the block ends.

    Args:
        model: a file, `runs:/<run id>/detector`, or `models:/...` with a name and version, an alias or a model id.

    Raises:
        InputError: the file, run or version does not exist, or it is not a mitoscope detector.
    """
    if not model.startswith(("runs:/", "models:/")):
        if not Path(model).is_file():
            raise InputError(
                f"{model}: no such model file; give a file such as models/NETWORK/detector.pt, "
                f"runs:/<run id>/{DETECTOR} or models:/{MODEL}@{CHAMPION}"
            )
        yield Path(model)
        return
    import mlflow
    from mlflow.artifacts import download_artifacts

    if model.startswith("runs:/") and len(model.split("/")) < 3:
        raise InputError(f"{model}: this is a run, not a model; add /{DETECTOR}")
    require_database(model)
    open_store()
    alias = model.removeprefix(f"models:/{MODEL}@")
    if alias != model and find_alias(alias) is None:
        raise InputError(no_version(alias))
    with tempfile.TemporaryDirectory() as folder:
        try:
            logged = Path(download_artifacts(model, dst_path=folder))
            description = yaml.safe_load((logged / "MLmodel").read_text(encoding="utf-8"))
            artifacts = description["flavors"]["python_function"]["artifacts"]
        except (mlflow.MlflowException, OSError, KeyError, TypeError) as error:
            said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            reason = without_passwords((said.splitlines() or [type(error).__name__])[0])
            known = "`mitoscope registry` lists the versions, `mitoscope ui` the runs"
            raise InputError(
                f"{model}: no such model in the MLflow store {store(Path())} ({reason}); {known}"
            ) from error
        if DETECTOR not in artifacts:
            raise InputError(f"{model}: contains a network of mitoscope 0.1, not a detector; make one with `dvc repro`")
        yield logged / artifacts[DETECTOR]["path"]


def model_card(model: str) -> str:
    """Return the model card of `models:/mitoscope` with an alias or a version number; empty for other detectors."""
    for version in list_versions() if model.startswith(f"models:/{MODEL}") else ():
        if model in [f"models:/{MODEL}/{version.number}", *(f"models:/{MODEL}@{alias}" for alias in version.aliases)]:
            return version.card
    return ""
