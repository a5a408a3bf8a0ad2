"""Trained networks by name: a file, a run of the MLflow store, or a version in its registry."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from mitoscope.errors import InputError
from mitoscope.tracking.store import connect, require_database, store, without_passwords


@contextmanager
def network_file(model: str) -> Iterator[Path]:
    """Yield the file of a network: `model` itself, or what `runs:/...` or `models:/...` names, for the block's time.

    Raises:
        InputError: there is no such file, run or version, or it holds no network of mitoscope.
    """
    if not model.startswith(("runs:/", "models:/")):
        if not Path(model).is_file():
            raise InputError(
                f"{model}: no such model file; give a file as models/alexnet/best.pt, runs:/<run id>/best or "
                "models:/mitoscope@champion"
            )
        yield Path(model)
        return
    import mlflow
    from mlflow.artifacts import download_artifacts

    if model.startswith("runs:/") and len(model.split("/")) < 3:
        raise InputError(f"{model}: names a run, not its model; add /best")
    require_database(model)
    connect()
    with tempfile.TemporaryDirectory() as folder:
        try:
            logged = Path(download_artifacts(model, dst_path=folder))
            description = yaml.safe_load((logged / "MLmodel").read_text(encoding="utf-8"))
            network = logged / description["flavors"]["python_function"]["artifacts"]["network"]["path"]
        except (mlflow.MlflowException, OSError, KeyError, TypeError) as error:
            reason = without_passwords(str(error).splitlines()[0])
            raise InputError(f"{model}: no such model in the MLflow store {store(Path())} ({reason})") from error
        yield network
