"""What travels with a logged model is what it needs."""

import ast
import sys
from importlib import metadata
from pathlib import Path

import mitoscope
from mitoscope.serving.answers import answer
from mitoscope.serving.package import describe
from tests.serving.conftest import NOISE

PACKAGE = Path(mitoscope.__file__).parent
# Where the name of a package is not that of its distribution.
DISTRIBUTIONS = {"PIL": "pillow", "cv2": "opencv-python-headless", "sklearn": "scikit-learn", "yaml": "pyyaml"}


def imports(path: Path) -> set[str]:
    """All modules that a file imports, also inside functions; of `from x import y` both x and x.y."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def needed(start: Path) -> set[str]:
    """The packages from outside that a module of mitoscope needs, with all that it imports."""
    seen: set[Path] = set()
    outside: set[str] = set()
    waiting = [start]
    while waiting:
        path = waiting.pop()
        if path in seen or not path.exists():
            continue
        seen.add(path)
        if path.parent.name == "backbones":  # are imported by name
            waiting += path.parent.glob("*.py")
        for name in imports(path):
            top, *rest = name.split(".")
            if top == "mitoscope":
                module = PACKAGE.joinpath(*rest)
                waiting += [module.with_suffix(".py"), module / "__init__.py"]
            elif top not in sys.stdlib_module_names:
                outside.add(top)
    assert PACKAGE / "detection" / "detector.py" in seen
    return outside


def test_the_requirements_are_what_the_code_imports(detector):
    parts = describe(detector, NOISE)
    required = {line.partition("==")[0] for line in parts.requirements}
    imported = {DISTRIBUTIONS.get(name, name) for name in needed(parts.model_code)}
    assert imported - {"timm"} == required


def test_the_requirements_are_the_installed_versions(detector):
    requirements = describe(detector, NOISE).requirements
    names = [line.partition("==")[0] for line in requirements]
    assert "torch" in names
    assert requirements == [f"{name}=={metadata.version(name)}" for name in names]


def test_a_network_of_timm_needs_timm(detector, monkeypatch):
    monkeypatch.setattr(detector.model, "backbone", "timm/resnet10t")  # timm itself takes seconds
    assert f"timm=={metadata.version('timm')}" in describe(detector, NOISE).requirements


def test_the_code_is_the_packages_own(detector):
    parts = describe(detector, NOISE)
    assert parts.package == PACKAGE
    assert parts.model_code.is_relative_to(PACKAGE) and "set_model(" in parts.model_code.read_text(encoding="utf-8")


def test_the_example_can_be_answered(detector):
    (row,) = answer(detector, describe(detector, NOISE).example)
    assert set(row) == {"probability", "mitosis"}


def test_all_columns_are_optional(detector):
    signature = describe(detector, NOISE).signature
    assert signature.inputs.optional_input_names() == ["field", "microns_per_pixel", "patch"]
    assert signature.outputs.optional_input_names() == ["mitoses", "threshold", "probability", "mitosis"]
