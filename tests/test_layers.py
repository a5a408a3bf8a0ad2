"""The rooms of the house: imports point one way, and no module loads more than it needs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import mitoscope
from tests.programs import PROGRAMS

SOURCE = Path(mitoscope.__file__).parent
GROUND = {"errors", "files", "params", "paths", "progress"}  # every room may use them
# What each room stands on. `stages`, `commands` and `serving` stand on top of all the others.
ROOMS = {
    "datasets": set(),
    "histology": {"datasets"},
    "learning": set(),
    "evaluation": set(),
    "tracking": set(),
    "detection": {"datasets", "histology", "learning", "evaluation"},
    "reporting": {"datasets", "histology", "evaluation", "detection"},
    "serving": {"datasets", "learning", "detection"},
}
# The tops may use these doors of each other, and nothing behind them.
DOORS = {
    "stages": {"serving.package"},  # what MLflow needs to log a detector
    "commands": {"stages.split"},  # a cross-validation looks at every fold's split before the first one runs
}
MOST_LINES, LONGEST_FUNCTION = 260, 80
# A synthetic field is drawn from top to bottom; importers and the registry of settings are long lists of small things.
LONG = {"datasets/synthetic.py", "params.py", "cli.py"}


def imports(path: Path) -> set[str]:
    """The modules and names of mitoscope that a module imports, also inside functions, without the prefix."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.removeprefix("mitoscope.") for name in found if name.startswith("mitoscope.")}


def import_room(room: str, *, without: list[str]) -> None:
    """Import all modules of a room where `without` are not installed."""
    paths = sorted((SOURCE / room).rglob("*.py"))
    names = [
        ".".join(("mitoscope", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__")
        for path in paths
    ]
    assert len(names) > 2
    command = [sys.executable, PROGRAMS / "without.py", ",".join(without), *names]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


def test_every_folder_is_a_room():
    folders = {path.name for path in SOURCE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == {*ROOMS, "stages", "commands"}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_stands_on_what_is_below_it(room):
    allowed = ROOMS[room] | GROUND | {room}
    paths = list((SOURCE / room).rglob("*.py"))
    assert paths
    for path in paths:
        for name in imports(path):
            assert name.split(".")[0] in allowed, f"{path.relative_to(SOURCE)} imports {name}"


@pytest.mark.parametrize("top", ["stages", "commands", "serving"])
def test_the_tops_do_not_import_each_others_insides(top):
    others = {"stages", "commands", "serving", "cli", "cli_import"} - {top}
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


@pytest.mark.slow
def test_learning_works_where_only_torch_is_installed():
    import_room("learning", without=["cv2", "mlflow", "dvc", "optuna", "pandas", "sklearn", "timm"])


@pytest.mark.slow
def test_histology_and_evaluation_work_without_torch():
    for room in ("histology", "evaluation"):
        import_room(room, without=["torch", "torchvision", "mlflow", "dvc", "optuna"])


@pytest.mark.slow
def test_evaluation_works_without_opencv():
    import_room("evaluation", without=["cv2"])


def test_a_blocked_module_would_be_noticed():
    with pytest.raises(AssertionError, match="cv2"):
        import_room("histology", without=["cv2"])


def test_the_command_line_loads_nothing_heavy():
    heavy = ["torch", "torchvision", "mlflow", "cv2", "sklearn", "pandas", "dvc"]
    code = f"import sys, mitoscope.cli; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
