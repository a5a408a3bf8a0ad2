"""Imports point one way, and no module loads more than it needs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import mitoscope

SOURCE = Path(mitoscope.__file__).parent
LIBRARIES = ("histology", "learning", "tracking")


def modules(package: str) -> list[str]:
    return [f"mitoscope.{package}.{path.stem}" for path in sorted((SOURCE / package).glob("[!_]*.py"))]


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def importing(names: list[str], *, without: list[str]) -> str:
    """A program that imports `names` where `without` are not installed."""
    return f"import sys, importlib\nfor name in {without}: sys.modules[name] = None\n" + "".join(
        f"importlib.import_module({name!r})\n" for name in names
    )


@pytest.mark.parametrize("package", LIBRARIES)
def test_the_libraries_import_neither_each_other_nor_the_stages(package):
    # Also inside functions, which an import of the module does not run.
    forbidden = {"stages", "commands", "cli", "params", *LIBRARIES} - {package}
    paths = list((SOURCE / package).glob("*.py"))
    assert paths
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            for name in names:
                parts = name.split(".")
                assert not (parts[0] == "mitoscope" and parts[1] in forbidden), f"{path.name} imports {name}"


@pytest.mark.slow
def test_learning_works_where_only_torch_is_installed():
    names = modules("learning")
    assert "mitoscope.learning.loop" in names
    run(importing(names, without=["cv2", "mlflow", "dvc", "optuna", "pydantic", "pandas"]))


def test_histology_works_without_torch():
    names = modules("histology")
    assert "mitoscope.datasets.patches" in names
    run(importing(names, without=["torch", "torchvision", "mlflow", "dvc", "optuna"]))


def test_a_blocked_module_would_be_noticed():
    with pytest.raises(AssertionError, match="cv2"):
        run(importing(["mitoscope.datasets.patches"], without=["cv2"]))


def test_the_command_line_loads_nothing_heavy():
    heavy = ["torch", "torchvision", "mlflow", "cv2", "sklearn", "pandas", "dvc"]
    loaded = run(f"import sys, mitoscope.cli\nprint([name for name in {heavy} if name in sys.modules])")
    assert loaded.strip() == "[]"
