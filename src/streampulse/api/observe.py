"""Metrics and access log: a count and a line for each request, and the scrape over all workers."""

import logging
import os
import random
import re
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from streampulse import __version__

log = logging.getLogger("streampulse.api.access")

REQUESTS = Counter(
    "streampulse_api_http_requests", "HTTP requests by route, method and status.", ["route", "method", "status"]
)
DURATION = Histogram(
    "streampulse_api_http_request_duration_seconds",
    "Time from where a request is worked on to its answer's last byte, by route; not how long it waited.",
    ["route"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
)
BUILD = Gauge(
    "streampulse_api_build_info",
    "1, with version and release as labels.",
    ["version", "release"],
    multiprocess_mode="max",
)

# Labels come from these and from the application's routes only, so no client can make new series.
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
#: Statuses of failures of the server: an unexpected error, and a database that does not answer.
_SERVER_FAILURES: Final = (500, 503)
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
#: Status in metrics and log of a request whose client left before the request or its answer was complete.
CLIENT_LEFT: Final = 499
_LONGEST_LOGGED: Final = 300
# Machines request these every few seconds. Only failures get a line.
_QUIET_ROUTES: Final = frozenset({"/health", "/prometheus"})
#: Lines of each worker's access log in a second, in the long run and in a burst. The other requests are counted.
LINES_PER_SECOND: Final = 50
LINES_AT_ONCE: Final = 500

NOT_LOGGED = Counter("streampulse_api_access_lines_left_out", "Requests without a line in the access log.")

_SECURITY: Final = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
]
_POLICY: Final = (b"content-security-policy", b"default-src 'none'; base-uri 'none'; frame-ancestors 'none'")
# Browsers ignore these, and complain, where a page came without TLS.
_TRANSPORT: Final = [
    (b"strict-transport-security", b"max-age=31536000"),
    (b"cross-origin-opener-policy", b"same-origin"),
]


class Journal:
    """Counts, times and logs requests.

    :param routes: routes whose failures have series from the start. A series that appears with its first failure has
        no increase, so no alert would see that failure.
    """

    def __init__(self, routes: Iterable[str]) -> None:
        self._log = _AccessLog()
        self._counters: dict[tuple[str, str, int], Counter] = {
            (route, "GET", status): REQUESTS.labels(route, "GET", str(status))
            for route in routes
            for status in _SERVER_FAILURES
        }
        self._durations: dict[str, Histogram] = {}
        # On hosts, the folder with the virtual environment is the release; a link leads to it.
        BUILD.labels(__version__, Path(sys.prefix).resolve().parent.name).set(1)

    def note(self, scope: Scope, request_id: str, status: int, seconds: float) -> None:
        """Count, time and log a request.

        :param seconds: its duration.
        """
        route = getattr(scope.get("route"), "path", "unmatched")
        method = scope["method"] if scope["method"] in _METHODS else "other"
        counter = self._counters.get((route, method, status))
        if counter is None:
            counter = REQUESTS.labels(route, method, str(status))
            self._counters[route, method, status] = counter
        counter.inc()
        # The length of an event stream says nothing about the speed of answers.
        if route != "/live":
            duration = self._durations.get(route)
            if duration is None:
                duration = DURATION.labels(route)
                self._durations[route] = duration
            duration.observe(seconds)
        if (route not in _QUIET_ROUTES or status >= 400) and self._log.room():
            client = scope.get("client")
            fields = {
                "request_id": request_id,
                "client": client[0] if client else "-",
                "method": scope["method"][:_LONGEST_LOGGED],
                "path": scope["path"][:_LONGEST_LOGGED],
                "query": scope["query_string"][:_LONGEST_LOGGED].decode("latin-1"),
                "status": status,
                "seconds": f"{seconds:.4f}",
            }
            if "streampulse.user" in scope:
                fields["user"] = scope["streampulse.user"]
            log.log(logging.WARNING if status >= 500 else logging.INFO, "request", extra={"fields": fields})


class ObserveMiddleware:
    """Notes every request in the journal, adds the headers of every response, and turns an error into a plain 500.

    :param journal: where requests are noted.
    """

    def __init__(self, app: ASGIApp, journal: Journal) -> None:
        self._app = app
        self._journal = journal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        request_id = _request_id(scope)
        status = 0

        async def send_dressed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = _dressed(scope, message["headers"], request_id)
            try:
                await send(message)
            except RuntimeError as error:
                # uvicorn does not tell a pipelined request that its connection is gone; uvloop then refuses to write.
                if "the handler is closed" not in str(error):
                    raise
                raise ClientDisconnect from None

        try:
            await self._app(scope, receive, send_dressed)
        except ClientDisconnect:
            status = CLIENT_LEFT
        except Exception:
            log.exception("unexpected error", extra={"fields": {"request_id": request_id}})
            if status == 0:
                body = {"error": f"internal error, see the API's log for request {request_id}"}
                await JSONResponse(body, status_code=500)(scope, receive, send_dressed)
            status = 500
        self._journal.note(scope, request_id, status, time.perf_counter() - started)


class _AccessLog:
    """Bounds the number of lines in the journal, and logs how many were left out."""

    def __init__(self) -> None:
        self._budget = float(LINES_AT_ONCE)
        self._at = time.monotonic()
        self._left_out = 0
        self._said = float("-inf")

    def room(self) -> bool:
        """Return whether one more line may be written now. If not, count the line."""
        now = time.monotonic()
        self._budget = min(LINES_AT_ONCE, self._budget + (now - self._at) * LINES_PER_SECOND)
        self._at = now
        if self._budget < 1:
            self._left_out += 1
            NOT_LOGGED.inc()
            return False
        self._budget -= 1
        if self._left_out and now - self._said >= 1:
            self._said = now
            log.info("requests without a line of their own", extra={"fields": {"requests": self._left_out}})
            self._left_out = 0
        return True


def _dressed(scope: Scope, headers: Iterable[tuple[bytes, bytes]], request_id: str) -> list[tuple[bytes, bytes]]:
    """Return headers with those that every response has."""
    found = [*headers, *_SECURITY, (b"x-request-id", request_id.encode())]
    names = {name for name, _ in found}
    if b"cache-control" not in names:
        found.append((b"cache-control", b"no-store"))
    if b"content-security-policy" not in names:
        found.append(_POLICY)
    if scope["scheme"] == "https":
        found += _TRANSPORT
    return found


def _request_id(scope: Scope) -> str:
    """Return a request's id: the client's own if it is harmless, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            given: str = value.decode("latin-1")
            if _REQUEST_ID.fullmatch(given):
                return given
            break
    return f"{random.getrandbits(64):016x}"


def scrape() -> tuple[bytes, str]:
    """Return the metrics of all workers and their content type."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return generate_latest(REGISTRY), CONTENT_TYPE_LATEST
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry), CONTENT_TYPE_LATEST
