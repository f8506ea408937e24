"""How an answer goes out: with its age and its identity, or as "not modified"; and quick ways for known requests."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, Final

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from streampulse.api.answers import Answer, Question, answer
from streampulse.api.observe import ALWAYS, Journal, named, request_id
from streampulse.api.runtime import Runtime

Headers = list[tuple[bytes, bytes]]

#: Requests that are known by their very bytes. More of them begin anew: who asks differently each time gains nothing.
_MAX_KNOWN: Final = 1024
_OK: Final = b"HTTP/1.1 200 OK\r\n"
_NOT_MODIFIED: Final = b"HTTP/1.1 304 Not Modified\r\n"
#: A request with one of these is not answered by :class:`QuickWay`: a body, a wish of the connection's, another site.
_NOT_PLAIN: Final = frozenset({b"content-length", b"transfer-encoding", b"expect", b"upgrade", b"origin"})


def fixed_headers(given: Answer, private: bool) -> Headers:
    """Return those headers of an answer that are the same as long as it is.

    :param private: whether it is for those with a key only.
    """
    return [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(given.body)),
        (b"etag", given.etag),
        (b"cache-control", b"private, no-cache" if private else b"no-cache"),
    ]


def moving_headers(age: float, stale: bool) -> Headers:
    """Return those headers that differ from one request to the next.

    :param age: of what the answer says, in seconds.
    :param stale: whether the database is away meanwhile.
    """
    found = [(b"x-snapshot-age", b"%.3f" % age)]
    if stale:
        found.append((b"x-snapshot-stale", b"true"))
    return found


def kept_when_not_modified(headers: Headers) -> Headers:
    """Return the headers that a 304 has as well."""
    return [header for header in headers if not header[0].startswith(b"content-")]


def has_already(headers: Iterable[tuple[bytes, bytes]], given: Answer) -> bool:
    """Tell from a request's headers whether the client has an answer already."""
    return any(name == b"if-none-match" and (given.etag in value or value == b"*") for name, value in headers)


class AnswerResponse(Response):
    """An answer that was made before it was asked for, or a reference to the one that the client has."""

    def __init__(self, given: Answer, age: float, stale: bool, private: bool) -> None:
        self.status_code = 200
        self.background = None
        self._given = given
        self.raw_headers = fixed_headers(given, private) + moving_headers(age, stale)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        """Send it."""
        await reply(scope, send, self._given, self.raw_headers)


async def reply(scope: Scope, send: Send, given: Answer, headers: Headers) -> None:
    """Send an answer, or 304 where the client has it already."""
    if has_already(scope["headers"], given):
        await send({"type": "http.response.start", "status": 304, "headers": kept_when_not_modified(headers)})
        await send({"type": "http.response.body", "body": b""})
        return
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": given.body})


class _Known:
    """A request that was answered before, and its answer from the newest snapshot that was asked."""

    def __init__(self, scope: Scope, question: Question) -> None:
        self._question = question
        self.path = scope["path"]
        self.query_string = scope["query_string"]
        self.route = scope.get("route")
        self.version = -1
        self.given = Answer(b"", b"")
        self.headers: Headers = []
        #: The same as bytes, and those of the 304 in its place.
        self.head = self.head_not_modified = b""

    def renew(self, snapshot: Any, private: bool) -> bool:
        """Make the answer that a snapshot has, and return whether it has one."""
        if self.version != snapshot.version:
            document = self._question.from_snapshot(snapshot)
            if document is None:
                return False
            self.given = answer(document)
            self.headers = fixed_headers(self.given, private)
            self.head = rendered(self.headers)
            self.head_not_modified = rendered(kept_when_not_modified(self.headers))
            self.version = snapshot.version
        return True


class KnownAnswers:
    """The requests that were answered from a snapshot before, by the bytes of their target.

    Their parameters have been checked then; byte for byte the same request means the same.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self._known: dict[bytes, _Known] = {}
        #: Finds one by its target, path and query as they were sent.
        self.find = self._known.get
        runtime.remember = self._remember

    def _remember(self, scope: Scope, question: Question) -> None:
        if len(self._known) >= _MAX_KNOWN:
            self._known.clear()
        self._known[target(scope)] = _Known(scope, question)


def target(scope: Scope) -> bytes:
    """Return the path and the query of a request as they were sent."""
    raw: bytes = scope["raw_path"]
    return raw + b"?" + scope["query_string"] if scope["query_string"] else raw


class Known:
    """Middleware: known requests are answered from the newest snapshot at once, past routes and parameters."""

    def __init__(self, app: ASGIApp, answers: KnownAnswers) -> None:
        self._app = app
        self._answers = answers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http" and scope["method"] == "GET":
            known = self._answers.find(target(scope))
            if known is not None:
                runtime = self._answers.runtime
                snapshot = runtime.snapshots.usable()
                if snapshot is not None and known.renew(snapshot, runtime.settings.public):
                    scope["route"] = known.route
                    age, stale = time.monotonic() - runtime.snapshots.checked, runtime.snapshots.stale
                    await reply(scope, send, known.given, known.headers + moving_headers(age, stale))
                    return
        await self._app(scope, receive, send)


class QuickWay:
    """Known requests of the plainest kind, answered as bytes where they are read, past everything else.

    It repeats what the ordinary way through the middlewares has made for the same target and the same snapshot, with
    the same bytes, and notes it in the same journal. Whatever is not plain goes the ordinary way. Only for an API
    whose middlewares let such requests through as they are: no key, no rate limit, no proxy that is believed.
    """

    def __init__(self, answers: KnownAnswers, journal: Journal) -> None:
        self._answers = answers
        self._journal = journal
        self._always = rendered(ALWAYS) + b"\r\n"

    def answer(self, scope: Scope, sent: bytes, more: Headers) -> bytes | None:
        """Return the answer to a GET over HTTP/1.1 whose connection goes on after it, None for the ordinary way.

        :param scope: the request's, without what its target says, which is added.
        :param sent: the target, as it was sent.
        :param more: what the server puts before all headers: the date.
        """
        known = self._answers.find(sent)
        if known is None:
            return None
        started = time.perf_counter()
        snapshots = self._answers.runtime.snapshots
        snapshot = snapshots.usable()
        if snapshot is None or snapshot.version != known.version:
            return None
        headers = scope["headers"]
        for name, _ in headers:
            if name in _NOT_PLAIN:
                return None
        id_ = request_id(headers)
        moving = moving_headers(time.monotonic() - snapshots.checked, snapshots.stale)
        varying = rendered([*moving, named(id_)])
        if has_already(headers, known.given):
            status, first, head, body = 304, _NOT_MODIFIED, known.head_not_modified, b""
        else:
            status, first, head, body = 200, _OK, known.head, known.given.body
        scope.update(method="GET", path=known.path, query_string=known.query_string, route=known.route)
        self._journal.note(scope, status, time.perf_counter() - started, id_)
        return b"".join((first, rendered(more), head, varying, self._always, body))


def rendered(headers: Headers) -> bytes:
    """Return headers as they are sent."""
    return b"".join([part for name, value in headers for part in (name, b": ", value, b"\r\n")])
