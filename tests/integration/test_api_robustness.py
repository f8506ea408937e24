"""Hostile clients: the service stays up, answers the others, and stays within its memory."""

import contextlib
import resource
import socket
import time
from collections.abc import Iterator

import httpx
import pytest
from conftest import Database, own_database
from gunicorn_server import Gunicorn, running
from postgres import PostgresServer

pytestmark = pytest.mark.postgres

MEGABYTE = 2**20
#: Maximum growth of all processes under any of these, in MB: a bound, not a figure.
GROWTH_MB = 150
GET = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module")
def filled(postgres_server: PostgresServer, migrated_template: str) -> Iterator[Database]:
    with own_database(postgres_server, migrated_template) as database:
        database.fill(1000, 20, "m, 0, 0, 0, 0, 0, 0")
        yield database


@pytest.fixture(scope="module")
def server(filled: Database) -> Iterator[Gunicorn]:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    # The service inherits the limit, as its unit would set it.
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, hard), hard))
    with running(filled, workers=2) as server:
        for path in ("/metrics?limit=1000", "/metrics/latest?limit=1000", "/streams/top?n=1000"):
            for _ in range(10):
                assert httpx.get(server.url + path, timeout=10).status_code == 200
        yield server
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.fixture(autouse=True)
def unharmed(server: Gunicorn) -> Iterator[None]:
    """Check after each test that the same workers exist, answer, and have not grown beyond the bound."""
    workers, memory = server.children(), server.memory_mb()
    yield
    for _ in range(10):
        assert httpx.get(server.url + "/metrics/latest?limit=5", timeout=10).status_code == 200
    assert server.children() == workers
    assert server.memory_mb() < memory + GROWTH_MB
    assert "Traceback" not in server.log


def connect(server: Gunicorn) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=20)


def answered(server: Gunicorn) -> None:
    response = httpx.get(server.url + "/state?limit=1", timeout=10)
    assert (response.status_code, len(response.json()["rows"])) == (200, 1)


def rest(connection: socket.socket) -> bytes:
    """Read until the other side closes the connection."""
    found = b""
    with contextlib.suppress(ConnectionError):
        while piece := connection.recv(65_536):
            found += piece
    return found


def test_a_thousand_idle_connections(server: Gunicorn) -> None:
    before = server.memory_mb()
    idle = [connect(server) for _ in range(1000)]
    try:
        for connection in idle[::2]:
            connection.sendall(GET.replace(b"/metrics", b"/metrics?limit=1"))
        for connection in idle[::2]:
            assert connection.recv(12) == b"HTTP/1.1 200"
        for _ in range(20):
            answered(server)
        assert server.memory_mb() < before + GROWTH_MB
    finally:
        for connection in idle:
            connection.close()


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\nX-Large: ", b"a" * 65_536),
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\n", b"X-Many: a\r\n" * 6_000),
        (b"GET /metrics?stream_id=", b"a" * 65_536),
        (b"", b"G" * 65_536),
        (b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 10485760\r\n\r\n", b"a" * 65_536),
        (
            b"POST /metrics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"10000\r\n" + b"a" * 65_536 + b"\r\n",
        ),
    ],
    ids=["one header", "many headers", "address", "method", "body", "chunked body"],
)
def test_ten_megabytes_of_anything(server: Gunicorn, head: bytes, piece: bytes) -> None:
    with connect(server) as connection:
        with contextlib.suppress(OSError):
            connection.sendall(head)
            for _ in range(10 * MEGABYTE // len(piece)):
                connection.sendall(piece)
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_WR)
        # Rejected by a response, or by a closed connection if there was no request to respond to.
        said = rest(connection)
        assert said[:12] in (b"", b"HTTP/1.1 400", b"HTTP/1.1 405", b"HTTP/1.1 413", b"HTTP/1.1 431"), said[:200]
    answered(server)


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\r\n\r\n\r\n", b"\x00" * 100 + b"\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n", b"GET / HTTP/1.1\r\nHost x\r\n\r\n", b"GET / HTTP/1.1\r\n: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n", b"GET http://[::1 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /%zz%00 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /metrics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"CONNECT elsewhere.example:443 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET //elsewhere.example/..%2f..%2fetc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
        GET[:-2] + b"X-Request-ID: a\x0bb\r\n\r\n",
    ],
    ids=lambda nonsense: ascii(nonsense[:50]),
)  # fmt: skip
def test_malformed_http(server: Gunicorn, nonsense: bytes) -> None:
    with connect(server) as connection:
        connection.sendall(nonsense)
        connection.shutdown(socket.SHUT_WR)
        said = rest(connection)
    assert b" 500 " not in said[:20]
    assert not said.startswith(b"HTTP/1.1 101")
    answered(server)


def test_nothing_of_one_request_becomes_another(server: Gunicorn) -> None:
    """Pipelined requests get their responses in order; a body is not taken for a request."""
    paths = [b"/state?limit=1", b"/nowhere", b"/metrics?limit=0", b"/streams/top?n=1"]
    with connect(server) as connection:
        connection.sendall(b"".join(GET.replace(b"/metrics", path) for path in paths))
        found = b""
        while found.count(b"HTTP/1.1 ") < 4:
            found += connection.recv(65_536)
    assert [part[:3] for part in found.split(b"HTTP/1.1 ")[1:]] == [b"200", b"404", b"422", b"200"]
    hidden = GET.replace(b"/metrics", b"/smuggled")
    with connect(server) as connection:
        head = b"POST /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(hidden)
        connection.sendall(head + hidden)
        assert rest(connection).count(b"HTTP/1.1 ") == 1


def test_clients_that_ask_and_never_read(server: Gunicorn) -> None:
    deaf = [connect(server) for _ in range(40)]
    before = server.memory_mb()
    try:
        for connection in deaf:
            connection.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                for _ in range(200):
                    connection.sendall(GET.replace(b"/metrics", b"/metrics/latest?limit=1000"))
        for _ in range(20):
            answered(server)
            time.sleep(0.05)
        assert server.memory_mb() < before + GROWTH_MB
    finally:
        for connection in deaf:
            connection.close()
