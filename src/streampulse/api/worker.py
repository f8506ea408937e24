"""The worker process that serves requests: uvicorn inside gunicorn, with limits that a hostile client runs into."""

from __future__ import annotations

import asyncio
import sys
from types import FrameType
from typing import TYPE_CHECKING, Any, ClassVar, Final

from gunicorn.arbiter import Arbiter  # type: ignore[import-untyped]
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import Server
from uvicorn_worker import UvicornWorker  # type: ignore[import-untyped]

from streampulse.api import QUICK_WAY

# gunicorn's own process imports this too, and must not begin to count.
if TYPE_CHECKING:
    from streampulse.api.replies import QuickWay
    from streampulse.api.runtime import Runtime

#: A request has to arrive completely within this long, from its first byte or the connection's beginning, in seconds.
REQUEST_SECONDS: Final = 10.0
#: Bytes of a request's first line and headers at most.
MAX_HEAD: Final = 32_768
#: Headers of a request at most.
MAX_HEADERS: Final = 100
#: Connections at once in each worker; the next ones get 503.
MAX_CONCURRENCY: Final = 6_000
#: How long the event loop and the thread that reads the tables wait for one another at most, in seconds. Only one of
#: them runs Python at a time. With Python's own 5 ms a few dozen requests wait for each turn of the reading thread. It
#: costs that thread some more turns for the same reading, up to two thousand a second while both are busy.
SWITCH_SECONDS: Final = 0.0005


class BoundedProtocol(HttpToolsProtocol):
    """One connection, whose requests must arrive in time and be of bounded size."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._quick_way: QuickWay | None = self.app_state.get(QUICK_WAY)
        self._first = False
        self._deadline: asyncio.TimerHandle | None = None
        self._served: RequestResponseCycle | None = None
        self._in_head = True
        self._under_way = True
        self._head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._deadline = self.loop.call_later(REQUEST_SECONDS, self._too_late)

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of the timer, and tell the request that is being served that nobody is there any more.

        uvicorn tells the newest request, which of several that came in one piece is not the one that is being served.
        """
        self._at_ease()
        if self._served is not None:
            self._served.disconnected = True
        super().connection_lost(exc)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._served = cycle
        super()._start_asgi_task(cycle, app)

    def data_received(self, data: bytes) -> None:
        """Take in what has arrived, in pieces that are not larger than a head may be."""
        self._first = True
        for first in range(0, len(data), MAX_HEAD):
            if self.transport.is_closing() or self.parser is None:
                return
            piece = data[first : first + MAX_HEAD] if len(data) > MAX_HEAD else data
            if self._in_head:
                self._head_bytes += len(piece)
            super().data_received(piece)
            if self._in_head and (self._head_bytes > MAX_HEAD or self._too_many_headers()):
                self._refuse(b"431 Request Header Fields Too Large")
                return
        if not self._under_way:
            self._at_ease()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(REQUEST_SECONDS, self._too_late)

    def on_message_begin(self) -> None:
        """Note that a request has begun."""
        self._in_head = self._under_way = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Start to serve the request; what serves it may cut the connection."""
        self._in_head = False
        # What has arrived so far may be body in part.
        large = self._head_bytes > MAX_HEAD and len(self.url) + sum(map(_length, self.headers)) > MAX_HEAD
        self._head_bytes = 0
        if large or len(self.headers) > MAX_HEADERS:
            self._refuse(b"431 Request Header Fields Too Large")
            return
        if self.transport.is_closing():
            # It came together with one that was refused or that was the last.
            return
        # uvicorn's type for it knows only what the protocol names.
        scope: dict[str, Any] = self.scope  # type: ignore[assignment]
        if self._quick_way is not None and self._is_plain():
            answer = self._quick_way.answer(scope, self.url, self.server_state.default_headers)
            if answer is not None:
                self.transport.write(answer)
                self.on_response_complete()
                return
        scope["extensions"] = {"streampulse.transport": self.transport}
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take in a part of the body of a request that was not refused."""
        if self.cycle is not None:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Note that a request has arrived."""
        self._under_way = False
        self._in_head = True
        if self.cycle is not None:
            super().on_message_complete()

    def timeout_keep_alive_handler(self) -> None:
        """End an idle connection, also one whose client has not taken its last answer."""
        self.transport.abort()

    def _is_plain(self) -> bool:
        """Tell whether a request may be answered where it is read: as far as the connection knows.

        Only the first of what arrives together, so that nobody keeps the others waiting with a thousand requests, and
        only while no other one of the connection is under way and the client takes its answers.
        """
        first, self._first = self._first, False
        return (
            first
            and (self.cycle is None or self.cycle.response_complete)
            and not self.flow.write_paused
            and self.parser.get_method() == b"GET"
            and self.parser.get_http_version() == "1.1"
            and self.parser.should_keep_alive()
            and not self.parser.should_upgrade()
            and len(self.connections) < MAX_CONCURRENCY
            and len(self.tasks) < MAX_CONCURRENCY
        )

    def _too_many_headers(self) -> bool:
        return self.headers is not None and len(self.headers) > MAX_HEADERS

    def _at_ease(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_late(self) -> None:
        self._deadline = None
        if self.cycle is None or self.cycle.response_complete:
            self._refuse(b"408 Request Timeout")
        else:
            self.transport.abort()

    def _refuse(self, status: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 " + status + b"\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
            self.transport.close()


def _length(header: tuple[bytes, bytes]) -> int:
    """Return how many bytes a header took, with what is around it."""
    return len(header[0]) + len(header[1]) + len(b": \r\n")


class _StoppingServer(Server):
    """A server that tells the application when it is asked to end, so that event streams can say so."""

    def __init__(self, config: Config, runtime: Runtime) -> None:
        super().__init__(config)
        self._runtime = runtime

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end."""
        if self.started:
            self._runtime.live.stop_soon()
        super().handle_exit(sig, frame)


class ApiWorker(UvicornWorker):  # type: ignore[misc]  # no types there
    """The worker."""

    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {
        "loop": "uvloop",
        "http": BoundedProtocol,
        "ws": "none",
        "server_header": False,
        "timeout_graceful_shutdown": 8,
        "limit_concurrency": MAX_CONCURRENCY,
        "access_log": False,
        # Addresses in X-Forwarded-For are our own code's to judge.
        "proxy_headers": False,
    }

    async def _serve(self) -> None:
        sys.setswitchinterval(SWITCH_SECONDS)
        self.config.app = self.wsgi
        server = _StoppingServer(self.config, self.wsgi.state.runtime)
        self._install_sigquit_handler()
        await server.serve(sockets=self.sockets)
        if not server.started:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)
