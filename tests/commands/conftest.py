"""What the stages leave of an evaluated network, made once for all commands that read it."""

import contextlib
import shutil
from pathlib import Path

import pytest

from tests.conftest import NETWORK
from tests.reporting.test_figures import history
from tests.results import leave_detector, run_of_training


@pytest.fixture(scope="session")
def evaluated_folder(_extracted: Path, _store_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small project after stage `evaluate`; its run and its detector are in the store of all tests."""
    from mitoscope.paths import Outputs
    from mitoscope.reporting.figures import draw_learning_curves
    from mitoscope.stages.evaluate import evaluate
    from mitoscope.tracking.store import connect

    folder = tmp_path_factory.mktemp("evaluated")
    shutil.copytree(_extracted, folder, dirs_exist_ok=True)
    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(folder):
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{_store_folder / 'mlflow.db'}")
        connect(_store_folder)
        leave_detector(run_of_training(git_dirty="true"))
        evaluate(NETWORK)
        curves = Outputs(NETWORK).trained.with_suffix(".png")
        draw_learning_curves(curves, history(3), title=NETWORK, best_epoch=2)
    return folder
