"""Requests are computed in turn, and a client that has gone gives its turn away."""

import asyncio
import threading

import pytest
from starlette.exceptions import HTTPException

from mitoscope.service.desk import Desk


@pytest.fixture
def desk(registry) -> Desk:
    return Desk(registry, 4, lambda _: None)


def test_one_is_computed_at_a_time_and_who_has_gone_is_left_out(desk):
    computed: list[str] = []
    first_runs, go_on = threading.Event(), threading.Event()

    def first() -> str:
        first_runs.set()
        go_on.wait(30)
        computed.append("first")
        return "done"

    async def follow() -> None:
        stays, gone = asyncio.Event(), asyncio.Event()
        running = asyncio.create_task(desk.compute(first, stays.wait()))
        await asyncio.to_thread(first_runs.wait, 30)
        leaving = asyncio.create_task(desk.compute(lambda: computed.append("gone"), gone.wait()))
        waiting = asyncio.create_task(desk.compute(lambda: computed.append("last"), stays.wait()))
        gone.set()
        with pytest.raises(HTTPException, match="400: the connection was closed"):
            await leaving
        assert computed == [] and not waiting.done()
        go_on.set()
        assert await running == "done"
        await waiting

    asyncio.run(follow())
    assert computed == ["first", "last"]


def test_who_waits_when_the_service_stops_is_told(desk):
    go_on = threading.Event()

    async def stop() -> None:
        stays = asyncio.Event()
        running = asyncio.create_task(desk.compute(lambda: go_on.wait(30), stays.wait()))
        waiting = asyncio.create_task(desk.compute(lambda: None, stays.wait()))
        await asyncio.sleep(0.05)
        waiting.cancel()
        with pytest.raises(HTTPException, match="503: the service is stopping"):
            await waiting
        go_on.set()
        assert await running

    asyncio.run(stop())


def test_an_error_of_the_work_is_that_of_the_turn(desk):
    async def fail() -> None:
        await desk.compute(lambda: 1 / 0, asyncio.Event().wait())

    with pytest.raises(ZeroDivisionError):
        asyncio.run(fail())
