"""Messages that several commands share."""

import pytest

from mitoscope import errors
from mitoscope.errors import InputError, require_packages


def test_a_missing_package_is_named(monkeypatch):
    packages = ("onnx", "onnxscript", "onnxruntime")
    require_packages("export", "onnx", *packages)
    monkeypatch.setattr(errors, "find_spec", lambda name: name == "onnx" or None)  # as if the others were missing
    with pytest.raises(InputError, match=r"export needs the package onnxscript: install the extra mitoscope\[onnx\]"):
        require_packages("export", "onnx", *packages)
