"""Work on fields, one task each: in threads of this process, or on the workers of a Dask cluster.

The machines of a cluster share the folders of the project, of the images and of the results under the same paths.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

import mitoscope
from mitoscope.errors import InputError
from mitoscope.progress import console

if TYPE_CHECKING:
    from distributed import Client, Future, Worker

_CONNECT_SECONDS = 8
_REMEDY = "install the same packages for scheduler and workers"


class Named(Protocol):
    """What tasks work on, such as a field or the path of an image."""

    @property
    def name(self) -> str:
        """The name, for messages."""


Item = TypeVar("Item", bound=Named)
Result = TypeVar("Result")


def results(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    scheduler: str | None = None,
    *,
    threads: int | None = None,
) -> Generator[Result, None, None]:
    """Yield `function(item)` for every item, in the order of the items; an error of one of them ends all.

    A task may be done twice, when a worker is lost. So it writes only files with names that it makes up, and the caller
    moves them to their places. A caller that removes what tasks read or write uses `contextlib.closing`: after an error
    of its own, too, no task runs any more when the block ends.

    Args:
        function: on a cluster, a function of a module, or a `partial` of one. What it gets and returns is sent.
        items: what to work on.
        scheduler: address of Dask's scheduler; None = this process.
        threads: of this process; None = one per core, 1 = the caller's own, for a function that uses all cores itself.

    Raises:
        InputError: there is no scheduler at the address, it lacks a package or the shared folder, or `function` raises.
        OSError: the cluster is lost, or workers die of an item.
    """
    if scheduler is not None:
        yield from _on_cluster(function, items, scheduler)
    elif threads == 1:
        yield from map(function, items)
    else:
        # Threads: decoders, OpenCV and NumPy release the GIL. After an error the block waits for those that still run.
        with ThreadPoolExecutor(threads or _cores()) as pool:
            yield from pool.map(function, items)


def _cores() -> int:
    from joblib import cpu_count  # which knows the limits of a container

    return int(cpu_count())


def _on_cluster(
    function: Callable[[Item], Result], items: Sequence[Item], scheduler: str
) -> Generator[Result, None, None]:
    folder, version = Path.cwd(), mitoscope.__version__
    with _connect(scheduler) as client:
        while not _check_machines(client, scheduler, folder, version):
            console.print(f"{scheduler}: has no workers yet; waits for them", markup=False)
            client.wait_for_workers(1)
        # Not pure: Dask would take a result from an earlier call for one of files that have changed since.
        futures = client.map(partial(_run_in_folder, function, folder, version), items, pure=False)
        try:
            for item, future in zip(items, futures, strict=True):
                yield _result(future, item, scheduler)
        except BaseException:  # Ctrl-C too, and an error of the caller
            _stop(client, futures, scheduler)
            raise


def _result(future: "Future[Result]", item: Named, scheduler: str) -> Result:
    from distributed import KilledWorker

    try:
        return future.result()
    except KilledWorker as error:
        raise OSError(
            f"{item.name}: {error.allowed_failures + 1} workers of {scheduler} died with this field, one after the "
            "other; have they too little memory, or other packages?"
        ) from error
    except CancelledError as error:
        raise OSError(f"{scheduler}: the scheduler is lost; is it still running?") from error
    except ImportError as error:  # of a worker that came after `_check_machines`
        raise InputError(f"a worker of {scheduler}: {error}; {_REMEDY}") from error


def _stop(client: "Client", futures: "Sequence[Future[Result]]", scheduler: str) -> None:
    """Cancel tasks, and wait for those that run already, so that none writes when its folder is removed."""
    if client.status != "running":  # what it raises would hide the error
        return
    keys = {future.key for future in futures}
    # A worker does one at a time. The scheduler is asked, because a worker that hangs does not answer.
    begun = sum(not keys.isdisjoint(tasks) for tasks in client.processing().values())  # type: ignore[no-untyped-call]
    client.cancel(futures)  # type: ignore[no-untyped-call]
    if begun:
        line = f"{scheduler}: waits for {begun} fields that workers have begun; press Ctrl-C to leave them"
        console.print(line, markup=False)
    while client.status == "running" and any(client.run(_runs_one_of, keys, on_error="ignore").values()):
        time.sleep(0.05)


def _runs_one_of(keys: set[str], dask_worker: "Worker") -> bool:
    """Whether a worker still runs one of these tasks."""
    return any(task.key in keys for task in dask_worker.state.executing)


@contextlib.contextmanager
def _connect(scheduler: str) -> "Iterator[Client]":
    """Yield a client, whose unfinished tasks are cancelled when the block ends.

    Raises:
        InputError: the extra `distributed` is missing, or no scheduler answers.
    """
    try:
        from distributed import Client
    except ModuleNotFoundError as error:
        raise InputError(
            f"--scheduler {scheduler}: needs the package distributed: install the extra mitoscope[distributed]"
        ) from error
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # our own line says what is wrong
    try:
        client = Client(scheduler, timeout=_CONNECT_SECONDS, set_as_default=False)  # type: ignore[no-untyped-call]
    except Exception as error:  # whatever another program's answer leads to
        raise InputError(
            f"--scheduler {scheduler}: there is no Dask scheduler ({error}); start one with `dask scheduler`"
        ) from error
    with client:
        yield client


def _check_machines(client: "Client", scheduler: str, folder: Path, version: str) -> int:
    """Check that the scheduler and the workers can do tasks as this process would; return the number of workers.

    Raises:
        InputError: one of them cannot.
    """
    answers = client.run(_check_worker, folder, version, on_error="return")
    try:
        answers[scheduler] = client.run_on_scheduler(_check_version, version)  # type: ignore[no-untyped-call]
    except Exception as error:
        answers[scheduler] = error
    for machine, answer in answers.items():
        if isinstance(answer, InputError):
            raise answer
        if isinstance(answer, Exception) and not isinstance(answer, OSError):  # which is a worker that is lost
            raise InputError(f"{machine}: {answer}; {_REMEDY}") from answer
    return len(answers) - 1


def _check_version(version: str) -> None:
    if version != mitoscope.__version__:
        raise InputError(f"a machine of the cluster has mitoscope {mitoscope.__version__}; install {version} on all")


def _check_worker(folder: Path, version: str, dask_worker: "Worker") -> None:
    _check_version(version)
    name = f"worker {dask_worker.address}"
    if dask_worker.state.nthreads > 1:  # they would share the working directory
        raise InputError(f"{name}: does several tasks at once; start it with --nthreads 1")
    if not folder.is_dir():
        raise InputError(f"{name}: has no folder {folder}; share it under this path")


def _run_in_folder(function: Callable[[Item], Result], folder: Path, version: str, item: Item) -> Result:
    """Run a task on a worker, in the folder of the command: there, relative paths and messages mean the same."""
    from distributed import get_worker

    _check_worker(folder, version, get_worker())  # again: it may be a new one
    with contextlib.chdir(folder):
        return function(item)
