"""Progress bars with ETA and throughput on a terminal; an occasional line elsewhere."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

# Into a pipe or a file a table is as wide as its cells need; a terminal, or the variable COLUMNS, limits it.
_WIDTH = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 1000
console = Console(soft_wrap=True, highlight=False, width=_WIDTH)
_QUIET_SECONDS = 30.0


class _Throughput(ProgressColumn):
    """Column with the items per second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f}/s" if speed else "", style="cyan")


@contextmanager
def progress() -> Iterator[Callable[[str, int, int], None]]:
    """Yield a function `(label, done, total)` that shows the progress of each label.

    On a terminal it draws one bar. In other output, such as a log file, it prints at most one line every 30 seconds.
    """
    if not console.is_terminal:
        said = time.monotonic()

        def say(label: str, done: int, total: int) -> None:
            nonlocal said
            if time.monotonic() - said > _QUIET_SECONDS:
                said = time.monotonic()
                console.print(f"{label}: {done} of {total}", highlight=False)

        yield say
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Throughput(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def show(label: str, done: int, total: int) -> None:
            if label not in tasks:
                for old in tasks.values():  # one bar at a time: the epochs of a training would fill the screen
                    bars.update(old, visible=False)
                tasks[label] = bars.add_task(label, total=total)
            bars.update(tasks[label], completed=done, total=total)

        yield show
