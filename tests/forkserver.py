"""`mitoscope`, `dvc`, `mlflow`, `uvicorn` and `python` without the seconds that each command begins with.

A process that has imported the large packages, and drawn a picture, forks for each command. The command itself is the
real one, in a process of its own: its code (that of mitoscope is imported afterwards), its arguments, folder,
environment, output and exit status. Only the interpreter's last second, in which it takes its modules apart, is left
out. Other programs find it at the front of PATH. Of signals, only SIGKILL reaches the command; others reach its client.
"""

import atexit
import contextlib
import fcntl
import gc
import importlib
import io
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from importlib.metadata import entry_points
from pathlib import Path

NAMES = ("mitoscope", "dvc", "mlflow", "uvicorn", "python")
# What they import, less mitoscope. MLflow before the others asks for less memory than after them.
PACKAGES = ("mlflow", "cv2", "matplotlib.pyplot", "optuna", "pandas", "sklearn.metrics", "sklearn.model_selection")
PACKAGES += ("sklearn.linear_model", "torch", "torchvision", "torchvision.transforms.v2", "typer", "jinja2", "joblib")
PACKAGES += ("mlflow.cli", "dvc.cli.parser", "dvc.repo.reproduce", "dvc_data.index", "scmrepo.git", "networkx")
PACKAGES += ("mlflow.pyfunc", "mlflow.store.tracking.sqlalchemy_store", "mlflow.tracing.provider", "onnxruntime")
PACKAGES += ("onnxscript", "torch.onnx", "filelock", "imagecodecs", "pyarrow.pandas_compat", "git")

CLIENT = """#!{python} -ES
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    socket.send_fds(server, [b"+"], [0, 1, 2])
    server.sendall(json.dumps([sys.argv, os.getcwd(), dict(os.environ)]).encode() + b"\\n")
    status = server.recv(4)
sys.exit(int(status) if status else 1)
"""


def programs(folder: Path, lives_with: int) -> Path:
    """Return a folder for the front of PATH with the programs. The first to call for `folder` starts the server.

    The server ends within a second after the process `lives_with`.
    """
    folder.mkdir(exist_ok=True)
    address, found = folder / "socket", folder / "bin"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if address.exists():
            return found
        found.mkdir(exist_ok=True)
        for name in NAMES:
            (found / name).write_text(CLIENT.format(python=sys.executable, address=str(address)))
            (found / name).chmod(0o755)
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.forkserver", str(address), str(lives_with)],
            cwd=Path(__file__).parents[1],
            start_new_session=True,
        )
        deadline = time.monotonic() + 180
        while not address.exists():
            assert server.poll() is None and time.monotonic() < deadline, "the fork server did not start"
            time.sleep(0.05)
    return found


def serve(address: Path, lives_with: int) -> None:
    """Fork for each command that is asked for, as long as a process lives."""
    gc.disable()
    for package in PACKAGES:
        importlib.import_module(package)
    _warm()
    gc.freeze()  # what is here already need not be looked at, and copied, in each command
    gc.enable()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who answer
    with socket.socket(socket.AF_UNIX) as listener:
        listener.settimeout(1)
        listener.bind(str(address.with_suffix(".new")))
        listener.listen()
        address.with_suffix(".new").rename(address)  # now commands find it
        while True:
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                os.kill(lives_with, 0)  # ends the server where there is no such process
                continue
            with connection:
                if os.fork() == 0:
                    listener.close()
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    _answer(connection)


def _warm() -> None:
    """Fill the caches that many commands fill: the sizes of letters, and which package a module belongs to."""
    from matplotlib.figure import Figure
    from mlflow.utils.requirements_utils import _init_packages_to_modules_map

    axes = (figure := Figure(layout="constrained")).subplots()
    axes.semilogy([1, 10], label="a")
    axes.legend()
    figure.savefig(io.BytesIO())
    _init_packages_to_modules_map()


def _answer(connection: socket.socket) -> None:
    """Run one command in a process of its own, and send its exit status. A client that is killed takes it along."""
    _, outputs, _, _ = socket.recv_fds(connection, 1, 3)
    asked = b""
    while not asked.endswith(b"\n"):
        if not (part := connection.recv(1 << 16)):
            os._exit(0)  # killed while it asked
        asked += part
    if (command := os.fork()) == 0:
        os.setpgid(0, 0)
        connection.close()
        _become(asked, outputs)
    with contextlib.suppress(OSError):  # the command did it itself, or has ended
        os.setpgid(command, command)
    ended = os.pidfd_open(command)
    if ended not in select.select([connection, ended], [], [])[0]:
        os.killpg(command, signal.SIGKILL)  # with its children; those that are clients take their commands along
    _, status = os.waitpid(command, 0)
    code = os.waitstatus_to_exitcode(status)
    with contextlib.suppress(BrokenPipeError):
        connection.sendall(str(code if code >= 0 else 128 - code).encode())
    os._exit(0)


def _become(asked: bytes, outputs: list[int]) -> None:
    """Take the command's place; an end without an error does all that is to be done at an interpreter's exit."""
    sys.argv, folder, environment = json.loads(asked)
    for standard, output in enumerate(outputs):
        os.dup2(output, standard)
    sys.modules["__main__"].__package__ = ""  # what the usage line makes the program's name of
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
    status = 0
    try:
        if (name := Path(sys.argv[0]).name) == "python":
            sys.argv = sys.argv[1:]  # -c CODE ..., -m MODULE ..., or FILE ...
            if sys.argv[0] == "-c":
                exec(sys.argv.pop(1), {"__name__": "__main__"})
            elif sys.argv[0] == "-m":
                sys.path.insert(0, folder)
                runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
            else:
                sys.path.insert(0, str(Path(sys.argv[0]).parent))
                runpy.run_path(sys.argv[0], run_name="__main__")
        else:
            program = next(iter(entry_points(group="console_scripts", name=name)))  # two packages have the same mlflow
            sys.exit(program.load()())
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)


if __name__ == "__main__":
    with contextlib.suppress(ProcessLookupError):
        serve(Path(sys.argv[1]), int(sys.argv[2]))
