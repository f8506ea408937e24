"""An HTTP server for tests, whose answers a function gives."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, Any]


@dataclass(frozen=True)
class Request:
    """One request; the document is its body as JSON, None without a body."""

    method: str
    path: str
    headers: Message
    document: Any


@contextlib.contextmanager
def serving(answer: Callable[[Request], Answer]) -> Iterator[str]:
    """Serve on a free port of loopback and yield the address.

    :param answer: returns status and body of a request; a body that is not bytes is sent as JSON.
    """

    class Handler(BaseHTTPRequestHandler):
        def handle_all(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            request = Request(self.command, self.path, self.headers, json.loads(body) if body else None)
            status, document = answer(request)
            data = document if isinstance(document, bytes) else json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            # The client may have given up and disconnected.
            with contextlib.suppress(BrokenPipeError):
                self.wfile.write(data)

        do_GET = do_POST = do_DELETE = handle_all  # noqa: N815 - http.server's names

        def log_message(self, *_what: Any) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
