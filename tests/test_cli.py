"""The command line: help for everything, and one line for everything that goes wrong."""

import contextlib
import os
import pty
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from mitoscope.cli import app, main

COMMANDS = [
    *("settings", "split", "extract", "weights", "search", "train", "detector", "evaluate", "pool"),
    *(
        "validate",
        "suspects",
        "export",
        "fields",
        "import",
        "import janowczyk",
        "import midog",
        "import tupac",
        "import qupath",
    ),
    *("import imagescope", "import sliderunner", "import csv", "synthesize", "export-patches"),
    *(
        "page",
        "detect",
        "serve",
        "crossvalidate",
        "status",
        "compare",
        "report",
        "ui",
        "promote",
        "registry",
        "registry retire",
        "rollback",
    ),
]


def start(*arguments: str, cwd: Path, before: Callable[[], None] | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "mitoscope", *arguments],
        cwd=cwd,
        preexec_fn=before,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.fixture
def run(monkeypatch, capsys):
    """Call the command line in this process: (exit code, stdout, stderr)."""

    def call(*arguments: str, cwd: Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["mitoscope", *arguments])
        monkeypatch.setattr(signal, "signal", lambda *_: None)  # the test process keeps its own handlers
        with contextlib.chdir(cwd), pytest.raises(SystemExit) as end:
            main()
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    return call


def error_line(err: str) -> str:
    """The text of stderr's one line, which names an error."""
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    return line.removeprefix("error: ")


@pytest.fixture
def rejected(run):
    """Call the command line with bad input; returns the text of its one line."""

    def call(*arguments: str, cwd: Path, code: int = 2) -> str:
        status, _, err = run(*arguments, cwd=cwd)
        assert status == code
        return error_line(err)

    return call


def test_every_command_is_known_here():
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    assert set(group.commands) == {name for name in COMMANDS if " " not in name}


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help(command):
    result = CliRunner().invoke(app, [*command.split(), "-h"])
    assert result.exit_code == 0
    assert " ".join(["Usage:", "root", *command.split()]).split()[-1] in result.output
    assert "--help" in result.output and "-h" in result.output


def test_the_overview_names_every_command():
    output = CliRunner().invoke(app, ["--help"]).output
    assert not [name for name in COMMANDS if " " not in name and name not in output]


def test_help_loads_nothing_heavy(tmp_path):
    code = (
        "import sys; from typer.testing import CliRunner; from mitoscope.cli import app\n"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0\n"
        "print({'torch', 'torchvision', 'mlflow', 'cv2', 'pandas', 'sklearn', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_without_arguments_it_teaches_the_path_in_order(run, tmp_path):
    status, out, _ = run(cwd=tmp_path)
    commands = ("dvc pull data.dvc", "mitoscope validate", "dvc repro", "mitoscope compare", "mitoscope promote")
    places = [out.index(command) for command in (*commands, "mitoscope detect", "mitoscope status", "mitoscope -h")]
    assert status == 0 and places == sorted(places)


def test_the_version_is_that_of_the_package(run, tmp_path):
    assert run("--version", cwd=tmp_path)[:2] == (0, f"mitoscope {version('mitoscope')}\n")


@pytest.mark.parametrize(("columns", "lines"), [({}, 1), ({"COLUMNS": "80"}, 4)])
def test_a_table_in_a_pipe_is_as_wide_as_its_cells_or_as_columns_says(columns, lines):
    code = (
        "from rich.table import Table; from mitoscope.progress import console\n"
        "table = Table(show_header=False, box=None, padding=0); table.add_column(overflow='fold')\n"
        "table.add_row('a' * 300); console.print(table)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"} | columns
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == lines and done.stdout.count("a") == 300


def test_bad_input_is_one_line(rejected, project):
    assert rejected("compare", cwd=project).startswith("patches/summary.json: no patch store; run `dvc repro extract`")
    assert rejected("validate", "elsewhere", cwd=project).startswith("elsewhere: no such folder")


@pytest.mark.slow
@pytest.mark.parametrize(("no_color", "escapes"), [("1", False), ("", True)])
def test_an_error_on_a_terminal_is_red_unless_no_color_is_set(tmp_path, no_color, escapes):
    terminal, end = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "TERM")}
    command = [sys.executable, "-m", "mitoscope", "validate", "nowhere"]
    with os.fdopen(terminal, "rb", buffering=0) as reader:
        done = subprocess.run(
            command, cwd=tmp_path, stderr=end, env=environment | {"NO_COLOR": no_color, "TERM": "xterm"}, check=False
        )
        os.close(end)
        said = reader.read(10_000)
    assert done.returncode == 2 and b"nowhere: no such folder" in said
    assert (b"\x1b[31m" in said) == escapes


@pytest.mark.slow
def test_a_stage_rejects_bad_input_in_one_line(rejected, project):
    (project / "params.yaml").write_text("split: 3\n")
    assert rejected("split", cwd=project).startswith("params.yaml: split must be a block of entries, not 3")


@pytest.mark.parametrize("command", [["ui", "--port", "5999"], ["rollback"], ["registry"], ["compare"], ["split"]])
def test_a_subfolder_of_a_project_is_named_and_nothing_is_made_there(rejected, project, command):
    below = project / "docs"
    below.mkdir()
    assert rejected(*command, cwd=below) == f"{below}: there is no params.yaml here; `cd {project}` first"
    assert list(below.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_one_line(rejected, tmp_path):
    (tmp_path / "file").write_text("")
    line = rejected("synthesize", "--out", "file/data", "--patients", "3", "--size", "200", cwd=tmp_path, code=1)
    assert line.startswith("file") and ("Not a directory" in line or "File exists" in line)


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path):
    def small_files_only() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # writing on is then an OSError, as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))

    arguments = ("synthesize", "--patients", "3", "--fields", "1", "--size", "200")
    process = start(*arguments, cwd=tmp_path, before=small_files_only)
    assert "File too large" in error_line(process.communicate(timeout=60)[1]) and process.returncode == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_ctrl_c_ends_quietly_and_leaves_nothing(tmp_path):
    # In the background of a shell, processes ignore Ctrl-C; this one must not.
    process = start(
        *("synthesize", "--patients", "99", "--fields", "9"),
        cwd=tmp_path,
        before=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # type: ignore[func-returns-value]
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".data.partial-*/*.jpg")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in out + err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_synthesize_and_validate_work_together(run, rejected, tmp_path):
    arguments = ("synthesize", "--patients", "4", "--fields", "1", "--size", "250", "--seed", "3")
    assert run(*arguments, cwd=tmp_path)[:2] == (0, "4 synthetic fields of 4 patients in data\n")
    assert rejected(*arguments, cwd=tmp_path).startswith("data: is not empty; choose another output folder")
    assert run(*arguments, "--replace", cwd=tmp_path)[0] == 0
    status, out, _ = run("validate", cwd=tmp_path)
    assert status == 0 and out.splitlines()[-1].startswith("valid: 4 fields of 4 patients")
    (tmp_path / "data/01_01.csv").write_text("hello\n")
    status, out, _ = run("validate", cwd=tmp_path)
    assert status == 2 and "01_01.csv: row 1: 'hello' is not two numbers" in out


@pytest.mark.parametrize(("imported", "kept"), [("", True), ("import triton; ", False)])
def test_python_ends_without_a_last_search_for_garbage(imported, kept):
    """Triton would complain about objects that are not freed."""
    if imported and find_spec("triton") is None:
        pytest.skip("torch brings no Triton on this system")
    code = (
        f"import atexit, gc, sys; {imported}from mitoscope.cli import main; "
        "atexit.register(lambda: print(gc.get_freeze_count() > 0)); sys.argv[1:] = ['--version']; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == str(kept) and not done.stderr
