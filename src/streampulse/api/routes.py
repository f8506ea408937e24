"""The paths."""

from collections.abc import Callable, Coroutine
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel
from sse_starlette import EventSourceResponse

from streampulse.api import observe
from streampulse.api.database import RETRY_AFTER_SECONDS, Unavailable
from streampulse.api.models import BadRequest, Health, History, Latest, Metrics, Problem, State, Top, Unhealthy
from streampulse.api.questions import (
    HistoryQuestion,
    LatestQuestion,
    MetricsQuestion,
    NoParameters,
    Question,
    StateQuestion,
    TopQuestion,
    described,
    read_query,
)
from streampulse.api.runtime import Runtime
from streampulse.events import ALLOWED_FUTURE_US


class NumbersRoute(APIRoute):
    """A route whose endpoint takes the request and returns a ready response.

    FastAPI's own handler would look for dependencies, a body and a response model in every request.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the endpoint itself."""
        endpoint: Callable[[Request], Coroutine[Any, Any, Response]] = self.endpoint
        return endpoint


router = APIRouter()
#: HEAD of the same paths, without entries in the description. After the others, so that GET finds its route sooner.
heads = APIRouter(include_in_schema=False)
Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])

_SECONDS: dict[str, Any] = {"description": "time to wait, in seconds", "schema": {"type": "integer"}}
_AGE: dict[str, Any] = {
    "X-Snapshot-Age": {
        "description": "age of the numbers in seconds; at most 0.5 while PostgreSQL answers",
        "schema": {"type": "number"},
    },
    "X-Snapshot-Stale": {
        "description": "`true` while PostgreSQL does not answer and older numbers are returned; otherwise absent",
        "schema": {"type": "string", "enum": ["true"]},
    },
    "ETag": {"description": "entity tag of this response, for If-None-Match", "schema": {"type": "string"}},
}
_UNAVAILABLE: dict[str, Any] = {
    "model": Problem,
    "description": "The database does not answer, and the numbers in memory are too old",
    "headers": {"Retry-After": _SECONDS},
}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"headers": _AGE},
    304: {"description": "The client has this response already"},
    422: {"model": BadRequest, "description": "A parameter is rejected; the response names it"},
    503: _UNAVAILABLE,
}


def _get(path: str, **documented: Any) -> Callable[[Endpoint], Endpoint]:
    """Return a decorator that serves GET and HEAD."""

    def register(endpoint: Endpoint) -> Endpoint:
        router.add_api_route(path, endpoint, methods=["GET"], **documented)
        heads.add_api_route(path, endpoint, methods=["HEAD"], **documented)
        return endpoint

    return register


def _numbers(path: str, question: type[Question], model: type[BaseModel], text: str) -> None:
    """Register a route whose answer is bytes that hold a model's JSON.

    :param question: the route's parameters.
    :param text: its description.
    """

    async def endpoint(request: Request) -> Response:
        return await _runtime(request).respond(request, read_query(question, request.scope["query_string"]))

    _get(
        path,
        response_model=model,
        responses=_ANSWERS,
        openapi_extra=described(question),
        name=path.rpartition("/")[2],
        description=text,
        tags=["numbers"],
        route_class_override=NumbersRoute,
    )(endpoint)


def _runtime(request: Request) -> Runtime:
    runtime: Runtime = request.app.state.runtime
    return runtime


_numbers("/metrics", MetricsQuestion, Metrics, "Rows of the last windows, newest first.")
_numbers(
    "/metrics/latest",
    LatestQuestion,
    Latest,
    "The newest window of each stream, by stream; longer lists continue with `after`.",
)
_numbers(
    "/metrics/history",
    HistoryQuestion,
    History,
    "Rows of the last windows, oldest first: of one stream all of them, of all streams up to `limit`.",
)
_numbers(
    "/state",
    StateQuestion,
    State,
    "Viewers of each stream just after the event clock, by stream; longer lists continue with `after`.",
)
_numbers(
    "/streams/top",
    TopQuestion,
    Top,
    "Streams ranked over the last windows: sums, for viewers the maximum; equal ones by stream.",
)


@_get(
    "/health",
    response_model=Health,
    responses={503: {"model": Unhealthy, "headers": {"Retry-After": _SECONDS}}},
    tags=["operation"],
)
async def health(request: Request) -> Response:
    """Report whether PostgreSQL answers, and otherwise the reason and the time since then."""
    database = _runtime(request).database
    try:
        ahead = await database.check()
    except Unavailable as error:
        since = database.down_since
        text = str(error) if since is None else f"{error}, since {since.isoformat(timespec='seconds')[:19]}Z"
        return JSONResponse({"ok": False, "error": text}, 503, {"Retry-After": str(RETRY_AFTER_SECONDS)})
    if ahead > ALLOWED_FUTURE_US / 1_000_000:
        return JSONResponse({"ok": True, "warnings": [f"the event clock is {ahead:.0f} s ahead of PostgreSQL's clock"]})
    return JSONResponse({"ok": True})


@_get(
    "/live",
    status_code=200,
    response_class=EventSourceResponse,
    responses={
        200: {
            "description": "Server-sent events: `snapshot` has everything, `update` what changed since, `status` says "
            "whether the numbers are stale, `reconnect` that the server is about to stop",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        422: {"model": BadRequest, "description": "A parameter is rejected; the response names it"},
        503: _UNAVAILABLE,
    },
    tags=["numbers"],
)
async def live(
    request: Request,
    last_event_id: Annotated[str | None, Header(description="id of the last received event: continue after it")] = None,
) -> Response:
    """Numbers as they change, as server-sent events. An event's id is the time of its numbers, in microseconds."""
    read_query(NoParameters, request.scope["query_string"])
    text = last_event_id or ""
    known = int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None
    return await _runtime(request).live.respond(known, request.scope.get("streampulse.session"))


@_get("/prometheus", response_class=Response, tags=["operation"])
def prometheus() -> Response:
    """Metrics of the API, over all of its workers, in Prometheus' text format."""
    body, content_type = observe.scrape()
    return Response(body, media_type=None, headers={"Content-Type": content_type})
