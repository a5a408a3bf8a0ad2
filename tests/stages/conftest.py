from pathlib import Path

import pytest

from mitoscope.stages.weights import weights
from tests.conftest import NETWORK


@pytest.fixture
def ready(extracted: Path, mlflow_store: str) -> Path:
    """The small project with all that a training needs."""
    weights(NETWORK)
    return extracted
