"""The benchmark's clients against a running API, with a real wrk; and the plain pool, with the same answers."""

import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import gunicorn_server
import httpx
import pytest
from conftest import Database, own_database
from gunicorn_server import Gunicorn, running
from ports import free_port
from postgres import PostgresServer

from streampulse.core.errors import OperatorError
from streampulse_ops.bench import client
from streampulse_ops.bench.measures import api

pytestmark = pytest.mark.postgres


@pytest.fixture(scope="module")
def filled(postgres_server: PostgresServer, migrated_template: str) -> Iterator[Database]:
    with own_database(postgres_server, migrated_template) as database:
        database.fill(5, 20, "s, 1, 2.5, 0, 0, 0, 0", "s &")
        yield database


@pytest.fixture(scope="module")
def server(filled: Database) -> Iterator[Gunicorn]:
    client.ensure_wrk(print)
    with running(filled, workers=1) as server:
        yield server


@pytest.fixture(scope="module")
def plain(filled: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start the plain pool, as `streampulse measure api` does."""
    variables = gunicorn_server.environment(filled, tmp_path_factory.mktemp("plain"))
    del variables["NOTIFY_SOCKET"]
    port = free_port()
    with subprocess.Popen([sys.executable, "-m", "streampulse.api.plain_pool", str(port)], env=variables) as process:
        try:
            address = f"http://127.0.0.1:{port}"
            deadline = time.monotonic() + 30
            while not client.answers(address):
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.1)
            yield address
        finally:
            process.terminate()


def test_load_is_counted_and_failures_are(server: Gunicorn) -> None:
    good = client.load(f"{server.url}/metrics/latest?limit=100", 1, connections=4)
    assert good.rate > 10
    assert 0 < good.p50 <= good.p99 < 5
    assert good.failed == 0
    # Four connections that wait 50 ms after each response send at most 80 requests per second.
    paced = client.load(f"{server.url}/metrics/latest?limit=100", 1, connections=4, pause=50)
    assert 20 < paced.rate < 85
    assert paced.p50 < 0.05
    bad = client.load(f"{server.url}/nowhere", 1, connections=4)
    assert bad.failed > 10


def test_a_server_that_does_not_answer_is_named_in_one_line(plain: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{taken.getsockname()[1]}"
        for ask in (client.load, client.readers, client.largest_age):
            arguments = (nobody, 1) if ask is not client.readers else (nobody, 1, 1)
            with pytest.raises(OperatorError, match=nobody) as raised:
                ask(*arguments)
            assert "\n" not in str(raised.value)
        assert not client.answers(nobody)
    assert client.answers(plain)


def test_readers_count_only_with_updates(server: Gunicorn, filled: Database) -> None:
    # Nothing changes: the initial state is no update.
    seen = client.readers(server.url, 5, 2)
    assert (seen.readers, seen.served) == (5, 0)
    over = threading.Event()

    def write() -> None:
        while not over.wait(0.3):
            filled.execute("UPDATE stream_presence SET active_viewers = active_viewers + 1")

    writing = threading.Thread(target=write)
    writing.start()
    try:
        seen = client.readers(server.url, 20, 5)
    finally:
        over.set()
        writing.join()
    assert (seen.readers, seen.served) == (20, 20)
    assert 0 < seen.readings <= 5


def test_the_plain_pool_gives_the_apis_answers(server: Gunicorn, plain: str) -> None:
    ours = httpx.get(f"{server.url}/metrics/latest?limit=100", timeout=10)
    theirs = httpx.get(f"{plain}/metrics/latest?limit=100", timeout=10)
    assert theirs.content == ours.content
    assert len(ours.json()["rows"]) == 5


def test_a_whole_measurement(server: Gunicorn, plain: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "READERS", 10)
    monkeypatch.setattr(api, "_SETTLE_SECONDS", 0.0)
    answer = api.ask(server.url, plain, 1)
    made = {figure.name: figure for figure in api.figures(answer)}
    assert made["api.failed"].value == 0
    pairs = zip(answer["latest"], answer["plain_pool"], strict=True)
    assert made["api.ratio"].value == statistics.median(ours["rate"] / theirs["rate"] for ours, theirs in pairs)
    assert all(figure.value > 0 for name, figure in made.items() if name.endswith(".rate"))
    assert len(answer["latest"]) == len(answer["plain_pool"]) == api.ROUNDS


def test_without_rows_it_says_so(
    postgres_server: PostgresServer, migrated_template: str, monkeypatch: pytest.MonkeyPatch, plain: str
) -> None:
    monkeypatch.setattr(api, "_READY_SECONDS", 0.5)
    with (
        own_database(postgres_server, migrated_template) as empty,
        running(empty, workers=1) as server,
        pytest.raises(OperatorError, match=f"{server.url} has no rows"),
    ):
        api.ask(server.url, plain, 1)
