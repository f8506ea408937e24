"""The worker process that serves requests: uvicorn inside gunicorn."""

from __future__ import annotations

import sys
from typing import Any, ClassVar, Final

from uvicorn_worker import UvicornWorker  # type: ignore[import-untyped]

#: Connections at once in each worker; the next ones get 503.
MAX_CONCURRENCY: Final = 6_000
#: Longest wait of the event loop for the thread that reads the tables, in seconds. Only one of them runs Python at a
#: time. With Python's own 5 ms, dozens of requests wait for each turn of the reading thread.
SWITCH_SECONDS: Final = 0.0005


class ApiWorker(UvicornWorker):  # type: ignore[misc]  # no types there
    """uvicorn's worker with the settings of this API."""

    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {
        "loop": "uvloop",
        "http": "httptools",
        "ws": "none",
        "server_header": False,
        "timeout_graceful_shutdown": 8,
        "limit_concurrency": MAX_CONCURRENCY,
        "access_log": False,
        # The application adds uvicorn's middleware itself, for the proxies that its settings name.
        "proxy_headers": False,
    }

    async def _serve(self) -> None:
        sys.setswitchinterval(SWITCH_SECONDS)
        await super()._serve()
