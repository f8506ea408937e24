"""The quick way at the connection against the ordinary one through the middlewares: the same bytes, whatever is asked.

Rows stand still here, so two answers to the same request differ in nothing but date, age and the request's name.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from api_client import make_app
from conftest import Database, own_database
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from postgres import PostgresServer
from prometheus_client import REGISTRY
from uvicorn.config import Config
from uvicorn.server import Server

from streampulse.api.runtime import Runtime
from streampulse.api.worker import ApiWorker, BoundedProtocol

pytestmark = pytest.mark.postgres

TARGETS = [
    "/metrics/latest?limit=100",
    "/metrics/latest",
    "/metrics?minutes=3&limit=7",
    "/metrics?stream_id=s-1%20%F0%9F%8E%A5",
    "/metrics/history?minutes=5&stream_id=s-3",
    "/state?limit=3",
    "/streams/top?by=joins&n=4",
    "/%6Detrics/latest",
]
#: With this the ordinary way is taken; without allowed origins it changes nothing else.
ORDINARY = ("Origin", "https://elsewhere.example")
KEY = "a-key-of-the-tests-" + "x" * 16


Header = tuple[str, str]


@dataclass
class Api:
    """A running API, and how many requests its application has seen: those that did not go the quick way."""

    port: int
    runtime: Runtime
    server: Server
    seen: int = 0

    @contextlib.contextmanager
    def connected(self) -> Iterator[socket.socket]:
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            yield connection

    def all_of(self, *pieces: bytes) -> bytes:
        """Send pieces over a connection of their own and return what comes until the other side ends it."""
        with self.connected() as connection:
            for number, piece in enumerate(pieces):
                if number:
                    time.sleep(0.003)
                connection.sendall(piece)
            found = b""
            while piece := connection.recv(65_536):
                found += piece
            return found

    def protocols(self) -> list[BoundedProtocol]:
        return [found for found in self.server.server_state.connections if isinstance(found, BoundedProtocol)]


def request(target: str, *headers: Header, method: str = "GET", version: str = "1.1", body: str = "") -> bytes:
    lines = [f"{method} {target} HTTP/{version}", "Host: x", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join([*lines, "", body]).encode("latin-1")


def ended(target: str = TARGETS[0], *headers: Header) -> bytes:
    """Return a request after which the connection ends."""
    return request(target, *headers, ("Connection", "close"))


def still(answers: bytes) -> bytes:
    """Return answers without what differs from one to the next."""
    return re.sub(rb"\r\n(date|x-snapshot-age|x-request-id): [^\r]+", rb"\r\n\\1: *", answers)


@contextlib.contextmanager
def serving(database: Database, keep_alive: int = 75, **chosen: Any) -> Iterator[Api]:
    """Serve the API with the worker's protocol in this process, where what its application sees can be counted."""
    app = make_app(database.settings(), **chosen)

    async def counting(scope: Any, receive: Any, send: Any) -> None:
        running.seen += scope["type"] == "http"
        await app(scope, receive, send)

    given = {**ApiWorker.CONFIG_KWARGS, "log_config": None, "timeout_keep_alive": keep_alive}
    server = Server(Config(counting, **given))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        running = Api(listener.getsockname()[1], app.state.runtime, server)
        # As under gunicorn, except that signals are not this thread's.
        loop = server.config.get_loop_factory()
        thread = threading.Thread(target=lambda: asyncio.Runner(loop_factory=loop).run(server.serve([listener])))
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive()
                time.sleep(0.01)
            yield running
        finally:
            server.should_exit = True
            thread.join(20)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def filled(postgres_server: PostgresServer, migrated_template: str) -> Iterator[Database]:
    with own_database(postgres_server, migrated_template) as database:
        database.execute(
            "INSERT INTO stream_metrics_minute"
            " SELECT timestamptz '2026-05-01T12:00Z' - m * interval '1 min', 's-' || s, m, 1, 2.5, s, 0, 0, 0"
            " FROM generate_series(0, 5) AS m, generate_series(1, 20) AS s"
        )
        database.execute(
            "INSERT INTO stream_metrics_minute VALUES ('2026-05-01T12:00Z', %s, 1, 1, 1, 1, 1, 1, 1)",
            ("s-1 \U0001f3a5",),
        )
        database.execute(
            "INSERT INTO stream_presence"
            " SELECT DISTINCT stream_id, 1, NULL::timestamptz, now() FROM stream_metrics_minute"
        )
        yield database


@pytest.fixture(scope="module")
def served(filled: Database) -> Iterator[Api]:
    with serving(filled) as api:
        yield api


@pytest.fixture
def api(served: Api) -> Api:
    """Make all targets known: the first answer is the routes', the second the ordinary way's for known ones."""
    for target in TARGETS:
        for _ in range(2):
            assert served.all_of(ended(target, ORDINARY)).startswith(b"HTTP/1.1 200")
    return served


def etag(api: Api, target: str) -> str:
    found = re.search(rb"\r\netag: ([^\r]+)", api.all_of(ended(target)))
    assert found is not None
    return found[1].decode()


@pytest.mark.parametrize("target", TARGETS)
def test_a_known_target_goes_the_quick_way_with_the_same_bytes(api: Api, target: str) -> None:
    before = api.seen
    quick = api.all_of(request(target), ended("/nowhere"))
    assert api.seen == before + 1
    ordinary = api.all_of(request(target, ORDINARY), ended("/nowhere", ORDINARY))
    assert api.seen == before + 3
    assert still(quick) == still(ordinary)
    assert quick.startswith(b"HTTP/1.1 200 OK\r\ndate: ")
    assert re.search(rb"\r\nx-request-id: [0-9a-f]{16}\r\n", quick)
    assert 0 <= float(re.search(rb"\r\nx-snapshot-age: ([0-9.]+)\r\n", quick)[1]) < 1  # type: ignore[index]


@pytest.mark.parametrize(
    ("method", "version", "headers", "body"),
    [
        ("GET", "1.0", [], ""),
        ("GET", "1.0", [("Connection", "keep-alive")], ""),
        ("GET", "1.1", [("Connection", "close")], ""),
        ("GET", "1.1", [("Connection", "x, Close")], ""),
        ("GET", "1.1", [("Content-Length", "0")], ""),
        ("GET", "1.1", [("Content-Length", "5")], "hello"),
        ("GET", "1.1", [("Content-Length", "99999")], ""),
        ("GET", "1.1", [("Transfer-Encoding", "chunked")], "5\r\nhello\r\n0\r\n\r\n"),
        ("GET", "1.1", [("Expect", "100-continue")], ""),
        ("GET", "1.1", [ORDINARY], ""),
        ("HEAD", "1.1", [], ""),
        ("OPTIONS", "1.1", [], ""),
        ("POST", "1.1", [], ""),
        ("PURGE", "1.1", [], ""),
    ],
)
def test_what_is_not_plain_goes_the_ordinary_way(
    api: Api, method: str, version: str, headers: list[Header], body: str
) -> None:
    before = api.seen
    api.all_of(request(TARGETS[0], *headers, method=method, version=version, body=body), ended("/nowhere"))
    assert api.seen > before + (
        "Close" not in str(headers).title() and version == "1.1" and "99999" not in str(headers)
    )


IDS = st.sampled_from(["abc.1_2-3", "x" * 64, "x" * 65, "", "a b", "\xe9", "'; --"])
MATCHES = st.sampled_from(
    ["*", "", '"other"', "W/", "ETAG", "W/ETAG", 'ETAG, "other"', '"other" , ETAG', '"*"', "\xff"]
)
HEADERS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["X-Request-ID", "x-request-id"]), IDS),
        st.tuples(st.sampled_from(["If-None-Match", "IF-NONE-MATCH"]), MATCHES),
        st.tuples(st.just("Connection"), st.sampled_from(["keep-alive", "close", "x", "Upgrade", "keep-alive, close"])),
        st.tuples(st.just("Accept"), st.sampled_from(["*/*", "text/html", "", "application/json;q=0"])),
        st.tuples(st.just("Cookie"), st.sampled_from(["a=b", "streampulse_session=x", ";;;", "\xff" * 200])),
        st.tuples(st.just("X-Forwarded-For"), st.just("10.0.0.1")),
        st.tuples(st.just("X-Forwarded-Proto"), st.just("https")),
        st.tuples(st.just("Authorization"), st.just("Bearer x")),
        st.tuples(st.just("Content-Length"), st.sampled_from(["0", "00"])),
        st.tuples(st.sampled_from(["Range", "If-Match", "TE", "Via", "X-\x7e!"]), st.text("ab=-, \t", max_size=20)),
    ),
    max_size=6,
).filter(lambda headers: [name for name, _ in headers].count("Content-Length") < 2)
REQUESTS = st.tuples(
    st.sampled_from(
        [
            *TARGETS,
            *TARGETS,
            *TARGETS,
            "/nowhere",
            "/metrics?limit=0",
            "/metrics/latest?",
            "/metrics/latest?limit=100#x",
            "/state?limit=3&",
        ]
    ),
    HEADERS,
    st.sampled_from(["GET"] * 8 + ["HEAD", "OPTIONS", "POST"]),
    st.sampled_from(["1.1"] * 8 + ["1.0"]),
)


@settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    asked=st.lists(REQUESTS, min_size=1, max_size=5),
    cuts=st.lists(st.floats(0, 1), max_size=4),
)
def test_whatever_is_asked_and_however_it_arrives_the_bytes_are_those_of_the_ordinary_way(
    api: Api, asked: list[tuple[str, list[Header], str, str]], cuts: list[float]
) -> None:
    """Several requests over one connection, in one piece or cut anywhere, with headers of all kinds."""

    def sent(*more: Header) -> bytes:
        found = b""
        for target, headers, method, version in asked:
            known = etag(api, target) if target in TARGETS else '"none"'
            given = [(name, value.replace("ETAG", known)) for name, value in headers]
            found += request(target, *given, *more, method=method, version=version)
        return found + ended("/state?limit=3", *more)

    # What is sent to a connection that has ended may cost the answers before it, by TCP itself.
    ends = any(version == "1.0" or "close" in str(headers) for _, headers, _, version in asked)

    def pieces(whole: bytes) -> list[bytes]:
        places = [0, *sorted({int(cut * len(whole)) for cut in cuts if not ends}), len(whole)]
        return [whole[first:last] for first, last in itertools.pairwise(places) if first < last]

    assert still(api.all_of(*pieces(sent()))) == still(api.all_of(sent(ORDINARY)))


def test_nothing_malformed_behind_a_request_takes_its_answer(api: Api) -> None:
    """The ordinary way would not have begun with it: here the connection is kinder."""
    found = api.all_of(request(TARGETS[0]) + b"\0\r\n\r\n")
    assert re.findall(rb"HTTP/1\.1 (\d+)", found) == [b"200", b"400"]


def test_nothing_is_answered_behind_the_last_request(api: Api) -> None:
    many = b"".join(request("/metrics", (f"X-{number}", "a")) for number in range(3))
    assert api.all_of(ended() + many).count(b"HTTP/1.1 ") == 1
    refused = request("/metrics", *[(f"X-{number}", "a") for number in range(101)])
    found = api.all_of(request(TARGETS[0]) + refused + many)
    assert re.findall(rb"HTTP/1\.1 (\d+)", found) == [b"200", b"431"]


@pytest.mark.parametrize(("size", "status"), [(30_000, b"200"), (33_000, b"431"), (60_000, b"431"), (90_000, b"431")])
def test_a_head_has_a_bound_however_it_arrives(api: Api, size: int, status: bytes) -> None:
    sent = request(TARGETS[0], ("X-Large", "x" * size), ("Connection", "close"))
    for pieces in ([sent], [sent[:20_000], sent[20_000:]]):
        assert re.findall(rb"HTTP/1\.1 (\d+)", api.all_of(*pieces)) == [status]
    # A body is bounded otherwise, and is no head.
    with_body = request(
        "/login", ("Content-Length", "16000"), ("Connection", "close"), method="POST", body="b" * 16_000
    )
    assert b"431" not in api.all_of(request(TARGETS[0], ("X-Large", "x" * 20_000)) + with_body)


def test_a_harmless_request_id_is_taken_over_and_no_other(api: Api) -> None:
    before = api.seen
    found = api.all_of(request(TARGETS[0], ("X-Request-ID", "mine-1")), ended("/nowhere"))
    assert b"\r\nx-request-id: mine-1\r\n" in found
    found = api.all_of(request(TARGETS[0], ("X-Request-ID", "not mine")), ended("/nowhere"))
    assert re.match(rb"[^\0]*?\r\nx-request-id: [0-9a-f]{16}\r\n", found)
    assert api.seen == before + 2


@pytest.mark.parametrize("target", [*TARGETS, "/live", "/", "/health"])
def test_the_connection_goes_on_after_a_head(api: Api, target: str) -> None:
    found = api.all_of(request(target, method="HEAD") + request("/state?limit=3"), ended("/nowhere"))
    answers = found.split(b"HTTP/1.1 ")[1:]
    assert [answer[:3] for answer in answers] == [b"200", b"200", b"404"]
    assert answers[0].endswith(b"\r\n\r\n")
    assert b"\r\ntransfer-encoding:" not in answers[0]
    assert answers[1].endswith(b"]}")


def test_not_modified(api: Api) -> None:
    before = api.seen
    found = api.all_of(request(TARGETS[0], ("If-None-Match", etag(api, TARGETS[0]))), ended("/nowhere"))
    assert found.startswith(b"HTTP/1.1 304 Not Modified\r\n")
    head = found.partition(b"\r\n\r\n")[0]
    assert b"content-" not in head.replace(b"content-type-options", b"").replace(b"content-security-policy", b"")
    # One was for the etag.
    assert api.seen == before + 2


def test_it_is_noted_like_any_other(filled: Database, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="streampulse.api.access")

    def noted(api: Api, *headers: Header) -> tuple[list[dict[str, Any]], list[float]]:
        labels = {"route": "/metrics", "method": "GET", "status": "200"}
        names = ["streampulse_api_http_requests_total", "streampulse_api_http_request_duration_seconds_count"]

        def values() -> list[float]:
            return [
                REGISTRY.get_sample_value(names[0], labels) or 0.0,
                REGISTRY.get_sample_value(names[1], {"route": "/metrics"}) or 0.0,
            ]

        before = values()
        caplog.clear()
        api.all_of(request(TARGETS[2], ("X-Request-ID", "r-1"), *headers), ended("/nowhere"))
        found = [dict(record.fields) for record in caplog.records if record.name == "streampulse.api.access"]  # type: ignore[attr-defined]
        lines = [fields for fields in found if fields["request_id"] == "r-1"]
        for fields in lines:
            assert 0 <= float(fields.pop("seconds")) < 1
        return lines, [after - first for after, first in zip(values(), before, strict=True)]

    # A server of its own: the journal of the others' has no room for lines any more.
    with serving(filled) as api:
        for _ in range(2):
            api.all_of(ended(TARGETS[2], ORDINARY))
        before = api.seen
        quick, seen, ordinary = noted(api), api.seen, noted(api, ORDINARY)
    assert seen == before + 1
    assert quick == ordinary
    assert quick == (
        [
            {
                "request_id": "r-1", "client": "127.0.0.1", "method": "GET", "path": "/metrics",
                "query": "minutes=3&limit=7", "status": 200,
            }
        ],
        [1.0, 1.0],
    )  # fmt: skip


def test_answers_stay_in_order_behind_one_that_is_under_way(api: Api, filled: Database) -> None:
    """A question for the database, held up by a lock, and known requests behind it on the same connection."""
    with (
        contextlib.closing(filled.server.connect("streampulse_writer", filled.name)) as other,
        other.cursor() as cursor,
    ):
        cursor.execute("BEGIN; LOCK TABLE stream_metrics_minute IN ACCESS EXCLUSIVE MODE")
        with api.connected() as connection:
            connection.sendall(request("/metrics?stream_id=__order", ("X-Request-ID", "0")))
            time.sleep(0.1)
            for number in (1, 2):
                connection.sendall(request(TARGETS[0], ("X-Request-ID", str(number))))
                time.sleep(0.05)
            connection.sendall(ended(TARGETS[0], ("X-Request-ID", "3")))
            connection.settimeout(0.1)
            with pytest.raises(TimeoutError):
                connection.recv(1)
            cursor.execute("ROLLBACK")
            connection.settimeout(10)
            found = b""
            while piece := connection.recv(65_536):
                found += piece
    assert re.findall(rb"\r\nx-request-id: (\d)\r\n", found) == [b"0", b"1", b"2", b"3"]


def test_who_takes_nothing_is_not_buffered_without_end(api: Api) -> None:
    """Requests that arrive one by one from a client that does not read; it gets all of its answers once it does."""
    count, target = 400, "/metrics?minutes=3&limit=1000"
    for _ in range(2):
        size = len(api.all_of(ended(target, ORDINARY)))
    assert size > 5_000
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", api.port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        most = 0
        for number in range(count):
            connection.sendall(request(target, ("X-Request-ID", f"n-{number}")))
            time.sleep(0.001)
            most = max(most, *(protocol.transport.get_write_buffer_size() for protocol in api.protocols()))
        # What uvloop holds back by itself, and one answer more.
        assert most <= 65_536 + 2 * size
        assert most > 0
        connection.settimeout(10)
        found = b""
        while found.count(b"\r\n\r\n") < count:
            found += connection.recv(1_000_000)
    assert re.findall(rb"\r\nx-request-id: n-(\d+)\r\n", found) == [b"%d" % number for number in range(count)]


def test_of_what_arrives_together_only_the_first_goes_the_quick_way(api: Api) -> None:
    """So that nobody keeps the others waiting with a thousand requests in one piece."""
    before = api.seen
    found = api.all_of(request(TARGETS[0]) * 50 + ended(TARGETS[0]))
    assert found.count(b"HTTP/1.1 200 OK") == 51
    assert api.seen == before + 50


def test_time_limits_hold_after_a_quick_answer(filled: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streampulse.api.worker.REQUEST_SECONDS", 0.5)
    with serving(filled, keep_alive=2) as api:
        for _ in range(2):
            api.all_of(ended(TARGETS[0], ORDINARY))
        before = api.seen
        with api.connected() as idle, api.connected() as slow:
            for connection in (idle, slow):
                connection.sendall(request(TARGETS[0]))
                assert connection.recv(65_536).startswith(b"HTTP/1.1 200")
            assert api.seen == before
            # The time for a request does not run while there is none, and begins anew with its first byte.
            time.sleep(1)
            slow.sendall(b"GET /")
            started = time.monotonic()
            assert slow.recv(65_536).startswith(b"HTTP/1.1 408")
            assert 0.4 < time.monotonic() - started < 2
            assert idle.recv(1) == b""
            assert time.monotonic() - started < 3


def test_idle_connections_end_when_the_server_does(filled: Database) -> None:
    with contextlib.ExitStack() as stack:
        with serving(filled) as api:
            for _ in range(2):
                api.all_of(ended(TARGETS[0], ORDINARY))
            before = api.seen
            connection = stack.enter_context(api.connected())
            connection.sendall(request(TARGETS[0]))
            assert connection.recv(65_536).startswith(b"HTTP/1.1 200")
            assert api.seen == before
            stopping = time.monotonic()
        assert time.monotonic() - stopping < 3
        assert connection.recv(1) == b""


@pytest.mark.parametrize(
    "chosen",
    [
        {"public": True, "keys": KEY, "cookie_secret": "s" * 32},
        {"trusted_proxies": "127.0.0.1/32"},
    ],
    ids=["public", "behind a proxy"],
)
def test_where_each_request_has_to_be_looked_at_there_is_no_quick_way(filled: Database, chosen: dict[str, Any]) -> None:
    with serving(filled, **chosen) as api:
        for number in range(4):
            found = api.all_of(request(TARGETS[0], ("X-API-Key", KEY)), ended("/nowhere"))
            assert found.startswith(b"HTTP/1.1 200")
            assert api.seen == 2 * (number + 1)
        if "public" in chosen:
            assert api.all_of(request(TARGETS[0]), ended("/nowhere")).startswith(b"HTTP/1.1 401")


def test_too_many_connections_are_refused_on_the_quick_way_as_well(
    filled: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streampulse.api.worker.MAX_CONCURRENCY", 3)
    monkeypatch.setitem(ApiWorker.CONFIG_KWARGS, "limit_concurrency", 3)
    with serving(filled) as api, api.connected() as one:
        for _ in range(2):
            api.all_of(ended(TARGETS[0], ORDINARY))
        with api.connected() as two, api.connected() as three:
            while len(api.protocols()) < 3:
                time.sleep(0.01)
            one.sendall(request(TARGETS[0]))
            assert one.recv(65_536).startswith(b"HTTP/1.1 503")
            # That one is gone, so there is room again.
            while len(api.protocols()) > 2:
                time.sleep(0.01)
            for connection in (two, three):
                connection.sendall(request(TARGETS[0]))
                assert connection.recv(65_536).startswith(b"HTTP/1.1 200")


def test_numbers_that_move_are_given_at_once_and_old_ones_marked_as_stale(
    filled: Database, postgres_server: PostgresServer
) -> None:
    with serving(filled, stale_seconds=3) as api, api.connected() as connection:

        def ask() -> bytes:
            connection.sendall(request("/state?limit=1"))
            return connection.recv(65_536)

        for _ in range(3):
            assert b'"active_viewers":1,' in ask()
        filled.execute("UPDATE stream_presence SET active_viewers = 2")
        deadline = time.monotonic() + 5
        while b'"active_viewers":2,' not in ask():
            assert time.monotonic() < deadline
        before = api.seen
        ask()
        assert api.seen == before
        postgres_server.stop()
        try:
            while b"\r\nx-snapshot-stale: true\r\n" not in (found := ask()):
                assert time.monotonic() < deadline
            before = api.seen
            quick = ask()
            assert api.seen == before
            connection.sendall(request("/state?limit=1", ORDINARY))
            assert still(connection.recv(65_536)) == still(quick) == still(found)
            while ask().startswith(b"HTTP/1.1 200"):
                assert time.monotonic() < deadline + 5
            assert ask().startswith(b"HTTP/1.1 503")
        finally:
            postgres_server.start()
        deadline = time.monotonic() + 10
        while not (found := ask()).startswith(b"HTTP/1.1 200"):
            assert time.monotonic() < deadline
        assert b"stale" not in found
