"""What a stage depends on is what it imports: no module is missing, none is too many."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

SCRIPT = Path(__file__).parent.parent / "scripts/check_stage_deps.py"
_spec = importlib.util.spec_from_file_location("check_stage_deps", SCRIPT)
checker = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(checker)

HOUSE = {
    "__init__.py": "import os",
    "stages/__init__.py": '"""Stages."""',
    "stages/train.py": "from mitoscope.learning.loop import fit\nfrom mitoscope.tracking import runs",
    "stages/split.py": "import mitoscope.datasets.fields",
    "learning/__init__.py": '"""Tensors."""',
    "learning/loop.py": "from mitoscope.learning import networks\nfrom mitoscope.errors import InputError",
    "learning/networks.py": "",
    "learning/scoring.py": "",
    "datasets/fields.py": "",
    "tracking/runs.py": "import mitoscope.datasets.fields",
    "errors.py": "import mitoscope.learning.scoring",
}


def write(root: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        path = root / "src/mitoscope" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content or "VALUE = 1")


@pytest.fixture
def root(tmp_path) -> Path:
    """A small house: `train` uses two modules of learning, logs, and may raise an error."""
    write(tmp_path, HOUSE)
    return tmp_path


def compare(root: Path, *deps: str, cmd: str = "mitoscope train ${key}", name: str = "dvc.yaml", **more) -> list[str]:
    """The differences of one stage, without where it stands."""
    path = root / name
    path.parent.mkdir(exist_ok=True)
    stage = {"cmd": cmd, "deps": ["data", "models/${key}/start.pt", *(f"src/mitoscope/{dep}" for dep in deps)]}
    path.write_text(yaml.safe_dump({"stages": {"train": {"foreach": "${train}", "do": stage | more}}}))
    start = f"{name}: train: "
    lines = checker.compare(root)
    assert all(line.startswith(start) and "\n" not in line for line in lines)
    return [line.removeprefix(start).replace("src/mitoscope/", "") for line in lines]


FILES = ("stages/train.py", "learning/loop.py", "learning/networks.py")


def test_what_is_imported_and_given_leaves_no_difference(root):
    assert compare(root, *FILES) == []


def test_a_missing_dep_is_named_with_who_imports_it(root):
    assert compare(root, *FILES[:2]) == ["learning/networks.py is missing in deps, imported by learning/loop.py"]
    assert compare(root, *FILES[1:]) == ["stages/train.py is missing in deps"]


def test_a_folder_covers_what_lies_in_it(root):
    assert compare(root, "stages/train.py", "learning") == []
    assert compare(root, "stages", "learning/") == []
    assert len(compare(root, "stages/train.py", "learn")) == 3  # a name that only begins alike covers nothing


def test_a_dep_that_nothing_imports_is_stale(root):
    assert compare(root, *FILES, "stages/split.py", "histology") == [
        "stages/split.py is in deps, but the stage does not import it",
        "histology is in deps, but the stage does not import it",
    ]


def test_rooms_that_only_log_need_no_dep_and_may_have_one(root):
    # What these import is theirs, too: datasets/fields.py is not missing, nor is learning/scoring.py.
    assert compare(root, *FILES, "tracking/runs.py", "errors.py") == []


@pytest.mark.parametrize(
    "code",
    [
        "def train():\n    from mitoscope.histology.stain import normalise",
        "def train():\n    if True:\n        import mitoscope.histology.stain",
        "from ..histology import stain",
        "from ..histology.stain import normalise",
        "try:\n    from mitoscope.histology import stain\nexcept ImportError:\n    pass",
        "if not TYPE_CHECKING:\n    from mitoscope.histology import stain",
        "if TYPE_CHECKING:\n    pass\nelse:\n    from mitoscope.histology import stain",
    ],
)
def test_an_import_counts_wherever_and_however_it_is_written(root, code):
    write(root, {"stages/train.py": code, "histology/stain.py": ""})
    assert compare(root, "stages/train.py") == ["histology/stain.py is missing in deps, imported by stages/train.py"]


@pytest.mark.parametrize("test", ["TYPE_CHECKING", "typing.TYPE_CHECKING"])
def test_an_import_for_types_does_not_run(root, test):
    write(root, {"stages/train.py": f"if {test}:\n    from mitoscope.learning.loop import Fitted"})
    assert compare(root, "stages/train.py") == []


def test_the_code_of_a_package_runs_when_a_module_of_it_is_imported(root):
    write(root, {"learning/__init__.py": "import mitoscope.learning.scoring"})
    assert compare(root, *FILES) == [
        "learning/__init__.py is missing in deps, imported by stages/train.py",
        "learning/scoring.py is missing in deps, imported by learning/__init__.py",
    ]


def test_a_stage_may_be_a_package(root):
    (root / "src/mitoscope/stages/train.py").unlink()
    write(root, {"stages/train/__init__.py": "from mitoscope.stages.train import inputs", "stages/train/inputs.py": ""})
    assert compare(root, "stages/train") == []
    assert compare(root, "stages/train/__init__.py") == [
        "stages/train/inputs.py is missing in deps, imported by stages/train/__init__.py"
    ]


def test_modules_that_are_found_by_name_are_all_imported(root):
    code = "from importlib import import_module\ndef find(name):\n    return import_module(f'{__name__}.{name}')"
    write(root, {"learning/loop.py": "from mitoscope.learning.backbones import find"})
    write(root, {"learning/backbones/__init__.py": code, "learning/backbones/timm.py": ""})
    assert compare(root, "stages/train.py", "learning/loop.py", "learning/backbones/__init__.py") == [
        "learning/backbones/timm.py is missing in deps, imported by learning/backbones/__init__.py"
    ]


@pytest.mark.parametrize("cmd", ["${launch} train ${key}", ["echo begin", "mitoscope train ${key} --fold 1"]])
def test_the_stage_is_found_in_its_command(root, cmd):
    assert compare(root, *FILES, cmd=cmd) == []


@pytest.mark.parametrize("cmd", ["python train.py", "mitoscope detect data"])
def test_a_command_that_runs_no_stage_is_named(root, cmd):
    assert compare(root, cmd=cmd) == ["its cmd names no stage of stages"]


def test_the_pipeline_of_the_folds_runs_in_the_projects_folder(root):
    name = "crossvalidation/dvc.yaml"
    assert compare(root, *FILES, name=name, wdir="..") == []
    assert len(compare(root, *FILES[:2], name=name, wdir="..")) == 1
    stages = {"split": {"wdir": "..", "matrix": {"fold": [0, 1]}, "cmd": "mitoscope split", "deps": []}}
    (root / name).write_text(yaml.safe_dump({"stages": stages}))
    first, second = checker.compare(root)
    assert first.startswith(f"{name}: split: src/mitoscope/datasets/fields.py is missing in deps")
    assert second == f"{name}: split: src/mitoscope/stages/split.py is missing in deps"


def test_any_difference_ends_the_program_with_1(root):
    compare(root, *FILES, "histology")
    done = subprocess.run([sys.executable, SCRIPT, root], capture_output=True, text=True, check=False)
    expected = "dvc.yaml: train: src/mitoscope/histology is in deps, but the stage does not import it\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, expected, "")
    compare(root, *FILES)
    done = subprocess.run([sys.executable, SCRIPT], cwd=root, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
