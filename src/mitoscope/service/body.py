"""Read the body of a request within limits of bytes and time, and answer whoever still sends."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mitoscope.detection.sent import FIELD

SECONDS, BYTES_PER_SECOND = 60.0, 50_000  # a body may take so many seconds, and more as it arrives
_LINGER_SECONDS = 5.0  # for what is still on its way when the answer is an error


async def read_file(request: Request, most_bytes: int) -> bytes:
    """Return the image file of a request: its body, or the part `field` of a form (multipart/form-data).

    FastAPI's own limit of bytes would answer without the line that says what to do.

    Args:
        request: the request, of whose body nothing has been read.
        most_bytes: size that a body may have.

    Raises:
        HTTPException: 400, the client has gone; 408, it takes too long; 413, it has more bytes; 422, the form has no
            file `field`; 503, the form cannot be stored.
    """
    too_large = HTTPException(413, f"the request has more than {most_bytes:,} bytes; split the image or compress it")
    if int(request.headers.get("content-length") or 0) > most_bytes:
        raise too_large
    got, started = 0, asyncio.get_running_loop().time()

    async def receive() -> Message:
        """Receive the next part of the body, and count its bytes: they may be more than the header says."""
        nonlocal got
        message = await request.receive()
        got += len(message.get("body", b""))
        if got > most_bytes:
            raise too_large
        limit.reschedule(started + SECONDS + got / BYTES_PER_SECOND)
        return message

    counted = Request(request.scope, receive)
    try:
        async with asyncio.timeout(SECONDS) as limit:
            if request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
                return await _read_form(counted)
            return await counted.body()
    except TimeoutError as error:
        raise HTTPException(408, "the request arrives too slowly; compress the image, or try again") from error
    except ClientDisconnect as error:
        raise HTTPException(400, "the connection was closed before the request was complete") from error


async def _read_form(request: Request) -> bytes:
    """Return the content of the file `field` of a form."""
    try:
        form = await request.form(max_files=1, max_fields=0)
    except (HTTPException, UnicodeError) as error:  # of the parser, or the one of `receive`
        if isinstance(error, HTTPException) and error.status_code == 413:
            raise
        reason = error.detail if isinstance(error, HTTPException) else "its text cannot be decoded"
        raise HTTPException(422, f"the form cannot be read ({reason}); send one file with the name {FIELD}") from error
    except OSError as error:  # a large file of a form is kept in a temporary one
        line = f"the form cannot be stored ({error.strerror}); send the image as the body"
        raise HTTPException(503, line, {"Retry-After": "30"}) from error
    try:
        file = form.get(FIELD)
        if not isinstance(file, UploadFile):
            raise HTTPException(422, f"the form has no file with the name {FIELD}")
        return await file.read()
    finally:
        await form.close()


class Edge:
    """Middleware that counts every answer, and takes the rest of a body before it answers with an error.

    Otherwise the connection is closed while the client still sends, and the client never sees the answer.

    Args:
        app: the service.
        count: called with the path and the status of each answer.
    """

    def __init__(self, app: ASGIApp, count: Callable[[str, int], None]) -> None:
        self._app, self._count = app, count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # A client that asks first sends nothing before somebody receives.
        more = b"expect" not in dict(scope["headers"])

        async def noting() -> Message:
            nonlocal more
            message = await receive()
            more = message.get("more_body", False)
            return message

        async def lingering(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._count(scope["path"], message["status"])
                if message["status"] >= 400:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(_LINGER_SECONDS):
                            while more:
                                await noting()
            await send(message)

        await self._app(scope, noting, lingering)
