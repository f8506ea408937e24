"""How an answer goes out: with its age and its identity, or as "not modified". Also the quick way for repeated ones."""

from __future__ import annotations

import time
from typing import Any, Final

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from streampulse.api.answers import Answer, Question, answer
from streampulse.api.runtime import Runtime

#: Requests that are known by their very bytes. More of them begin anew: who asks differently each time gains nothing.
_MAX_KNOWN: Final = 1024


def headers(given: Answer, age: float, stale: bool, private: bool) -> list[tuple[bytes, bytes]]:
    """Return the headers of an answer.

    :param age: of what it says, in seconds.
    :param stale: whether the database is away meanwhile.
    :param private: whether it is for those with a key only.
    """
    found = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(given.body)),
        (b"etag", given.etag),
        (b"cache-control", b"private, no-cache" if private else b"no-cache"),
        (b"x-snapshot-age", b"%.3f" % age),
    ]
    if stale:
        found.append((b"x-snapshot-stale", b"true"))
    return found


class AnswerResponse(Response):
    """An answer that was made before it was asked for, or a reference to the one that the client has."""

    def __init__(self, given: Answer, age: float, stale: bool, private: bool) -> None:
        self.status_code = 200
        self.background = None
        self._given = given
        self.raw_headers = headers(given, age, stale, private)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        """Send it."""
        await reply(scope, send, self._given, self.raw_headers)


async def reply(scope: Scope, send: Send, given: Answer, raw_headers: list[tuple[bytes, bytes]]) -> None:
    """Send an answer, or 304 where the client has it already."""
    for name, value in scope["headers"]:
        if name == b"if-none-match" and (given.etag in value or value == b"*"):
            kept = [header for header in raw_headers if not header[0].startswith(b"content-")]
            await send({"type": "http.response.start", "status": 304, "headers": kept})
            await send({"type": "http.response.body", "body": b""})
            return
    await send({"type": "http.response.start", "status": 200, "headers": raw_headers})
    await send({"type": "http.response.body", "body": given.body})


class _Known:
    __slots__ = ("given", "question", "route", "version")

    def __init__(self, question: Question, route: Any) -> None:
        self.question = question
        self.route = route
        self.version = -1
        self.given = Answer(b"", b"")


class Known:
    """Middleware: requests that were answered from a snapshot before are answered from the newest at once.

    Their parameters have been checked then; byte for byte the same request means the same.
    """

    def __init__(self, app: ASGIApp, runtime: Runtime) -> None:
        self._app = app
        self._runtime = runtime
        runtime.remember = self._remember
        self._known: dict[tuple[str, bytes], _Known] = {}

    def _remember(self, scope: Scope, question: Question) -> None:
        if len(self._known) >= _MAX_KNOWN:
            self._known.clear()
        self._known[scope["path"], scope["query_string"]] = _Known(question, scope.get("route"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http" and scope["method"] == "GET":
            known = self._known.get((scope["path"], scope["query_string"]))
            if known is not None:
                snapshots = self._runtime.snapshots
                snapshot = snapshots.usable()
                if snapshot is not None and self._renewed(known, snapshot):
                    scope["route"] = known.route
                    age = time.monotonic() - snapshots.checked
                    raw = headers(known.given, age, snapshots.stale, self._runtime.settings.public)
                    await reply(scope, send, known.given, raw)
                    return
        await self._app(scope, receive, send)

    @staticmethod
    def _renewed(known: _Known, snapshot: Any) -> bool:
        if known.version != snapshot.version:
            document = known.question.from_snapshot(snapshot)
            if document is None:
                return False
            known.given = answer(document)
            known.version = snapshot.version
        return True
