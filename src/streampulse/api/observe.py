"""What the API tells about itself: a metric and a log line for each request, and the scrape over all workers."""

from __future__ import annotations

import logging
import os
import re
import secrets
import time
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
from starlette.datastructures import MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from streampulse import __version__

log = logging.getLogger("streampulse.api.access")

REQUESTS = Counter(
    "streampulse_api_http_requests",
    "HTTP requests by route, method and status.",
    ["route", "method", "status"],
)
DURATION = Histogram(
    "streampulse_api_http_request_duration_seconds",
    "Time from a request's first byte to its answer's last, by route.",
    ["route"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
)
BUILD = Gauge("streampulse_api_build_info", "1, with the version as a label.", ["version"], multiprocess_mode="max")

# Labels come from these and from our own routes only, so no client can make new ones.
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
# A caller's own request id is taken over when it is harmless.
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_LONGEST_LOGGED: Final = 300
# Asked for every few seconds by machines; worth a line only when something is wrong.
_QUIET_ROUTES: Final = frozenset({"/health", "/prometheus"})


class ObserveMiddleware:
    """Counts, times and logs every request, names it, and turns an unexpected error into a plain 500."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        BUILD.labels(__version__).set(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        request_id = _request_id(scope)
        status = 0

        async def send_named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                headers["X-Content-Type-Options"] = "nosniff"
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            await self._app(scope, receive, send_named)
        except Exception:
            log.exception("unexpected error", extra={"fields": {"request_id": request_id}})
            if status == 0:
                body = {"error": f"internal error, see the API's log for request {request_id}"}
                await JSONResponse(body, status_code=500)(scope, receive, send_named)
            status = 500
        self._note(scope, status, time.perf_counter() - started, request_id)

    def _note(self, scope: Scope, status: int, seconds: float, request_id: str) -> None:
        route = getattr(scope.get("route"), "path", "unmatched")
        method = scope["method"] if scope["method"] in _METHODS else "other"
        REQUESTS.labels(route, method, str(status)).inc()
        DURATION.labels(route).observe(seconds)
        if route in _QUIET_ROUTES and status < 400:
            return
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
        log.info("request", extra={"fields": fields})


def scrape() -> tuple[bytes, str]:
    """Return the metrics of all workers and their content type."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return generate_latest(REGISTRY), CONTENT_TYPE_LATEST
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry), CONTENT_TYPE_LATEST


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            text = value.decode("latin-1")
            if _REQUEST_ID.fullmatch(text):
                return str(text)
    return secrets.token_hex(8)
