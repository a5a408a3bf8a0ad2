"""Importing the detector is quick, because torch's compiler and scikit-learn stay away; both can be imported later."""

import subprocess
import sys

import pytest

PROGRAM = """
import sys
import mitoscope.detection.detector
assert "torchvision" in sys.modules
assert not {"torch._dynamo", "sklearn"} & sys.modules.keys()

import torch
import torchvision
from torch._dynamo.utils import is_compile_supported
assert is_compile_supported("cpu")  # the real one
assert torch.compile(lambda number: number + 1, backend="eager")(torch.ones(1)) == 2
assert torchvision.ops.roi_align(torch.ones(1, 1, 4, 4), torch.tensor([[0.0, 0, 0, 4, 4]]), 1) == 1
"""


@pytest.mark.slow
def test_torchvision_comes_without_the_compiler_which_can_be_imported_later():
    subprocess.run([sys.executable, "-c", PROGRAM], check=True)
