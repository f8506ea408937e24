"""The application: ``streampulse.api.app:app``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from streampulse import __version__
from streampulse.api.database import RETRY_AFTER_SECONDS, Database, Unavailable
from streampulse.api.models import BadParameter, BadRequest, Problem
from streampulse.api.observe import ObserveMiddleware
from streampulse.api.parameters import ALLOWED
from streampulse.api.routes import router
from streampulse.settings import ApiSettings, PostgresSettings, load

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


def _from_environment() -> Database:
    return Database(load(PostgresSettings), load(ApiSettings))


def create_app(make_database: Callable[[], Database] = _from_environment) -> FastAPI:
    """Return the application.

    :param make_database: called when the server starts, not before.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.database = make_database()
        try:
            yield
        finally:
            app.state.database.close()

    app = FastAPI(title="streampulse", version=__version__, description=DESCRIPTION, lifespan=lifespan, redoc_url=None)
    app.include_router(router)
    app.add_middleware(ObserveMiddleware)
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
        allowed = ALLOWED[name] if item["type"] != "extra_forbidden" and name in ALLOWED else "no such parameter here"
        value = item.get("input")
        bad = BadParameter(parameter=name, value=None if value is None else str(value), allowed=allowed)
        parameters.setdefault(name, bad)
    text = "; ".join(f"{bad.parameter}: {bad.allowed}, not {bad.value!r}" for bad in parameters.values())
    return _json(422, BadRequest(error=text, parameters=list(parameters.values())).model_dump())


async def _refused(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for nothing else
    return _json(error.status_code, Problem(error=str(error.detail)).model_dump(), dict(error.headers or {}))


async def _unavailable(_: Request, error: Exception) -> JSONResponse:
    return _json(503, Problem(error=str(error)).model_dump(), {"Retry-After": str(RETRY_AFTER_SECONDS)})


def _json(status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse(body, status_code=status, headers=headers)


app = create_app()
