"""The application: ``streampulse.api.app:app``."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from streampulse import __version__
from streampulse.api.database import RETRY_AFTER_SECONDS, Database, Unavailable
from streampulse.api.guard import Access, Guard, Sessions, cookie_secret, log_in_routes
from streampulse.api.models import BadParameter, BadRequest
from streampulse.api.networks import TrustedProxies
from streampulse.api.observe import Journal, ObserveMiddleware
from streampulse.api.page import pages
from streampulse.api.questions import ALLOWED, ALLOWED_BY_ERROR
from streampulse.api.routes import heads, router
from streampulse.api.runtime import Runtime
from streampulse.core.settings import ApiSettings, PostgresSettings, load, split

#: Longest wait for the first reading of the tables before a worker serves.
FIRST_READING_SECONDS = 5.0

DESCRIPTION = """
Live audience numbers, one row for each stream and minute window `[start, start + 60 s)` of event time.

- **Times** are RFC 3339 in UTC with `Z`.
- **Money** is US dollars as an exact decimal string with two decimals, `"120.50"`: no reader turns it into a float.
- **`minutes`** means the last n one-minute windows of the whole table, the newest included. A minute without a row for
  a stream means zeros. The newest window is still filling.
- **Streams** are ordered by the code points of their ids. Those whose id begins with `__` are the system's own and
  appear only when named by `stream_id`; then the newest window is theirs where that is newer.
- An unknown stream gives an empty list. Unknown parameters are refused.
"""


def _from_environment(settings: ApiSettings) -> Database:
    return Database(load(PostgresSettings), settings)


def create_app(
    settings: ApiSettings | None = None, make_database: Callable[[ApiSettings], Database] = _from_environment
) -> FastAPI:
    """Return the application.

    :param settings: the API's; without them the environment's.
    :param make_database: called when the server starts, not before.
    """
    settings = settings or load(ApiSettings)
    runtime = Runtime(settings)
    access = Access(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        runtime.start(make_database(settings))
        try:
            # Until the tables were read, or cannot be, requests wait.
            await runtime.snapshots.next(FIRST_READING_SECONDS)
            yield
        finally:
            runtime.stop()

    app = FastAPI(
        title="streampulse",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        openapi_url="/openapi.json" if settings.docs else None,
        docs_url=None,
        redoc_url=None,
        # A redirect would lead to any host that the request names.
        redirect_slashes=False,
        # Not by include_router: FastAPI matches the routes of an included router twice in each request.
        routes=[*router.routes, *heads.routes],
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.state.runtime = runtime
    app.include_router(pages(settings))
    # The middleware that is added last is the outermost.
    app.add_middleware(Guard, settings=settings, access=access, runtime=runtime)
    if settings.public:
        app.include_router(log_in_routes(access, runtime))
        app.add_middleware(Sessions, secret=cookie_secret(settings))
    origins = split(settings.cors_origins)
    if origins:
        # Outside of the guard: a browser's preflight request has no key, and a page may read the reason of a refusal.
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "HEAD"],
            allow_headers=["Authorization", "X-API-Key", "If-None-Match", "Last-Event-ID", "X-Request-ID"],
            expose_headers=["ETag", "X-Snapshot-Age", "X-Snapshot-Stale", "X-Request-ID", "Retry-After"],
            max_age=600,
        )
    journal = Journal(sorted({route.path for route in router.routes if isinstance(route, APIRoute)}))
    app.add_middleware(ObserveMiddleware, journal=journal)
    proxies = split(settings.trusted_proxies)
    if proxies:
        app.add_middleware(TrustedProxies, trusted_hosts=proxies)
    app.add_exception_handler(RequestValidationError, _bad_parameters)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(Unavailable, _unavailable)
    return app


async def _bad_parameters(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for nothing else
    parameters: dict[str, BadParameter] = {}
    for item in error.errors():
        # ("query", name, which variant of the type where there are several)
        name = str(item["loc"][1])
        allowed = ALLOWED_BY_ERROR.get(item["type"]) or ALLOWED.get(name, "no such parameter here")
        value = item.get("input")
        bad = BadParameter(parameter=name, value=None if value is None else str(value), allowed=allowed)
        parameters.setdefault(name, bad)
    text = "; ".join(f"{bad.parameter}: {bad.allowed}, not {bad.value!r}" for bad in parameters.values())
    return JSONResponse(BadRequest(error=text, parameters=list(parameters.values())).model_dump(), 422)


async def _refused(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for nothing else
    headers = dict(error.headers or {})
    if "Allow" in headers:
        methods = set(headers["Allow"].split(", "))
        headers["Allow"] = ", ".join(sorted(methods | {"HEAD"} if "GET" in methods else methods))
    return JSONResponse({"error": str(error.detail)}, error.status_code, headers)


async def _unavailable(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"error": str(error)}, 503, {"Retry-After": str(RETRY_AFTER_SECONDS)})


def __getattr__(name: str) -> FastAPI:
    """Make the application when a server asks for it. An import alone needs no settings."""
    if name == "app":
        return create_app()
    raise AttributeError(name)
