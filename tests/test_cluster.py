"""Fields on a Dask cluster: the results, the messages and what is left behind are those of one process."""

import importlib
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import pytest
from distributed import Client, LocalCluster
from typer.testing import CliRunner

import mitoscope
from mitoscope import cluster
from mitoscope.cli import app
from mitoscope.cluster import results
from mitoscope.commands import detect_field
from mitoscope.commands.detect import detect
from mitoscope.datasets.importers import Target
from mitoscope.datasets.importers.janowczyk import import_janowczyk
from mitoscope.datasets.validation import check_dataset
from mitoscope.errors import InputError
from mitoscope.stages import extract as stage
from mitoscope.stages.extract import extract
from tests.conftest import small_detector
from tests.threads import wait_until

NAMES = [Path(name) for name in "abcdef"]
NOWHERE = "tcp://127.0.0.1:9"


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """A scheduler, and two workers that are processes of their own."""
    with LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=True,
        dashboard_address="127.0.0.1:0",
        local_directory=str(tmp_path_factory.mktemp("workers")),
        silence_logs=logging.CRITICAL,
    ) as running:
        yield running


@pytest.fixture
def scheduler(local: LocalCluster) -> str:
    """Its address."""
    return local.scheduler_address


@pytest.fixture
def client(local: LocalCluster) -> Iterator[Client]:
    """A connection to it, to look at its workers."""
    with Client(local.scheduler_address, set_as_default=False) as connection:
        connection.wait_for_workers(2)  # one may be new, in place of one that another test has killed
        yield connection


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a folder, also hidden ones."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def slow_first(path: Path) -> str:
    time.sleep(0.2 if path.name == "a" else 0)
    return path.name.upper()


def die(folder: Path, path: Path) -> str:
    """Work on a path; of `d` the process dies, as when memory runs out, while the file `folder`/deadly is there."""
    if path.name == "d" and (folder / "deadly").exists():
        time.sleep(0.5)  # so that the result of another item has been sent
        os.kill(os.getpid(), signal.SIGKILL)
    return path.name.upper()


def work_until_released(folder: Path, path: Path) -> str:
    """Work until the file `folder`/released is there; on `a` only until a worker has begun another path."""
    if path.name == "a":
        wait_until(lambda: begun(folder))
    else:
        (folder / f"{path.name}.begun").touch()
        wait_until((folder / "released").exists)
        (folder / f"{path.name}.ended").touch()
    return path.name.upper()


def fail_at_a(folder: Path, path: Path) -> None:
    """Work as above, but find that `a` is bad."""
    work_until_released(folder, path)
    if path.name == "a":
        raise InputError("a: is bad")


def begun(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("*.begun")}


def ended(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("*.ended")}


def write_when_released(*arguments: Any) -> Any:
    """Cut the patches of a field, of all but the first when the file `released` is there."""
    if arguments[-1].name != "01_01":
        wait_until(Path("released").exists)
    return stage._write_field(*arguments)


def need_another_package(path: Path) -> None:
    import only_elsewhere  # type: ignore[import-not-found]  # noqa: F401


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("threads", [None, 1, 3])
def test_results_come_in_the_order_of_the_items(threads):
    assert list(results(slow_first, NAMES, threads=threads)) == list("ABCDEF")


def test_after_an_error_nothing_runs_any_more():
    running = set()

    def fail_at_b(path):
        running.add(path.name)
        time.sleep(0.1 if path.name != "b" else 0)
        if path.name == "b":
            raise InputError("b: is bad")
        running.remove(path.name)

    with pytest.raises(InputError, match="b: is bad"):
        list(results(fail_at_b, NAMES, threads=2))
    assert running == {"b"}


def test_without_a_scheduler_nothing_of_dask_is_loaded():
    code = "import sys; from mitoscope.cluster import results; print(*results(str, []), *sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "mitoscope.cluster" in loaded and not {"dask", "distributed"} & set(loaded)


def test_without_the_extra_one_line_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match=rf"{NOWHERE}: needs the package distributed: .*mitoscope\[distributed\]$"):
        list(results(slow_first, NAMES, NOWHERE))


@pytest.mark.parametrize("address", [NOWHERE, "http://x", "foo:bar", "localhost"])
def test_a_scheduler_that_does_not_answer_is_named(monkeypatch, address):
    assert cluster._CONNECT_SECONDS <= 10
    monkeypatch.setattr(cluster, "_CONNECT_SECONDS", 0.3)
    with pytest.raises(InputError, match=f"--scheduler {address}: there is no Dask scheduler .*`dask scheduler`$"):
        list(results(slow_first, NAMES, address))


@pytest.mark.parametrize(
    "command",
    [
        ["extract"],
        ["import", "janowczyk", "data", "--out", "imported"],
        ["import", "csv", "data", "data/01_01.csv", "--order", "row,col", "--out", "imported"],
        ["detect", "data/01_01.jpg", "--model", "detector.pt", "--out", "out"],
    ],
)
def test_the_commands_take_the_address_as_option_or_variable(project, monkeypatch, command):
    small_detector().save(Path("detector.pt"))
    monkeypatch.setattr(cluster, "_CONNECT_SECONDS", 0.1)
    before = contents(project)
    by_option = CliRunner().invoke(app, [*command, "--scheduler", NOWHERE])
    by_variable = CliRunner().invoke(app, command, env={"MITOSCOPE_SCHEDULER": NOWHERE})
    for done in (by_option, by_variable):
        assert isinstance(done.exception, InputError) and NOWHERE in str(done.exception)
    assert contents(project) == before


@pytest.mark.slow
def test_a_cluster_gives_results_in_the_order_of_the_items(scheduler):
    assert list(results(slow_first, NAMES, scheduler)) == list("ABCDEF")
    assert list(results(slow_first, [], scheduler)) == []


@pytest.mark.slow
def test_a_machine_that_lacks_a_package_is_named(scheduler, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "_check_worker", only_here(tmp_path, monkeypatch))
    with pytest.raises(InputError, match=r"^tcp://\S+: .*No module named 'only_here'.*; install the same packages for"):
        list(results(slow_first, NAMES, scheduler))


@pytest.mark.slow
def test_a_machine_that_comes_later_and_lacks_a_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "_check_worker", only_here(tmp_path, monkeypatch))
    with LocalCluster(n_workers=0, threads_per_worker=1, dashboard_address="127.0.0.1:0", silence_logs=50) as empty:
        lines = []

        def start_worker(line: str, **_: object) -> None:
            lines.append(line)
            empty.scale(1)

        monkeypatch.setattr(cluster.console, "print", start_worker)
        with pytest.raises(InputError, match=r"^tcp://\S+: .*No module named 'only_here'.*; install the same packages"):
            list(results(slow_first, NAMES, empty.scheduler_address))
    assert lines == [f"{empty.scheduler_address}: has no workers yet; waits for them"]


def only_here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function of a module that no worker has, in place of `_check_worker`."""
    module = folder / "only_here.py"
    module.write_text("def check(*_, dask_worker): pass\n")
    with monkeypatch.context() as here:
        here.syspath_prepend(folder)
        check = importlib.import_module("only_here").check
    module.unlink()
    return check


@pytest.mark.slow
def test_a_task_that_lacks_a_package_ends_in_one_line(scheduler):
    line = f"^a worker of {scheduler}: No module named 'only_elsewhere'; install the same packages for scheduler and"
    with pytest.raises(InputError, match=line):
        list(results(need_another_package, NAMES, scheduler))


@pytest.mark.slow
def test_after_an_error_nothing_runs_on_the_cluster(scheduler, client, tmp_path, monkeypatch):
    lines = []

    def release(line: str, **_: object) -> None:
        lines.append(line)
        (tmp_path / "released").touch()

    monkeypatch.setattr(cluster.console, "print", release)
    with pytest.raises(InputError, match="a: is bad"):
        list(results(partial(fail_at_a, tmp_path), NAMES, scheduler))
    assert begun(tmp_path) and begun(tmp_path) == ended(tmp_path) and not any(client.processing().values())
    line = f"{scheduler}: waits for [12] fields that workers have begun; press Ctrl-C to leave them"
    assert len(lines) == 1 and re.fullmatch(line, lines[0])


@pytest.mark.slow
def test_ctrl_c_leaves_fields_that_do_not_end(scheduler, tmp_path, monkeypatch):
    pressed = threading.Event()

    def press() -> None:
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGINT)
        while not pressed.wait(5):  # Python loses an interrupt that comes during a callback of the interpreter
            os.kill(os.getpid(), signal.SIGINT)

    # "press Ctrl-C to leave them"
    monkeypatch.setattr(cluster.console, "print", lambda line, **_: threading.Thread(target=press, daemon=True).start())
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever earlier tests have left
    try:
        with pytest.raises(KeyboardInterrupt):
            list(results(partial(fail_at_a, tmp_path), NAMES, scheduler))
    finally:
        pressed.set()
        signal.signal(signal.SIGINT, before)
    assert not ended(tmp_path)
    (tmp_path / "released").touch()


@pytest.mark.slow
def test_a_lost_scheduler_is_named(monkeypatch):
    monkeypatch.setattr(cluster, "_CONNECT_SECONDS", 1)  # then the client closes
    with LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0", silence_logs=50
    ) as lost:
        tasks = results(slow_first, NAMES, lost.scheduler_address)
        next(tasks)
        lost.close()
        wait_until(lambda: all(client.status == "closed" for client in Client._instances))
        with pytest.raises(OSError, match=f"^{lost.scheduler_address}: the scheduler is lost; is it still running"):
            next(tasks)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["extract", "detect", "import"])
def test_ctrl_c_between_two_fields_ends_all_tasks(project, scheduler, client, monkeypatch, command):
    small_detector().save(Path("detector.pt"))
    images = sorted(Path("data").glob("*.jpg"))
    for image in images[1:3]:  # which take longer than the first
        cv2.imwrite(str(image), cv2.resize(cv2.imread(str(image)), (1600, 1600)))
    before = contents(project)

    @contextmanager
    def progress() -> Iterator[object]:
        yield interrupt

    monkeypatch.setattr(stage, "progress", progress)
    monkeypatch.setattr("mitoscope.commands.detect.progress", progress)
    with pytest.raises(KeyboardInterrupt) as error:  # it keeps all variables, as an error does that ends the program
        if command == "extract":
            extract(scheduler)
        elif command == "detect":
            detect(images, model="detector.pt", out=Path("out"), microns_per_pixel=None, scheduler=scheduler)
        else:
            check_dataset(Path("data"), on_progress=interrupt, scheduler=scheduler)
    assert not any(client.processing().values()), error
    shutil.rmtree("out", ignore_errors=True)  # the first field is done
    assert contents(project) == before and not hidden(project)


@pytest.mark.slow
def test_an_item_that_kills_its_workers_is_named(local, scheduler, tmp_path, monkeypatch):
    (tmp_path / "deadly").touch()
    monkeypatch.setattr(local.scheduler, "allowed_failures", 0)
    with pytest.raises(OSError, match=f"^d: 1 workers of {scheduler} died with this field, one after the other"):
        list(results(partial(die, tmp_path), NAMES, scheduler))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("folder", "version", "message"),
    [
        (
            "/nowhere",
            mitoscope.__version__,
            r"worker tcp://\S+: has no folder /nowhere; share it under this path",
        ),
        (".", "0.0", r"a machine of the cluster has mitoscope .*; install 0\.0 on all"),
    ],
)
def test_a_worker_that_cannot_give_the_same_result_is_named(client, folder, version, message):
    with pytest.raises(InputError, match=message):
        client.submit(cluster._run_in_folder, slow_first, Path(folder), version, NAMES[1]).result()


@pytest.mark.slow
def test_a_worker_that_does_several_tasks_at_once_is_rejected():
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=2, processes=False, dashboard_address="127.0.0.1:0", silence_logs=50
        ) as threads,
        pytest.raises(InputError, match=r"worker inproc\S+: does several tasks at once; start it with --nthreads 1"),
    ):
        list(results(slow_first, NAMES, threads.scheduler_address))


@pytest.mark.slow
def test_extraction_gives_the_same_bytes(project, scheduler):
    extract()
    before = contents(Path("patches"))
    shutil.rmtree("patches")
    extract(scheduler)
    assert contents(Path("patches")) == before


@pytest.mark.slow
def test_a_killed_worker_changes_no_byte(project, scheduler, client, monkeypatch):
    """It is killed after the first field, in the middle of another one."""
    extract()
    before = contents(Path("patches"))
    shutil.rmtree("patches")
    process_of = client.run(os.getpid)

    @contextmanager
    def progress():
        def show(label: str, done: int, total: int) -> None:
            if done == 1:
                busy = next(worker for worker, tasks in client.processing().items() if tasks)
                os.kill(process_of[busy], signal.SIGKILL)
                Path("released").touch()

        yield show

    monkeypatch.setattr(stage, "progress", progress)
    monkeypatch.setattr(stage, "_write_field", write_when_released)
    extract(scheduler)
    assert contents(Path("patches")) == before
    assert set(client.run(os.getpid).values()) != set(process_of.values())


def test_what_a_lost_worker_still_writes_gets_into_no_store(extracted, monkeypatch):
    before = contents(Path("patches"))
    folders = set()

    def write_field(folder: Path, *arguments: Any) -> Any:
        folders.add(folder)
        return write(folder, *arguments)

    def write_json(*arguments: Any) -> None:
        for folder in folders:  # all fields are done
            folder.mkdir(exist_ok=True)
            (folder / "late.npy").touch()
        end(*arguments)

    write, end = stage._write_field, stage.write_json
    monkeypatch.setattr(stage, "_write_field", write_field)
    monkeypatch.setattr(stage, "write_json", write_json)
    extract()
    assert contents(Path("patches")) == before and len(folders) == 1


@pytest.mark.slow
def test_a_bad_field_is_the_same_line_and_leaves_the_old_store(extracted, scheduler):
    before = contents(Path("patches"))
    Path("data/03_01.jpg").write_bytes(Path("data/03_01.jpg").read_bytes()[:2000])
    lines = []
    for address in (None, scheduler):
        with pytest.raises(InputError) as error:
            extract(address)
        lines.append(str(error.value))
        assert contents(Path("patches")) == before and not hidden(Path())
    assert lines[0] == lines[1] and lines[0].startswith("data/03_01.jpg: ")


@pytest.mark.slow
def test_an_import_gives_the_same(raw, tmp_path, scheduler):
    target = Target(tmp_path / "here")
    expected = import_janowczyk(raw, target)
    assert import_janowczyk(raw, replace(target, out=tmp_path / "there", scheduler=scheduler)) == expected
    assert contents(tmp_path / "there") == contents(tmp_path / "here")


@pytest.mark.slow
def test_a_bad_image_is_the_same_line_and_imports_nothing(raw, tmp_path, monkeypatch, scheduler):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(raw, "set")
    Path("set/03_01.jpg").write_bytes(b"no image")
    lines = []
    for address in (None, scheduler):
        with pytest.raises(InputError) as error:
            import_janowczyk(Path("set"), Target(Path("data"), scheduler=address))
        lines.append(str(error.value))
        assert [path.name for path in tmp_path.iterdir()] == ["set"]
    assert lines[0] == lines[1] and lines[0].startswith("set/03_01.jpg: ")


@pytest.mark.slow
def test_detection_gives_the_same_and_loads_the_detector_once_per_worker(project, scheduler, client, capsys):
    small_detector().save(Path("detector.pt"))
    Path("notes.tif").write_text("no image")
    images = [Path("notes.tif"), *sorted(Path("data").glob("*.jpg"))]
    printed = []
    client.run(detect_field.load_detector.cache_clear)
    for out, address in (("here", None), ("there", scheduler)):
        arguments = {"model": "detector.pt", "out": Path(out), "microns_per_pixel": None, "evaluator": True}
        assert detect(images, scheduler=address, **arguments) == 1
        printed.append(capsys.readouterr().out.replace(out, "OUT"))
    assert contents(Path("there")) == contents(Path("here")) and len(contents(Path("here"))) == 8 * 4 + 2
    assert printed[0] == printed[1] and printed[0].count("skipped: notes.tif: is not an image") == 1
    loaded = [info.misses for info in client.run(detect_field.load_detector.cache_info).values()]
    assert max(loaded) == 1
