"""Things that happen at once: in several threads, or somewhere else."""

import threading
import time
from collections.abc import Callable


def at_once(action: Callable[[], object], times: int) -> None:
    """Do `action` in so many threads at once; fails where one of them does."""
    errors = []

    def run() -> None:
        try:
            action()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(times)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


def wait_until(done: Callable[[], object]) -> None:
    """Wait for another process, however slow the machine is, but not for ever."""
    end = time.monotonic() + 60
    while not done():
        assert time.monotonic() < end
        time.sleep(0.01)
