"""Compare the `deps` of every stage in dvc.yaml with what the stage's module imports.

    python scripts/check_stage_deps.py [FOLDER]

DVC runs a stage again when one of its deps has changed. A module that is missing there lets old results pass for new
ones; one too many trains networks again for nothing. So every module of mitoscope that a stage imports, also through
others and inside functions, must be covered by a dep (the file, or a folder around it), and no dep in src may be one
that the stage does not import. Imports under `if TYPE_CHECKING` do not run and do not count. A module that calls
`import_module` counts as importing its whole package.

Some rooms need not be deps, since what they do changes no result:

- tracking, reporting, progress and cli log, draw and talk;
- cluster says on which machine a field is done;
- errors, paths and files say what is wrong, where files are and how they are written;
- params reads params.yaml, whose values DVC tracks one by one;
- packages whose `__init__.py` holds nothing but words, and mitoscope's own, which tells libraries how to wait.

Every difference is one line; with any, the exit status is 1.
"""

import ast
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

PIPELINES = ("dvc.yaml", "crossvalidation/dvc.yaml")
EXEMPT = {"tracking", "reporting", "progress", "cli", "cluster", "errors", "paths", "files", "params"}
_PACKAGE = "mitoscope"
_COMMAND = re.compile(r"(?:\bmitoscope|\$\{launch\})\s+([a-z][a-z-]*)")  # params.yaml: launch starts trainings


def compare(root: Path) -> list[str]:
    """The differences in the pipelines of the project in `root`, a line each."""
    modules = find_modules(root)
    graph = {name: imports(name, modules) for name in modules}
    lines = []
    for name in PIPELINES:
        path = root / name
        if path.exists():
            stages = yaml.safe_load(path.read_text(encoding="utf-8")).get("stages", {})
            for stage, block in stages.items():
                # A foreach has its settings under `do`; wdir is given there, or beside a matrix.
                settings = block.get("do", block)
                lines += [f"{name}: {stage}: {line}" for line in _compare_stage(root, path, settings, modules, graph)]
    return lines


def _compare_stage(
    root: Path, pipeline: Path, settings: dict[str, Any], modules: dict[str, Path], graph: dict[str, set[str]]
) -> Iterator[str]:
    """The differences of one stage, whose settings stand in the file `pipeline`."""
    command = settings["cmd"] if isinstance(settings["cmd"], str) else " ".join(settings["cmd"])
    named = [f"{_PACKAGE}.stages.{name.replace('-', '_')}" for name in _COMMAND.findall(command)]
    starts = [name for name in named if name in modules]
    if not starts:
        yield f"its cmd names no stage of src/{_PACKAGE}/stages"
        return
    folder = pipeline.parent / settings.get("wdir", ".")
    given = [dep if isinstance(dep, str) else next(iter(dep)) for dep in settings.get("deps", [])]
    paths = [Path(os.path.normpath(os.path.relpath(folder / dep, root))) for dep in given]
    deps = [path for path in paths if path.parts[0] == "src"]

    def covers(dep: Path, module: str) -> bool:
        return modules[module].relative_to(root).is_relative_to(dep)

    needed, imported = walk(starts, graph, EXEMPT), walk(starts, graph, set())
    for module, importer in sorted(needed.items()):
        if not any(covers(dep, module) for dep in deps) and not _is_empty(modules[module]):
            by = f", imported by {modules[importer].relative_to(root)}" if importer else ""
            yield f"{modules[module].relative_to(root)} is missing in deps{by}"
    for dep in deps:
        if not any(covers(dep, module) for module in imported):
            yield f"{dep} is in deps, but the stage does not import it"


def find_modules(root: Path) -> dict[str, Path]:
    """All modules of mitoscope by their dotted names; a package's is that of its `__init__.py`."""
    source = root / "src"
    modules = {}
    for path in (source / _PACKAGE).rglob("*.py"):
        parts = path.relative_to(source).with_suffix("").parts
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return modules


def walk(starts: list[str], graph: dict[str, set[str]], exempt: set[str]) -> dict[str, str | None]:
    """These modules and all that they import, directly or through others, each with one that imports it.

    What lies in the rooms `exempt` is left out, and so is what only these import.
    """
    found: dict[str, str | None] = {}
    waiting: list[tuple[str, str | None]] = [(name, None) for name in starts]
    while waiting:
        name, importer = waiting.pop(0)
        room = name.split(".")[1:2]
        if name in found or name not in graph or not room or room[0] in exempt:
            continue
        found[name] = importer
        # To import a module is to run the packages around it, too.
        waiting += [(name.rpartition(".")[0], importer)]
        waiting += [(other, name) for other in sorted(graph[name])]
    return found


def imports(name: str, modules: dict[str, Path]) -> set[str]:
    """The modules of mitoscope that one of them imports, functions included."""
    path = modules[name]
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    names: set[str] = set()
    for node in _run_nodes(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            around = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*around, *filter(None, [node.module])])
            names |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Call) and "import_module" in ast.unparse(node.func):
            names |= {other for other in modules if other.startswith(f"{package}.")}
    return names & modules.keys()


def _run_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes below one, without what stands under `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            for other in child.orelse:
                yield other
                yield from _run_nodes(other)
            continue
        yield child
        yield from _run_nodes(child)


def _is_empty(path: Path) -> bool:
    """Whether a module holds nothing but words."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return all(isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in body)


if __name__ == "__main__":
    differences = compare(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
    print("\n".join(differences), end="\n" if differences else "")
    sys.exit(1 if differences else 0)
