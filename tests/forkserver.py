"""`mitoscope` in a pipeline of the tests, without the ten seconds of imports that each command begins with.

A process that has the large packages behind it forks for each command. The command itself is the real one, in a process
of its own: its code, which is imported afterwards, its arguments, folder, environment, output and exit status. `dvc`
finds it as `mitoscope` at the front of PATH. A test that kills its commands must start the installed ones: a signal
reaches this client only.
"""

import contextlib
import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

# What the stages import, less mitoscope. MLflow before the others asks for less memory than after them.
PACKAGES = ("mlflow", "cv2", "matplotlib.pyplot", "optuna", "pandas", "sklearn.metrics", "sklearn.model_selection")
PACKAGES += ("sklearn.linear_model", "torch", "torchvision", "torchvision.transforms.v2", "typer", "jinja2", "joblib")

CLIENT = """#!{python} -ES
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    socket.send_fds(server, [b"+"], [0, 1, 2])
    server.sendall(json.dumps([sys.argv, os.getcwd(), dict(os.environ)]).encode())
    server.shutdown(socket.SHUT_WR)
    status = server.recv(4)
sys.exit(int(status) if status else 1)
"""


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Path]:
    """Start the server; yields a folder for the front of PATH, in which `mitoscope` is."""
    address, programs = folder / "socket", folder / "bin"
    programs.mkdir()
    client = programs / "mitoscope"
    client.write_text(CLIENT.format(python=sys.executable, address=str(address)))
    client.chmod(0o755)
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.forkserver", str(address)],
        cwd=Path(__file__).parents[1],
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 180
        while not address.exists():
            assert server.poll() is None and time.monotonic() < deadline, "the fork server did not start"
            time.sleep(0.05)
        yield programs
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def serve(address: Path) -> None:
    """Fork for each command that is asked for, as long as the process lives that started this one."""
    for package in PACKAGES:
        importlib.import_module(package)
    gc.collect()
    gc.freeze()  # what is here already need not be looked at, and copied, in each command
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who answer
    parent = os.getppid()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.settimeout(5)
        listener.bind(str(address.with_suffix(".new")))
        listener.listen()
        address.with_suffix(".new").rename(address)  # now commands find it
        while True:
            connection = None
            while connection is None:
                with contextlib.suppress(TimeoutError):
                    connection, _ = listener.accept()
                if os.getppid() != parent:  # pytest was killed
                    return
            with connection:
                if os.fork() == 0:
                    listener.close()
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    _answer(connection)


def _answer(connection: socket.socket) -> None:
    """Run one command in a process of its own, and send its exit status."""
    _, outputs, _, _ = socket.recv_fds(connection, 1, 3)
    asked = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    if (command := os.fork()) == 0:
        connection.close()
        _become(asked, outputs)
    _, status = os.waitpid(command, 0)
    code = os.waitstatus_to_exitcode(status)
    connection.sendall(str(code if code >= 0 else 128 - code).encode())
    os._exit(0)


def _become(asked: bytes, outputs: list[int]) -> None:
    """Take the command's place; ends as the interpreter does, with all that is to be done at its exit."""
    sys.argv, folder, environment = json.loads(asked)
    for standard, output in enumerate(outputs):
        os.dup2(output, standard)
    sys.modules["__main__"].__package__ = ""  # what the usage line makes the program's name of
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
    from mitoscope.cli import main

    main()
    sys.exit()


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
