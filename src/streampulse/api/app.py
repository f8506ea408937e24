"""The application: ``streampulse.api.app:app``."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from streampulse import __version__
from streampulse.api import QUICK_WAY
from streampulse.api.database import RETRY_AFTER_SECONDS, Database, Unavailable
from streampulse.api.guard import Guard
from streampulse.api.head import HeadAsGet
from streampulse.api.models import BadParameter, BadRequest, Problem
from streampulse.api.networks import Networks
from streampulse.api.observe import Journal, ObserveMiddleware
from streampulse.api.page import pages
from streampulse.api.parameters import ALLOWED, OF_ALL
from streampulse.api.replies import Known, KnownAnswers, QuickWay
from streampulse.api.routes import router
from streampulse.api.runtime import Runtime
from streampulse.api.shared_limits import SharedStorage
from streampulse.core.settings import ApiSettings, PostgresSettings, load, split

#: Names the file of the rate limits' counters, which gunicorn's configuration makes.
LIMITS_FILE: Final = "STREAMPULSE_API_LIMITS_FILE"

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
    answers = KnownAnswers(runtime)
    journal = Journal(route.path for route in router.routes if isinstance(route, APIRoute))
    # What asks for a key, counts requests or believes a proxy has to see each of them.
    plain = not settings.public and not split(settings.trusted_proxies)
    state = {QUICK_WAY: QuickWay(answers, journal)} if plain else {}

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
        runtime.start(make_database(settings))
        try:
            yield state
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
        # It would lead to whatever host the request names.
        redirect_slashes=False,
    )
    app.state.runtime = runtime
    app.include_router(router)
    app.include_router(pages(settings))
    # The last one added is the first one asked.
    app.add_middleware(Known, answers=answers)
    app.add_middleware(Guard, settings=settings, storage=_shared_counters())
    app.add_middleware(HeadAsGet)
    origins = split(settings.cors_origins)
    if origins:
        # Outside of the guard: what a browser asks first has no key, and a page is to read why it was refused.
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "HEAD"],
            allow_headers=["Authorization", "X-API-Key", "If-None-Match", "Last-Event-ID", "X-Request-ID"],
            expose_headers=["ETag", "X-Snapshot-Age", "X-Snapshot-Stale", "X-Request-ID", "Retry-After"],
            max_age=600,
        )
    app.add_middleware(ObserveMiddleware, journal=journal, proxies=Networks(settings.trusted_proxies))
    app.add_exception_handler(RequestValidationError, _bad_parameters)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(Unavailable, _unavailable)
    return app


def _shared_counters() -> SharedStorage:
    """Return the rate limits' counters: of all workers under gunicorn, else of this process alone."""
    path = os.environ.get(LIMITS_FILE)
    return SharedStorage(Path(path) if path else None)


async def _bad_parameters(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for nothing else
    parameters: dict[str, BadParameter] = {}
    for item in error.errors():
        # ("query", name, which variant of the type where there are several)
        name = str(item["loc"][1])
        allowed = OF_ALL.get(item["type"]) or ALLOWED.get(name, "no such parameter here")
        value = item.get("input")
        bad = BadParameter(parameter=name, value=None if value is None else str(value), allowed=allowed)
        parameters.setdefault(name, bad)
    text = "; ".join(f"{bad.parameter}: {bad.allowed}, not {bad.value!r}" for bad in parameters.values())
    return _json(422, BadRequest(error=text, parameters=list(parameters.values())).model_dump())


async def _refused(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for nothing else
    headers = dict(error.headers or {})
    if headers.get("Allow") == "GET":
        headers["Allow"] = "GET, HEAD"
    return _json(error.status_code, Problem(error=str(error.detail)).model_dump(), headers)


async def _unavailable(_: Request, error: Exception) -> JSONResponse:
    return _json(503, Problem(error=str(error)).model_dump(), {"Retry-After": str(RETRY_AFTER_SECONDS)})


def _json(status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse(body, status_code=status, headers=headers)


def __getattr__(name: str) -> FastAPI:
    """Make the application when a server asks for it: only then there have to be settings."""
    if name == "app":
        return create_app()
    raise AttributeError(name)
