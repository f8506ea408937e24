"""The paths."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse

from streampulse.api import observe, queries
from streampulse.api.database import Database, Unavailable
from streampulse.api.models import (
    BadRequest,
    Health,
    History,
    Latest,
    Metrics,
    Problem,
    State,
    Top,
    Unhealthy,
)
from streampulse.api.page import INDEX, INDEX_HEADERS
from streampulse.api.parameters import (
    MAX_MINUTES,
    HistoryParameters,
    ListParameters,
    MetricsParameters,
    TopParameters,
)

router = APIRouter()

_ANSWERS: dict[int | str, dict[str, Any]] = {
    422: {"model": BadRequest, "description": "A parameter cannot be used; the answer says which"},
    503: {
        "model": Problem,
        "description": "The database cannot answer now",
        "headers": {"Retry-After": {"description": "seconds", "schema": {"type": "integer"}}},
    },
}


def _database(request: Request) -> Database:
    database: Database = request.app.state.database
    return database


@router.get("/health", responses={503: {"model": Unhealthy}}, tags=["operation"])
async def health(request: Request) -> Health:
    """Say whether PostgreSQL answers."""
    try:
        await _database(request).check()
    except Unavailable as error:
        body = Unhealthy(ok=False, error=str(error)).model_dump()
        return JSONResponse(body, status_code=503, headers={"Retry-After": "1"})  # type: ignore[return-value]
    return Health(ok=True)


@router.get("/metrics", responses=_ANSWERS, tags=["numbers"])
async def metrics(request: Request, asked: Annotated[MetricsParameters, Query()]) -> Metrics:
    """Rows of the last windows, newest first."""
    query = partial(queries.metrics, minutes=asked.minutes, limit=asked.limit, stream_id=asked.stream_id)
    latest_window_start, rows = await _database(request).run(query)
    return Metrics(latest_window_start=latest_window_start, rows=rows)  # type: ignore[arg-type]


@router.get("/metrics/latest", responses=_ANSWERS, tags=["numbers"])
async def latest(request: Request, asked: Annotated[ListParameters, Query()]) -> Latest:
    """Read the newest window of each stream, by stream; longer lists go on with `after`."""
    query = partial(queries.latest, limit=asked.limit, after=asked.after, stream_id=asked.stream_id)
    return Latest(rows=await _database(request).run(query))  # type: ignore[arg-type]


@router.get("/metrics/history", responses=_ANSWERS, tags=["numbers"])
async def history(request: Request, asked: Annotated[HistoryParameters, Query()]) -> History:
    """Rows of the last windows, oldest first: of one stream all of them, of all streams up to `limit`."""
    limit = MAX_MINUTES if asked.stream_id is not None and "limit" not in asked.model_fields_set else asked.limit
    query = partial(queries.history, minutes=asked.minutes, limit=limit, stream_id=asked.stream_id)
    return History(rows=await _database(request).run(query))  # type: ignore[arg-type]


@router.get("/state", responses=_ANSWERS, tags=["numbers"])
async def state(request: Request, asked: Annotated[ListParameters, Query()]) -> State:
    """Viewers of each stream just after the event clock, by stream; longer lists go on with `after`."""
    query = partial(queries.state, limit=asked.limit, after=asked.after, stream_id=asked.stream_id)
    return State(rows=await _database(request).run(query))  # type: ignore[arg-type]


@router.get("/streams/top", responses=_ANSWERS, tags=["numbers"])
async def top(request: Request, asked: Annotated[TopParameters, Query()]) -> Top:
    """Streams ranked over the last windows: sums, for viewers the maximum; equal ones by stream."""
    query = partial(queries.top, minutes=asked.minutes, by=asked.by, n=asked.n)
    return Top(rows=await _database(request).run(query))  # type: ignore[arg-type]


@router.get("/prometheus", response_class=Response, tags=["operation"])
def prometheus() -> Response:
    """Metrics of the API's own, over all of its workers, in Prometheus' text format."""
    body, content_type = observe.scrape()
    return Response(body, media_type=None, headers={"Content-Type": content_type})


@router.get("/", response_class=HTMLResponse, include_in_schema=False)
async def index() -> HTMLResponse:
    """Show a plain page with links to the other paths."""
    return HTMLResponse(INDEX, headers=INDEX_HEADERS)
