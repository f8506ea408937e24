"""/live: the first events, the resume after a break, and the notice that the numbers are stale."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from conftest import Database
from gunicorn_server import Gunicorn, running

pytestmark = pytest.mark.postgres

INSERT = "INSERT INTO stream_metrics_minute VALUES (%s, %s, %s, %s, %s, 1, 1, 1, %s)"


@dataclass
class Event:
    name: str
    id: str | None
    data: Any


class Reader:
    """Reads events on a thread of its own."""

    def __init__(self, url: str, **headers: str) -> None:
        self.events: list[Event] = []
        self.retry: list[str] = []
        self.ended = threading.Event()
        self.status = 0
        self._client = httpx.Client(timeout=httpx.Timeout(10, read=60))
        self._closing = False
        self._thread = threading.Thread(target=self._read, args=(url, headers), daemon=True)
        self._thread.start()

    def _read(self, url: str, headers: dict[str, str]) -> None:
        try:
            with self._client.stream("GET", url, headers=headers) as answer:
                self.status = answer.status_code
                fields: dict[str, str] = {}
                for line in answer.iter_lines():
                    if line:
                        name, _, value = line.partition(": ")
                        fields[name] = value
                    elif fields:
                        if "retry" in fields:
                            self.retry.append(fields["retry"])
                        if "data" in fields:
                            self.events.append(Event(fields["event"], fields.get("id"), json.loads(fields["data"])))
                        fields = {}
        except (httpx.HTTPError, httpx.StreamError, OSError):
            assert self._closing or self.events is not None
        finally:
            self.ended.set()

    def wait(self, condition: Callable[[], Any], what: str, seconds: float = 20) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"{what}: {self.events}"
            time.sleep(0.02)

    def named(self, name: str) -> list[Event]:
        return [event for event in self.events if event.name == name]

    def close(self) -> None:
        self._closing = True
        self._client.close()


@contextmanager
def reading(url: str, **headers: str) -> Iterator[Reader]:
    reader = Reader(url + "/live", **headers)
    try:
        yield reader
    finally:
        reader.close()


@pytest.fixture
def filled(database: Database) -> Database:
    database.execute(
        INSERT,
        ("2026-05-01T12:00Z", "a", 5, 1, "1.10", 3),
        ("2026-05-01T12:09Z", "a", 10, 2, "2.20", 7),
        ("2026-05-01T12:10Z", "a", 20, 3, "3.30", 9),
        ("2026-05-01T12:10Z", "b", 1, 0, "0", 4),
        ("2026-05-01T12:10Z", "__probe", 1000, 0, "0", 4),
    )
    database.execute(
        "INSERT INTO stream_presence VALUES ('a', 8, NULL, now()), ('b', 4, NULL, now()), ('__probe', 9, NULL, now())"
    )
    database.execute("UPDATE event_clock SET clock = '2026-05-01T12:10:30Z'")
    return database


@pytest.fixture
def server(filled: Database) -> Iterator[Gunicorn]:
    with running(filled, workers=2) as server:
        yield server


def test_first_the_whole_state_then_changes(server: Gunicorn, filled: Database) -> None:
    with reading(server.url) as reader:
        reader.wait(lambda: reader.events, "a first event")
        first = reader.events[0]
        assert first.name == "snapshot"
        assert reader.retry
        assert first.data["window_start"] == "2026-05-01T12:10:00Z"
        assert first.data["event_clock"] == "2026-05-01T12:10:30Z"
        # Ten windows back from the newest: 12:00 is not among them.
        assert first.data["rows"] == [
            {
                "stream_id": "a", "active_viewers": 8, "chat_messages": 30, "donations": 5, "donations_usd": "5.50",
                "trend": [0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 7],
            },
            {
                "stream_id": "b", "active_viewers": 4, "chat_messages": 1, "donations": 0, "donations_usd": "0.00",
                "trend": [0] * 14,
            },
        ]  # fmt: skip
        assert first.data["totals"] == {
            "active_viewers": 12,
            "streams": 2,
            "current_minute": {
                "window_start": "2026-05-01T12:10:00Z", "chat_messages": 21, "donations": 3, "donations_usd": "3.30",
            },
            "last_minute": {
                "window_start": "2026-05-01T12:09:00Z", "chat_messages": 10, "donations": 2, "donations_usd": "2.20",
            },
            "last_minutes": {"chat_messages": 31, "donations": 5, "donations_usd": "5.50"},
        }  # fmt: skip
        assert first.data["totals_trend"]["active_viewers"] == [3, 0, 0, 0, 0, 0, 0, 0, 0, 7]
        filled.execute("UPDATE stream_presence SET active_viewers = 11 WHERE stream_id = 'b'")
        reader.wait(lambda: reader.named("update"), "an update")
        update = reader.named("update")[0]
        assert int(str(update.id)) > int(str(first.id))
        assert [(row["stream_id"], row["active_viewers"]) for row in update.data["rows"]] == [("b", 11)]
        assert "trend" not in update.data["rows"][0]
        assert update.data["totals"]["active_viewers"] == 19
        assert update.data["removed"] == []
        filled.execute("DELETE FROM stream_metrics_minute WHERE stream_id = 'b'")
        filled.execute("DELETE FROM stream_presence WHERE stream_id = 'b'")
        reader.wait(lambda: any(event.data["removed"] == ["b"] for event in reader.named("update")), "b is removed")


def test_with_very_many_streams_no_number_is_invented(database: Database) -> None:
    streams, minutes, windows = 3_000, 6, 10
    database.execute(
        "INSERT INTO stream_metrics_minute SELECT timestamptz '2026-05-01T12:10Z' - m * interval '1 min', 's-' || s,"
        " 2, 1, 1.25, 1, 1, 9, 7 FROM generate_series(0, %s) AS m, generate_series(1, %s) AS s",
        (14, streams),
    )
    database.execute("INSERT INTO stream_presence SELECT 's-' || s, 8, NULL, now() FROM generate_series(1, 60) AS s")
    with running(database, workers=1, statement_timeout_ms=10_000) as server, reading(server.url) as reader:
        reader.wait(lambda: reader.events, "a first event", seconds=60)
        first = reader.events[0].data
        assert first["minutes"] == minutes
        for row in first["rows"]:
            assert row["trend"] == [7] * (minutes - 1)
            assert row["chat_messages"] == 2 * minutes
        assert len(first["rows"]) >= 50
        # The sums over all streams cover ten windows in any case.
        assert first["totals"]["last_minutes"] == {
            "chat_messages": 2 * windows * streams,
            "donations": windows * streams,
            "donations_usd": f"{windows * streams * 1.25:.2f}",
        }
        assert first["totals"]["current_minute"]["chat_messages"] == 2 * streams


def test_a_resumed_reader_gets_missed_updates_from_any_worker(server: Gunicorn, filled: Database) -> None:
    with reading(server.url) as keeping, reading(server.url) as other, reading(server.url) as third:
        keeping.wait(lambda: keeping.events and other.events and third.events, "first events")
        last = str(keeping.events[0].id)
        filled.execute("UPDATE stream_presence SET active_viewers = 20 WHERE stream_id = 'a'")
        keeping.wait(lambda: keeping.named("update") and other.named("update") and third.named("update"), "updates")
        newest = str(keeping.named("update")[-1].id)
        for _ in range(6):
            with reading(server.url, **{"Last-Event-ID": last}) as back:
                back.wait(lambda back=back: back.events, "an event")  # type: ignore[misc]
                # A worker with readers all the time sends the changes; another one sends everything.
                assert back.events[0].name in ("update", "snapshot")
                rows = {row["stream_id"]: row["active_viewers"] for row in back.events[0].data["rows"]}
                assert rows["a"] == 20
                assert int(str(back.events[0].id)) > int(last)
                if back.events[0].name == "update":
                    assert "b" not in rows
        assert int(newest) > int(last)


def test_each_answer_says_at_once_whether_the_numbers_are_stale(filled: Database) -> None:
    """The notice also reaches a reader that resumes while updates leave no time for heartbeats."""
    ended = threading.Event()

    def move() -> None:
        with closing(filled.server.connect("streampulse_writer", filled.name)) as writer, writer.cursor() as cursor:
            while not ended.wait(0.1):
                cursor.execute("UPDATE stream_presence SET active_viewers = active_viewers + 1 WHERE stream_id = 'b'")

    with running(filled, workers=1) as server, reading(server.url) as first:
        first.wait(lambda: len(first.events) >= 2, "two events")
        assert [event.name for event in first.events[:2]] == ["snapshot", "status"]
        mover = threading.Thread(target=move)
        mover.start()
        try:
            # A resume reaches back a second further than its id, and this worker must have had readers then.
            begun = int(str(first.events[0].id)) + 1_000_000

            def later() -> list[str]:
                return [str(event.id) for event in first.named("update") if int(str(event.id)) > begun]

            first.wait(lambda: len(later()) >= 2, "updates")
            with reading(server.url, **{"Last-Event-ID": later()[0]}) as back:
                back.wait(lambda: len(back.events) >= 2, "two events")
                assert [event.name for event in back.events[:2]] == ["update", "status"]
                assert back.events[1].data["stale"] is False
                assert back.events[1].data["error"] is None
                assert back.events[1].id is None
        finally:
            ended.set()
            mover.join()
        # Without updates nothing else follows.
        first.wait(lambda: first.events[-1].name == "status", "a sign of life")
        with reading(server.url, **{"Last-Event-ID": str(first.named("update")[-1].id)}) as back:
            back.wait(lambda: back.events, "an event")
            assert back.events[0].name == "status"


def test_an_unknown_id_gives_the_whole_state(server: Gunicorn) -> None:
    for nonsense in ("", "x", "-1", "1", "9" * 18, "9" * 400, "1e3", "'; --"):
        with reading(server.url, **{"Last-Event-ID": nonsense}) as reader:
            reader.wait(lambda reader=reader: reader.events, "an event")  # type: ignore[misc]
            assert reader.events[0].name == "snapshot", nonsense


def test_readers_hear_that_the_database_is_away_and_back(filled: Database) -> None:
    with running(filled, workers=1, stale_seconds=5) as server, reading(server.url) as reader:
        reader.wait(lambda: reader.named("snapshot"), "a first event")
        filled.server.stop()
        try:
            reader.wait(lambda: any(event.data["stale"] for event in reader.named("status")), "it is said")
            said = next(event for event in reader.named("status") if event.data["stale"])
            assert "PostgreSQL" in said.data["error"]
            # The notice also reaches a new reader, with the whole state or without updates.
            with (
                reading(server.url) as new,
                reading(server.url, **{"Last-Event-ID": str(reader.named("snapshot")[0].id)}) as back,
            ):
                for other in (new, back):
                    other.wait(lambda other=other: other.named("status"), "it is said")  # type: ignore[misc]
                    assert other.named("status")[0].data["stale"] is True
            # A new reader is rejected when the numbers are too old.
            deadline = time.monotonic() + 10
            while (late := httpx.get(server.url + "/metrics", timeout=10)).status_code == 200:
                assert time.monotonic() < deadline
            refused = httpx.get(server.url + "/live", timeout=10)
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            assert late.headers["retry-after"] == "1"
        finally:
            filled.server.start()
        reader.wait(lambda: reader.named("status")[-1].data["stale"] is False, "it is back")
        with closing(filled.server.connect("streampulse_writer", filled.name)) as writer, writer.cursor() as cursor:
            cursor.execute("UPDATE stream_presence SET active_viewers = 77 WHERE stream_id = 'b'")
        reader.wait(lambda: reader.events[-1].data.get("totals", {}).get("active_viewers") == 85, "news again")


def test_a_graceful_end_tells_readers_to_come_back(server: Gunicorn) -> None:
    with reading(server.url) as one, reading(server.url) as two:
        one.wait(lambda: one.events and two.events, "first events")
        server.process.terminate()
        for reader in (one, two):
            assert reader.ended.wait(15)
            assert reader.events[-1].name == "reconnect"
            assert reader.events[-1].data["retry_ms"] >= 1000
        assert server.process.wait(timeout=20) == 0


def test_a_reader_that_never_reads_is_cut_off(server: Gunicorn, filled: Database) -> None:
    """A reader that never reads: the kernel's buffers fill, then the connection is cut, and nobody else waits."""
    filled.execute(
        "INSERT INTO stream_metrics_minute SELECT '2026-05-01T12:10Z', 'wide-' || repeat('x', 100) || n, 1, 0, 0, 0, 0,"
        " 0, 1 FROM generate_series(1, 40) AS n"
    )
    with socket.socket() as stuck, reading(server.url) as reader:
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stuck.connect(("127.0.0.1", server.port))
        stuck.sendall(b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n")
        deadline = time.monotonic() + 60
        number = 0
        while "streampulse_api_live_cut_off_total 1.0" not in httpx.get(server.url + "/prometheus", timeout=30).text:
            assert time.monotonic() < deadline
            number += 1
            filled.execute("UPDATE stream_metrics_minute SET chat_messages = %s", (number,))
            filled.execute("UPDATE stream_presence SET active_viewers = %s", (number,))
            time.sleep(0.05)
        reader.wait(lambda: len(reader.named("update")) > 10, "the other one goes on")
    deadline = time.monotonic() + 10
    while "streampulse_api_live_readers 0.0" not in httpx.get(server.url + "/prometheus", timeout=30).text:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_readers_that_arrive_together_do_not_exceed_the_limit(filled: Database) -> None:
    with running(filled, workers=1, live_readers=40) as server:
        readers = [socket.create_connection(("127.0.0.1", server.port), timeout=20) for _ in range(49)]
        try:
            # No reader has read before, so all of them wait for the first view.
            for reader in readers:
                reader.sendall(b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n")
            answers = [reader.recv(65_536) for reader in readers]
            # The body of a refusal may come after its head.
            for at, reader in enumerate(readers):
                if answers[at].startswith(b"HTTP/1.1 503") and not answers[at].endswith(b"}"):
                    answers[at] += reader.recv(65_536)
        finally:
            for reader in readers:
                reader.close()
        refused = [answer for answer in answers if answer.startswith(b"HTTP/1.1 503")]
        assert len(refused) == 9
        assert all(b"too many readers" in answer and b"retry-after: 1" in answer for answer in refused)
        assert sum(answer.startswith(b"HTTP/1.1 200") for answer in answers) == 40
        assert httpx.get(server.url + "/metrics", timeout=10).status_code == 200
        # Their slots are free again.
        with reading(server.url) as one:
            one.wait(lambda: one.events, "a first event")
