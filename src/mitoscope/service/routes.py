"""The routes of the service, and what its interface says of them."""

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query
from fastapi.responses import JSONResponse, RedirectResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from mitoscope.datasets.field_table import COARSEST_UM, FINEST_UM
from mitoscope.detection.sent import FIELD, SentField, SizeError
from mitoscope.errors import InputError
from mitoscope.service.answers import Answer, Problem, ServedModel, answer, as_geojson
from mitoscope.service.body import read_file
from mitoscope.service.desk import Desk
from mitoscope.service.metrics import Metrics

DETECT, GEOJSON = "/detect", "application/geo+json"
_FILE = {"type": "string", "format": "binary"}
_FORM = {"type": "object", "required": [FIELD], "properties": {FIELD: _FILE}}
_TYPES = ("application/octet-stream", "image/png", "image/jpeg", "image/tiff")
_BODY = {
    "required": True,
    "content": {kind: {"schema": _FILE} for kind in _TYPES} | {"multipart/form-data": {"schema": _FORM}},
}
_PROBLEMS = {
    400: "The connection was closed before the request was complete.",
    401: "The token is missing or wrong.",
    403: "The request is from a page elsewhere, or asks for another host.",
    408: "The request takes too long to arrive.",
    413: "Too many bytes, or too many pixels.",
    422: "No image that can be read, or a pixel size that does not fit.",
    429: "Too many requests at once; Retry-After says when to try again.",
    503: "There is no detector now; Retry-After says when to try again.",
}

anybody = APIRouter()
"""Routes that need no token."""
with_token = APIRouter()
"""Routes that need the token, if there is one."""
start = APIRouter()
"""What is at `/` where there is no page."""


@dataclass(frozen=True)
class State:
    """What the routes work with.

    Attributes:
        desk: takes the requests.
        metrics: counts them.
        most_bytes: size of a request's body.
    """

    desk: Desk
    metrics: Metrics
    most_bytes: int


class Options(BaseModel):
    """What a request may say of its field; another name is rejected, since it may be a misspelt pixel size."""

    model_config = ConfigDict(extra="forbid")

    microns_per_pixel: float | None = Field(
        None, ge=FINEST_UM, le=COARSEST_UM, description="Pixel size, um; by default the file's, or else the model's."
    )
    format: Literal["json", "geojson"] = Field("json", description="geojson: outlines that QuPath opens.")


def state_of(request: Request) -> State:
    """Return the state of the service that got a request."""
    state: State = request.app.state.service
    return state


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the descriptions of these statuses for OpenAPI."""
    return {status: {"model": Problem, "description": _PROBLEMS[status]} for status in statuses}


_State = Annotated[State, Depends(state_of)]
_GEOJSON: Mapping[int | str, dict[str, Any]] = {200: {"content": {GEOJSON: {"schema": {"type": "object"}}}}}


@with_token.post(
    DETECT,
    response_model=Answer,
    responses={**_GEOJSON, **problems(*_PROBLEMS)},
    openapi_extra={"requestBody": _BODY},
)
async def detect(request: Request, state: _State, options: Annotated[Options, Query()]) -> Response:
    """Find the mitoses of a field."""
    started = time.perf_counter()
    with state.desk.place():
        found = await _find(state, request, options.microns_per_pixel)
    state.metrics.seconds.observe(time.perf_counter() - started)
    if options.format == "geojson":
        return JSONResponse(as_geojson(found), media_type=GEOJSON)
    return Response(found.model_dump_json(), media_type="application/json")


async def _find(state: State, request: Request, microns_per_pixel: float | None) -> Answer:
    """Read a request, wait for its turn, and answer it.

    Raises:
        HTTPException: it cannot be answered.
    """
    desk, metrics = state.desk, state.metrics
    desk.served()  # without a detector the body need not be read
    content = await read_file(request, state.most_bytes)
    if not content:
        raise HTTPException(422, "the request has no body; send an image")

    def compute() -> Answer:
        with metrics.computing.time():
            return answer(desk.served(), field, microns_per_pixel)

    try:
        field = await asyncio.to_thread(SentField.read, content)
        found = await desk.compute(compute, _until_gone(request))
    except SizeError as error:
        raise HTTPException(413, str(error)) from error
    except InputError as error:
        raise HTTPException(422, str(error)) from error
    metrics.pixels.inc(found.width * found.height)
    metrics.mitoses.inc(found.count)
    return found


async def _until_gone(request: Request) -> None:
    """Wait until the client closes the connection; the whole body has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


@with_token.get("/model", responses=problems(401, 403, 503))
async def model(state: _State) -> ServedModel:
    """Say which detector answers."""
    return state.desk.served().model


@with_token.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **problems(401, 403)},
)
async def metrics(state: _State) -> Response:
    """Return the counters, for Prometheus."""
    counters = state.metrics
    counters.model.clear()
    with suppress(HTTPException):  # there is none now
        served = state.desk.served().model
        counters.model.labels(served.version or "", served.run_id, served.detector_sha256).set(1)
    return Response(generate_latest(counters.registry), media_type=CONTENT_TYPE_LATEST)


@anybody.get("/health", responses=problems(403))
async def health() -> dict[str, str]:
    """Say that the process lives."""
    return {"status": "lives"}


@anybody.get("/ready", responses=problems(403, 429, 503))
async def ready(state: _State) -> dict[str, str]:
    """Say whether a field would be taken now."""
    state.desk.served()
    with state.desk.place():
        return {"status": "ready"}


@start.get("/", include_in_schema=False)
async def to_docs() -> RedirectResponse:
    """Lead people to the page that shows how to ask."""
    return RedirectResponse("docs")
