"""The rooms of the house: imports point one way, and no module loads more than it needs."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import mitoscope

SOURCE = Path(mitoscope.__file__).parent
GROUND = {"cluster", "errors", "files", "params", "paths", "progress"}  # every room may use them
# What each room stands on. `stages`, `commands`, `serving` and `service` stand on top of all the others.
ROOMS = {
    "datasets": set(),
    "histology": {"datasets"},
    "learning": set(),
    "evaluation": set(),
    "tracking": set(),
    "detection": {"datasets", "histology", "learning", "evaluation"},
    "reporting": {"datasets", "histology", "evaluation", "detection"},
    "exporting": {"learning", "detection"},
    "serving": {"datasets", "learning", "detection"},
    "service": {"datasets", "detection", "reporting"},
}
# The tops may use these doors of each other, and nothing behind them.
DOORS = {
    "stages": {"serving.package"},  # what MLflow needs to log a detector
    # A cross-validation looks at every fold's split before the first one runs; `serve` starts the service.
    "commands": {"stages.split", "service"},
}
MOST_LINES, LONGEST_FUNCTION = 260, 80
# A synthetic field is drawn from top to bottom; importers and the registry of settings are long lists of small things.
LONG = {"datasets/synthetic.py", "params.py", "cli.py"}


def imported(node: ast.AST) -> set[str]:
    """The modules that a statement imports, with the names that it takes from them."""
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"imports are absolute: {ast.unparse(node)}"
        return {f"{node.module}.{alias.name}" for alias in node.names}
    return set()


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def run_on_import(node: ast.AST) -> Iterator[ast.AST]:
    """Everything in a module but functions and what is for type checkers, which do not run when it is imported."""
    for child in ast.iter_child_nodes(node):
        for_types = isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
        if not for_types and not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from run_on_import(child)


def imports(path: Path) -> set[str]:
    """The modules and names of mitoscope that a module imports, also inside functions, without the prefix."""
    found = {name for node in ast.walk(parse(path)) for name in imported(node)}
    return {name.removeprefix("mitoscope.") for name in found if name.startswith("mitoscope.")}


def modules(room: str) -> list[str]:
    """The modules of a room by their whole names."""
    paths = sorted((SOURCE / room).rglob("*.py"))
    assert len(paths) > 2
    return [".".join(path.relative_to(SOURCE.parent).with_suffix("").parts).removesuffix(".__init__") for path in paths]


def loaded(module: str) -> set[str]:
    """The packages that are loaded with a module of mitoscope, by itself and by those that it imports.

    Imports inside functions and for type checkers do not count: they do not run.
    """
    packages, todo, seen = set[str](), {module}, set[str]()
    while todo:
        name = todo.pop()
        seen.add(name)
        place = SOURCE.parent.joinpath(*name.split("."))
        for path in (place / "__init__.py", place.with_suffix(".py")):
            if path.exists():  # otherwise it is a name in a module
                found = {name.rpartition(".")[0]}.union(*map(imported, run_on_import(parse(path))))
                todo |= {name for name in found if name.startswith("mitoscope")} - seen
                packages |= {name.split(".")[0] for name in found} - {"", "mitoscope"}
    return packages


def test_every_folder_is_a_room():
    folders = {path.parent.name for path in SOURCE.glob("*/__init__.py")}
    assert folders == {*ROOMS, "stages", "commands"}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_stands_on_what_is_below_it(room):
    allowed = ROOMS[room] | GROUND | {room}
    paths = list((SOURCE / room).rglob("*.py"))
    assert paths
    for path in paths:
        for name in imports(path):
            assert name.split(".")[0] in allowed, f"{path.relative_to(SOURCE)} imports {name}"


@pytest.mark.parametrize("top", ["stages", "commands", "serving", "service"])
def test_the_tops_do_not_import_each_others_insides(top):
    others = {"stages", "commands", "serving", "service", "cli", "cli_import"} - {top}
    doors = DOORS.get(top, set())
    for path in (SOURCE / top).rglob("*.py"):
        for name in imports(path):
            inside = name.split(".")[0] in others and not any(name.startswith(f"{door}.") for door in doors)
            assert not inside, f"{path.relative_to(SOURCE)} imports {name}"


@pytest.mark.parametrize("module", sorted(GROUND))
def test_the_ground_floor_stands_alone(module):
    assert {name.split(".")[0] for name in imports(SOURCE / f"{module}.py")} <= GROUND


def test_only_stages_are_among_the_stages():

    folder = SOURCE.parents[1]
    run_by_dvc = {
        stage
        for path in (folder / "dvc.yaml", folder / "crossvalidation/dvc.yaml")
        for stage in yaml.safe_load(path.read_text(encoding="utf-8"))["stages"]
    }
    assert {path.stem for path in (SOURCE / "stages").glob("[!_]*")} == run_by_dvc


def test_modules_and_functions_can_be_read_in_one_sitting():
    for path in SOURCE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if path.relative_to(SOURCE).as_posix() in LONG:
            continue
        assert text.count("\n") <= MOST_LINES, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert (node.end_lineno or 0) - node.lineno < LONGEST_FUNCTION, f"{path}: {node.name}"


def test_no_network_has_a_name_in_the_pipeline():
    project = SOURCE.parents[1]
    paths = [project / name for name in ("dvc.yaml", "crossvalidation/dvc.yaml", "Makefile", "MLproject")]
    paths += [path for path in SOURCE.rglob("*.py") if path.parent.name not in {"learning", "backbones"}]
    for path in paths:
        text = path.read_text(encoding="utf-8").lower()
        assert "alexnet" not in text and "densenet161" not in text, path


@pytest.mark.parametrize(
    ("room", "packages"),
    [
        ("learning", {"cv2", "mlflow", "dvc", "optuna", "pandas", "sklearn", "timm"}),
        ("histology", {"torch", "torchvision", "mlflow", "dvc", "optuna"}),
        ("evaluation", {"torch", "torchvision", "mlflow", "dvc", "optuna", "cv2"}),
    ],
)
def test_a_room_works_without(room, packages):
    for module in modules(room):
        assert not loaded(module) & packages, module


def test_what_a_module_loads_is_known():
    assert {"torch", "numpy"} <= loaded("mitoscope.learning.scoring")
    assert "cv2" in loaded("mitoscope.datasets.annotations")  # through mitoscope.datasets.readers
    assert "timm" not in loaded("mitoscope.learning.backbones.timm")  # inside a function
    assert "torchvision" in loaded("mitoscope.learning.vision")  # inside a `with`
    assert "pydantic" not in loaded("mitoscope.errors")  # for type checkers


@pytest.mark.parametrize("module", ["mitoscope.cli", "mitoscope.commands.status"])
def test_what_must_be_fast_loads_nothing_heavy(module):
    heavy = ["torch", "torchvision", "mlflow", "numpy", "cv2", "sklearn", "pandas", "dvc"]
    code = f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
