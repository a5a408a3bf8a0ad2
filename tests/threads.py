"""The same thing done by several threads at once."""

import threading
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
