"""Bodies are read within limits of bytes and time."""

import asyncio
import time
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request

from mitoscope.service import body
from mitoscope.service.body import Edge, read_file

FORM = {"content-type": "multipart/form-data; boundary=x"}
PART = b'--x\r\nContent-Disposition: form-data; name="field"; filename="a"\r\n\r\n'


def read(parts: Iterable[bytes | None], most_bytes: int = 1000, **headers: str) -> bytes:
    """Read a body that arrives in these parts; None = the connection is closed."""
    waiting = iter(parts)

    async def receive() -> dict[str, Any]:
        try:
            part = next(waiting)
        except StopIteration:
            await asyncio.sleep(60)
        if part is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": part, "more_body": part != b""}

    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    request = Request({"type": "http", "method": "POST", "headers": named, "app": None}, receive)
    return asyncio.run(read_file(request, most_bytes))


def rejection(parts: Iterable[bytes | None], **headers: str) -> int:
    with pytest.raises(HTTPException) as caught:
        read(parts, **headers)
    assert "\n" not in caught.value.detail
    return caught.value.status_code


def test_a_body_and_a_form_give_the_file():
    assert read([b"ab", b"c", b""]) == b"abc"
    assert read([PART + b"ab", b"c\r\n--x--\r\n", b""], content_type=FORM["content-type"]) == b"abc"


def test_more_bytes_than_allowed_are_not_read():
    assert rejection([], content_length="1001") == 413  # nothing was received
    assert rejection([bytes(600), bytes(600)]) == 413
    assert rejection([PART + bytes(600), bytes(600)], content_type=FORM["content-type"]) == 413
    assert read([bytes(1000), b""]) == bytes(1000)


def test_a_body_that_does_not_arrive_is_given_up_and_a_slow_one_has_more_time(monkeypatch):
    monkeypatch.setattr(body, "SECONDS", 0.05)
    assert rejection([b"a"]) == 408
    assert rejection([b"a", None]) == 400
    monkeypatch.setattr(body, "BYTES_PER_SECOND", 10)

    def slowly() -> Iterator[bytes]:
        for part in (b"a", b"b", b""):
            time.sleep(0.04)
            yield part

    assert read(slowly()) == b"ab"


@pytest.mark.parametrize(
    "content",
    [b"", b"no form", b"--x--\r\n", PART.replace(b"field", b"other") + b"a\r\n--x--\r\n", b"--x\r\n\r\n--x--"],
)
def test_a_form_without_the_file_is_rejected(content):
    assert rejection([content, b""], content_type=FORM["content-type"]) == 422
    for kind in ("multipart/form-data", f"{FORM['content-type']}; charset=idna"):
        assert rejection([content, b""], content_type=kind) == 422


@pytest.mark.parametrize(
    ("status", "headers", "left"), [(413, {}, 0), (200, {}, 3), (413, {"expect": "100-continue"}, 3)]
)
def test_an_error_comes_when_the_body_has_been_sent(status, headers, left):
    """Else the client would be cut off while it sends. One that asks before it sends is answered at once."""
    waiting, sent = [b"a", b"b", b""], []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": status, "headers": []})

    async def receive() -> dict[str, Any]:
        part = waiting.pop(0)
        return {"type": "http.request", "body": part, "more_body": part != b""}

    async def send(message: dict[str, Any]) -> None:
        sent.append((message["status"], len(waiting)))

    named = [(name.encode(), value.encode()) for name, value in headers.items()]
    counted: list[tuple[str, int]] = []
    scope = {"type": "http", "path": "/detect", "headers": named}
    asyncio.run(Edge(app, lambda *answer: counted.append(answer))(scope, receive, send))
    assert sent == [(status, left)] and counted == [("/detect", status)]
