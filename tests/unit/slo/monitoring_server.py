"""A server that answers as it is told, and notes what it was asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from streampulse.core.settings import MonitoringSettings

Answer = tuple[int, Any]


@dataclass
class Asked:
    """What one request was."""

    method: str
    path: str
    authorization: str | None
    document: Any


@dataclass
class Told:
    """A running server: its address, what it answers by method and path, and what it was asked."""

    url: str
    answers: dict[str, Answer | Callable[[Asked], Answer]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)

    def settings(self, user: str | None = None, password: str | None = None) -> MonitoringSettings:
        return MonitoringSettings.model_validate(
            {"prometheus_url": self.url, "alertmanager_url": self.url, "user": user, "password": password}
        )


@contextmanager
def serving() -> Iterator[Told]:
    """Run such a server on a free port."""

    class Handler(BaseHTTPRequestHandler):
        def handle_all(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            asked = Asked(
                self.command, self.path, self.headers.get("Authorization"), json.loads(body) if body else None
            )
            told.asked.append(asked)
            best = max(
                (key for key in told.answers if f"{self.command} {self.path}".startswith(key)), key=len, default=None
            )
            answer = told.answers[best] if best else (404, "")
            status, document = answer(asked) if callable(answer) else answer
            data = document if isinstance(document, bytes) else json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_DELETE = handle_all  # noqa: N815 - http.server's names

        def log_message(self, *_what: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        told = Told(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield told
        finally:
            server.shutdown()
            thread.join()
