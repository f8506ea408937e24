"""The paths."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.responses import JSONResponse

from streampulse.api import observe
from streampulse.api.answers import (
    HistoryQuestion,
    LatestQuestion,
    MetricsQuestion,
    Question,
    StateQuestion,
    TopQuestion,
)
from streampulse.api.database import RETRY_AFTER_SECONDS, Unavailable
from streampulse.api.models import BadRequest, Health, History, Latest, Metrics, Problem, State, Top, Unhealthy
from streampulse.api.parameters import (
    MAX_MINUTES,
    HistoryParameters,
    ListParameters,
    LiveParameters,
    MetricsParameters,
    TopParameters,
)
from streampulse.api.query import well_formed
from streampulse.api.replies import AnswerResponse
from streampulse.api.runtime import Runtime

router = APIRouter()

#: Of the paths that take parameters. Who asks for health may add what he likes.
_WELL_FORMED: Final = [Depends(well_formed)]

_SECONDS: dict[str, Any] = {"description": "seconds", "schema": {"type": "integer"}}
_AGE: dict[str, Any] = {
    "X-Snapshot-Age": {
        "description": "how old the numbers are, in seconds; at most 0.5 when all is well",
        "schema": {"type": "number"},
    },
    "X-Snapshot-Stale": {
        "description": "`true` while PostgreSQL does not answer and older numbers are given; else absent",
        "schema": {"type": "string", "enum": ["true"]},
    },
    "ETag": {"description": "of this answer, for If-None-Match", "schema": {"type": "string"}},
}
_UNAVAILABLE: dict[str, Any] = {
    "model": Problem,
    "description": "The database cannot answer now, and no numbers are in memory that are young enough",
    "headers": {"Retry-After": _SECONDS},
}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"headers": _AGE},
    304: {"description": "The client has this answer already"},
    422: {"model": BadRequest, "description": "A parameter cannot be used; the answer says which"},
    503: _UNAVAILABLE,
}


def _runtime(request: Request) -> Runtime:
    runtime: Runtime = request.app.state.runtime
    return runtime


async def _answer(request: Request, question: Question) -> Any:
    """Answer a question. The routes' return types are what the bytes hold: they are for the documentation."""
    runtime = _runtime(request)
    given, age, stale = await runtime.ask(question, request.scope)
    return AnswerResponse(given, age, stale, runtime.settings.public)


@router.get("/health", responses={503: {"model": Unhealthy, "headers": {"Retry-After": _SECONDS}}}, tags=["operation"])
async def health(request: Request) -> Health:
    """Say whether PostgreSQL answers; if not, why and since when."""
    database = _runtime(request).database
    try:
        await database.check()
    except Unavailable as error:
        since = database.down_since
        text = str(error) if since is None else f"{error}, since {since.isoformat(timespec='seconds')[:19]}Z"
        body = Unhealthy(ok=False, error=text).model_dump()
        headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
        return JSONResponse(body, status_code=503, headers=headers)  # type: ignore[return-value]
    return Health(ok=True)


@router.get("/metrics", responses=_ANSWERS, tags=["numbers"], dependencies=_WELL_FORMED)
async def metrics(request: Request, asked: Annotated[MetricsParameters, Query()]) -> Metrics:
    """Rows of the last windows, newest first."""
    question = MetricsQuestion(minutes=asked.minutes, limit=asked.limit, stream_id=asked.stream_id)
    return await _answer(request, question)  # type: ignore[no-any-return]


@router.get("/metrics/latest", responses=_ANSWERS, tags=["numbers"], dependencies=_WELL_FORMED)
async def latest(request: Request, asked: Annotated[ListParameters, Query()]) -> Latest:
    """Read the newest window of each stream, by stream; longer lists go on with `after`."""
    question = LatestQuestion(limit=asked.limit, after=asked.after, stream_id=asked.stream_id)
    return await _answer(request, question)  # type: ignore[no-any-return]


@router.get("/metrics/history", responses=_ANSWERS, tags=["numbers"], dependencies=_WELL_FORMED)
async def history(request: Request, asked: Annotated[HistoryParameters, Query()]) -> History:
    """Rows of the last windows, oldest first: of one stream all of them, of all streams up to `limit`."""
    limit = MAX_MINUTES if asked.stream_id is not None and "limit" not in asked.model_fields_set else asked.limit
    question = HistoryQuestion(minutes=asked.minutes, limit=limit, stream_id=asked.stream_id)
    return await _answer(request, question)  # type: ignore[no-any-return]


@router.get("/state", responses=_ANSWERS, tags=["numbers"], dependencies=_WELL_FORMED)
async def state(request: Request, asked: Annotated[ListParameters, Query()]) -> State:
    """Viewers of each stream just after the event clock, by stream; longer lists go on with `after`."""
    question = StateQuestion(limit=asked.limit, after=asked.after, stream_id=asked.stream_id)
    return await _answer(request, question)  # type: ignore[no-any-return]


@router.get("/streams/top", responses=_ANSWERS, tags=["numbers"], dependencies=_WELL_FORMED)
async def top(request: Request, asked: Annotated[TopParameters, Query()]) -> Top:
    """Streams ranked over the last windows: sums, for viewers the maximum; equal ones by stream."""
    question = TopQuestion(minutes=asked.minutes, by=asked.by, n=asked.n)
    return await _answer(request, question)  # type: ignore[no-any-return]


class _EventStream(Response):
    """The answer of /live, which ends when the reader or the server does."""

    media_type = "text/event-stream"

    def __init__(self, runtime: Runtime, last_id: int | None) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._runtime = runtime
        self._last_id = last_id

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve the reader."""
        raw = [header for header in self.raw_headers if header[0] != b"content-length"]
        await send({"type": "http.response.start", "status": 200, "headers": raw})
        await self._runtime.live.serve(scope, receive, send, self._last_id)


@router.get(
    "/live",
    status_code=200,
    response_class=_EventStream,
    responses={
        200: {
            "description": "Server-sent events: `snapshot` has everything, `update` what changed since, `status` says "
            "whether the numbers are stale, `reconnect` that the server is about to stop",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        422: {"model": BadRequest, "description": "A parameter cannot be used; the answer says which"},
        503: _UNAVAILABLE,
    },
    tags=["numbers"],
    dependencies=_WELL_FORMED,
)
async def live(
    request: Request,
    _: Annotated[LiveParameters, Query()],
    last_event_id: Annotated[
        str | None, Header(description="the id of the last event that was received: go on after it")
    ] = None,
) -> Response:
    """Numbers as they change, as server-sent events. An event's id is the time of its numbers, in microseconds."""
    runtime = _runtime(request)
    if runtime.live.stopping:
        raise Unavailable("stopping", "this server is about to stop, try again")
    if runtime.live.full_house():
        raise Unavailable("busy", "too many readers, try again later")
    if not await runtime.live.ready():
        raise Unavailable("timeout", "there are no numbers yet, try again")
    text = last_event_id or ""
    return _EventStream(runtime, int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None)


@router.get("/prometheus", response_class=Response, tags=["operation"])
def prometheus() -> Response:
    """Metrics of the API's own, over all of its workers, in Prometheus' text format."""
    body, content_type = observe.scrape()
    return Response(body, media_type=None, headers={"Content-Type": content_type})
