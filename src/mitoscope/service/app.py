"""The service as a FastAPI application."""

import asyncio
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import Depends, FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from mitoscope.detection.sent import FIELD, MOST_PIXELS
from mitoscope.service.body import Edge
from mitoscope.service.desk import Desk
from mitoscope.service.metrics import Metrics
from mitoscope.service.routes import DETECT, State, anybody, start, with_token

_ABOUT = f"""Finds the mitoses of H&E fields, as `mitoscope detect` does. For research only.

Send an 8-bit RGB image (PNG, JPEG or TIFF, at most {MOST_PIXELS:,} pixels), as the body or as the file `{FIELD}` of a
form:

    curl --data-binary @field.tif 'http://127.0.0.1:8080/detect?microns_per_pixel=0.25'
    curl --form {FIELD}=@field.tif http://127.0.0.1:8080/detect
"""


_PAGE_HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",  # both for threads
    "Cross-Origin-Embedder-Policy": "require-corp",
    # As in the page itself: a worker has the policy of its own response.
    "Content-Security-Policy": "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; "
    "connect-src 'self' data:; img-src 'self'; style-src 'self'; manifest-src 'self'; base-uri 'none'; "
    "form-action 'none'",
    "X-Frame-Options": "DENY",
}
Check = Callable[[Request], Awaitable[None]]
"""Raises HTTPException if a request may not be answered."""


@dataclass(frozen=True)
class Limits:
    """How the service protects itself.

    Attributes:
        most_bytes: size of a request's body.
        token: what a request must carry as `Authorization: Bearer TOKEN`; None = nothing.
        hosts: names of this machine that a request without a token must ask for. A page elsewhere whose name leads to
            this machine asks for another one.
    """

    most_bytes: int
    token: str | None
    hosts: Sequence[str]


class Page(StaticFiles):
    """The files that `mitoscope page` wrote, with what its threads and its worker need from the first load on.

    Args:
        folder: the files.
        check: of every request; None = anybody may have them.
    """

    def __init__(self, folder: Path, check: Check | None) -> None:
        super().__init__(directory=folder, html=True)
        self._check = check

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Return a file."""
        if self._check:
            await self._check(Request(scope))
        response = await super().get_response(path, scope)
        response.headers.update(_PAGE_HEADERS)
        return response


def create_app(
    desk: Desk, limits: Limits, *, version: str, look_every: float | None, page: Path | None = None
) -> FastAPI:
    """Return the service.

    Args:
        desk: takes the requests.
        limits: of a request.
        version: of mitoscope.
        look_every: seconds after which to look for another version of the detector; None = never.
        page: folder that `mitoscope page` wrote, for `/`; None = `/` leads to the interface.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        following = asyncio.create_task(desk.follow(look_every)) if look_every else None
        yield
        if following:
            following.cancel()
            with suppress(asyncio.CancelledError):
                await following

    app = FastAPIOffline(title="mitoscope", version=version, description=_ABOUT, lifespan=lifespan, redoc_url=None)
    metrics = Metrics(lambda: desk.here)

    def count(path: str, status: int) -> None:
        if path == DETECT:
            metrics.answers.labels(status).inc()

    app.state.service = State(desk, metrics, limits.most_bytes)
    app.add_middleware(Edge, count=count)
    app.add_exception_handler(RequestValidationError, _say_in_one_line)
    app.add_exception_handler(Exception, _say_that_it_failed)
    from_here = None if limits.token else _from(limits.hosts)
    may_ask = Depends(_bearer(limits.token) if limits.token else from_here)
    app.include_router(anybody, dependencies=[] if limits.token else [may_ask])
    app.include_router(with_token, dependencies=[may_ask])
    if page:
        app.mount("/", Page(page, from_here))
    else:
        app.include_router(start)
    return app


async def _say_in_one_line(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    return JSONResponse({"detail": f"{first['loc'][-1]}: {first['msg']}"}, 422)


async def _say_that_it_failed(_: Request, __: Exception) -> JSONResponse:
    return JSONResponse({"detail": "the service failed at this request; its log says why"}, 500)


def _from(hosts: Sequence[str]) -> Check:
    """Return a dependency that lets requests for these hosts pass, if they are not from a page elsewhere.

    A browser lets any page send a request to this machine, although the page does not get the answer.
    """

    async def check(request: Request) -> None:
        host, origin = request.headers.get("host", ""), request.headers.get("origin")
        try:
            mine = urlsplit(f"//{host}").hostname in hosts and (origin is None or urlsplit(origin).netloc == host)
        except ValueError:  # no address
            mine = False
        if not mine:
            line = "only programs and pages of this machine are answered; set MITOSCOPE_TOKEN to answer others"
            raise HTTPException(403, line)

    return check


def _bearer(token: str) -> Any:
    """Return a dependency that lets requests with this token pass."""
    scheme = HTTPBearer(auto_error=False)

    async def check(given: Annotated[HTTPAuthorizationCredentials | None, Depends(scheme)]) -> None:
        if given is None or not hmac.compare_digest(given.credentials.encode(), token.encode()):
            line = "the token is missing or wrong; send it as Authorization: Bearer TOKEN"
            raise HTTPException(401, line, {"WWW-Authenticate": "Bearer"})

    return check
