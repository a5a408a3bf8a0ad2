"""The desk of the service: which detector answers, how many requests are taken, and one at a time is computed."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol, TypeVar

from starlette.exceptions import HTTPException

from mitoscope.errors import InputError, printable
from mitoscope.service.answers import Served

_Result = TypeVar("_Result")


class NoVersionError(InputError):
    """There is no version to serve: nobody has the alias."""


class Source(Protocol):
    """Where detectors come from. The methods block, and are called in threads."""

    def version(self) -> int | None:
        """Return the version that is to be served; None if it never changes.

        Raises:
            NoVersionError: there is none now.
            InputError: the registry does not answer.
        """

    def load(self, version: int | None) -> Served:
        """Load a version.

        Raises:
            InputError: it cannot be loaded.
        """


class Desk:
    """Takes requests, up to a limit, and computes them one after the other with the current detector.

    One at a time: a detector uses all processors, and the memory of one field is known.

    Args:
        source: where detectors come from.
        most_requests: how many requests may be here at once, being read, waiting or computed.
        say: called with a line for the log.

    Raises:
        InputError: the first detector cannot be loaded.
    """

    def __init__(self, source: Source, most_requests: int, say: Callable[[str], None]) -> None:
        self._source, self._most, self._say = source, most_requests, say
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="detect")
        self.turn = asyncio.Lock()  # held by the request that is computed
        self._reason = ""
        self.here = 0
        self._version = source.version()
        self._served: Served | None = source.load(self._version)

    def served(self) -> Served:
        """Return the current detector.

        Raises:
            HTTPException: 503, there is none.
        """
        if self._served is None:
            raise HTTPException(503, self._reason, {"Retry-After": "30"})
        return self._served

    @property
    def full(self) -> bool:
        """Whether the next request would be turned away."""
        return self.here >= self._most

    @contextmanager
    def place(self) -> Iterator[None]:
        """Take one of the places for a request.

        Raises:
            HTTPException: 429, all are taken.
        """
        if self.full:
            raise HTTPException(
                429, f"{self._most} requests are here, which is the limit; try again", {"Retry-After": "2"}
            )
        self.here += 1
        try:
            yield
        finally:
            self.here -= 1

    async def compute(self, work: Callable[[], _Result]) -> _Result:
        """Run a function in the thread that computes."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def follow(self, seconds: float) -> None:
        """Look every so many seconds for another version, and serve that one when it is loaded.

        Requests that are being computed end with the detector that they began with. If the registry does not answer,
        or the other version cannot be loaded, the current detector stays.
        """
        said = ""
        while True:
            await asyncio.sleep(seconds)
            try:
                version = await asyncio.to_thread(self._source.version)
                if version != self._version or self._served is None:
                    self._served = await asyncio.to_thread(self._source.load, version)
                    self._version, said = version, ""
                    self._say(f"version {version} is served now")
            except NoVersionError as error:
                self._served, self._reason = None, str(error)
                line = f"nothing is served now: {error}"
            except Exception as error:  # whatever happens to the registry must not end the service, nor this loop
                line = f"version {self._version} stays: {printable(str(error))}"
            else:
                continue
            if line != said:
                self._say(line)
                said = line
