"""The worker process that serves requests."""

from __future__ import annotations

from typing import Any, ClassVar

from uvicorn_worker import UvicornWorker  # type: ignore[import-untyped]


class ApiWorker(UvicornWorker):  # type: ignore[misc]  # no types there
    """uvicorn inside gunicorn, with limits that a hostile client runs into before the host does."""

    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {
        "loop": "auto",
        "http": "h11",
        # Headers longer than this end the connection.
        "h11_max_incomplete_event_size": 16_384,
        "server_header": False,
        "timeout_graceful_shutdown": 8,
        # Connections at once in each worker; the next ones get 503.
        "limit_concurrency": 2_000,
        "access_log": False,
        # Addresses in X-Forwarded-For are not believed: nothing of ours stands in front.
        "proxy_headers": False,
    }
