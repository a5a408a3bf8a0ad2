"""Work on fields, one task each: in threads of this process, or on the workers of a Dask cluster.

The machines of a cluster share the folders of the project, of the images and of the results under the same paths.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from mitoscope import __version__
from mitoscope.errors import InputError
from mitoscope.progress import console

if TYPE_CHECKING:
    from distributed import Client

_CONNECT_SECONDS = 8


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
) -> Iterator[Result]:
    """Yield `function(item)` for every item, in the order of the items; an error of one of them ends all.

    A task may be done twice, when a worker is lost. So it writes only files with names that it makes up, and the caller
    moves them to their places.

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


def _on_cluster(function: Callable[[Item], Result], items: Sequence[Item], scheduler: str) -> Iterator[Result]:
    with _connect(scheduler) as client:
        from distributed import KilledWorker

        if not client.scheduler_info()["workers"]:
            console.print(f"{scheduler}: has no workers yet; waits for them", markup=False)
        # Not pure: Dask would take a result from an earlier call for one of files that have changed since.
        futures = client.map(partial(_there, function, Path.cwd(), __version__), items, pure=False)
        for item, future in zip(items, futures, strict=True):
            try:
                result = future.result()
            except KilledWorker as error:
                raise OSError(
                    f"{item.name}: {error.allowed_failures + 1} workers of {scheduler} died of this field, one after "
                    "the other; have they too little memory?"
                ) from error
            except CancelledError as error:
                raise OSError(f"{scheduler}: the scheduler is lost; is it still running?") from error
            except ModuleNotFoundError as error:
                raise InputError(
                    f"{scheduler}: a worker lacks the package {error.name}; install the same packages on all machines"
                ) from error
            yield result


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
    try:
        client = Client(scheduler, timeout=_CONNECT_SECONDS, set_as_default=False)  # type: ignore[no-untyped-call]
    except Exception as error:  # whatever another program's answer leads to
        raise InputError(
            f"--scheduler {scheduler}: there is no Dask scheduler ({error}); start one with `dask scheduler`"
        ) from error
    with client:
        yield client


def _there(function: Callable[[Item], Result], folder: Path, version: str, item: Item) -> Result:
    """Run a task on a worker, in the folder of the command: there, relative paths and messages mean the same."""
    from distributed import get_worker

    worker = get_worker()
    if version != __version__:
        raise InputError(f"worker {worker.address}: has mitoscope {__version__}, this is {version}; install the same")
    if worker.state.nthreads > 1:  # they would share the folder
        raise InputError(f"worker {worker.address}: does several tasks at once; start it with --nthreads 1")
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(contextlib.chdir(folder))
        except OSError as error:
            raise InputError(
                f"worker {worker.address}: cannot open {folder} ({error.strerror}); share it under this path"
            ) from error
        return function(item)
