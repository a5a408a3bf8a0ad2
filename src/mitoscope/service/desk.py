"""The desk of the service: it takes requests up to a limit, computes one at a time, and follows the registry."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from starlette.exceptions import HTTPException

from mitoscope.errors import InputError
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

    One at a time: a detector uses all processors, and the decoded pixels of one field are in memory.

    Args:
        source: where detectors come from.
        most_requests: how many requests may be here at once, being read, waiting or computed.
        say: called with a line for the log.

    Attributes:
        here: how many requests are here.

    Raises:
        InputError: the first detector cannot be loaded.
    """

    def __init__(self, source: Source, most_requests: int, say: Callable[[str], None]) -> None:
        self._source, self._most, self._say = source, most_requests, say
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="detect")
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

    @contextmanager
    def place(self) -> Iterator[None]:
        """Take one of the places for a request.

        Raises:
            HTTPException: 429, all are taken.
        """
        if self.here >= self._most:
            line = f"{self._most} requests are here, which is the limit; try again"
            raise HTTPException(429, line, {"Retry-After": "2"})
        self.here += 1
        try:
            yield
        finally:
            self.here -= 1

    async def compute(self, work: Callable[[], _Result], gone: Awaitable[object]) -> _Result:
        """Run a function in its turn, in the thread that computes.

        Args:
            work: the function.
            gone: ends when the client has gone; a function that waits for its turn is then left out.

        Raises:
            HTTPException: 400, the client has gone; 503, the service stops.
        """
        turn = asyncio.get_running_loop().run_in_executor(self._thread, work)
        leaving = asyncio.ensure_future(gone)
        try:
            both: set[asyncio.Future[Any]] = {turn, leaving}
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if not turn.done():
                raise HTTPException(400, "the connection was closed")
            return await turn
        except asyncio.CancelledError as error:  # the server gives up who still waits when it has to stop
            raise HTTPException(503, "the service is stopping; try again", {"Retry-After": "30"}) from error
        finally:
            turn.cancel()
            leaving.cancel()

    async def follow(self, seconds: float) -> None:
        """Look every so many seconds for another version, and serve that one when it is loaded.

        A request that is being computed ends with the detector that it began with. If the registry does not answer, or
        the other version cannot be loaded, the current detector stays.
        """
        said = ""
        while True:
            await asyncio.sleep(seconds)
            line = await self._look()
            if line and line != said:
                self._say(line)
            said = line

    async def _look(self) -> str:
        """Look once; return a line on what has changed or failed, or nothing."""
        try:
            version = await asyncio.to_thread(self._source.version)
            if version == self._version and self._served is not None:
                return ""
            self._served = await asyncio.to_thread(self._source.load, version)
            self._version = version
            return f"version {version} is served now"
        except NoVersionError as error:
            self._served, self._reason = None, str(error)
            return f"nothing is served now: {error}"
        except Exception as error:  # whatever happens to the registry must not end this task
            reason = str(error) if isinstance(error, InputError) else type(error).__name__  # others may say a password
            if self._served is None:
                self._reason = reason
                return f"nothing is served now: {reason}"
            return f"version {self._version} stays: {reason}"
