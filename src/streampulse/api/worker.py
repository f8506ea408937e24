"""The worker process that serves requests: uvicorn inside gunicorn."""

import asyncio
import socket
import sys
from typing import Any, ClassVar, Final

from gunicorn.arbiter import Arbiter  # type: ignore[import-untyped]
from uvicorn import Server
from uvicorn_worker import UvicornWorker  # type: ignore[import-untyped]

#: Connections at once in each worker; the next ones get 503.
MAX_CONCURRENCY: Final = 6_000
#: Longest wait of the event loop for the thread that reads the tables, in seconds. Only one of them runs Python at a
#: time. With Python's own 5 ms, dozens of requests wait for each turn of the reading thread.
SWITCH_SECONDS: Final = 0.0005
#: How long a worker that ends still answers on the connections that it has, in seconds.
DRAIN_SECONDS: Final = 1.0


class DrainingServer(Server):
    """uvicorn's server, which asks clients to connect to its successor before it closes their connections.

    uvicorn closes idle connections at once, and a request that is on its way on one of them is lost.
    """

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no more connections, answer for a while with ``Connection: close``, and end."""
        for server in self.servers:
            server.close()
        self.server_state.default_headers.append((b"connection", b"close"))
        await asyncio.sleep(DRAIN_SECONDS)
        await super().shutdown(sockets)


class ApiWorker(UvicornWorker):  # type: ignore[misc]  # no types there
    """uvicorn's worker with the settings of this API."""

    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {
        "loop": "uvloop",
        "http": "httptools",
        "ws": "none",
        "server_header": False,
        # With the drain, less than gunicorn's graceful_timeout.
        "timeout_graceful_shutdown": 8,
        "limit_concurrency": MAX_CONCURRENCY,
        "access_log": False,
        # The application adds uvicorn's middleware itself, for the proxies that its settings name.
        "proxy_headers": False,
    }

    async def _serve(self) -> None:
        sys.setswitchinterval(SWITCH_SECONDS)
        self.config.app = self.wsgi
        server = DrainingServer(self.config)
        self._install_sigquit_handler()
        await server.serve(sockets=self.sockets)
        if not server.started:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)
