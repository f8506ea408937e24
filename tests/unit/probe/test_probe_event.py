"""The outcome of the probe's events, with an API over HTTP and a Kafka that accepts or rejects them."""

import contextlib
import datetime
import json
import threading
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import http_server
import pytest
from http_server import Answer, Request
from prometheus_client import REGISTRY
from scrape import fresh

from streampulse.events import Event, partition_of
from streampulse.oracle.decide import PartitionLog, Record
from streampulse.oracle.tables import tables
from streampulse.probe import event
from streampulse.probe.api import Api, Requests
from streampulse.probe.event import Events
from streampulse.probe.send import Unsent

NOW = datetime.datetime(2026, 3, 1, 12, 0, 10, 123_456, tzinfo=datetime.UTC)
WINDOW = datetime.datetime(2026, 3, 1, 12, 0, tzinfo=datetime.UTC)
ROW: dict[str, Any] = {
    "window_start": "2026-03-01T12:00:00Z", "stream_id": "__probe", "chat_messages": 1, "donations": 0,
    "donations_usd": "0.00", "joins": 0, "leaves": 0, "unique_viewers": 1, "active_viewers": 0,
}  # fmt: skip
EARLIER = ROW | {"window_start": "2026-03-01T11:59:00Z", "chat_messages": 2}
PATIENCE = 0.6


class Kafka:
    """Substitute for Kafka: accepts events at once, or rejects them."""

    def __init__(self, refuses: str | None = None) -> None:
        self.refuses = refuses
        self.taken: list[dict[str, Any]] = []

    def send(self, key: str, value: bytes) -> None:
        if self.refuses is not None:
            raise Unsent(self.refuses)
        self.taken.append({"key": key, **json.loads(value)})


@contextlib.contextmanager
def serving(answers: Callable[[int], Answer]) -> Iterator[tuple[str, list[Request]]]:
    """Serve ``answers`` for the n-th request; yield the address and the requests."""
    asked: list[Request] = []

    def answer(request: Request) -> Answer:
        asked.append(request)
        return answers(len(asked))

    with http_server.serving(answer) as url:
        yield url, asked


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


class Outcome:
    """An event's outcome: the differences of the counters over a ``with``."""

    NAMES = ("exact", "wrong", "lost", "unsent", "unread")

    def __enter__(self) -> "Outcome":
        self._before = self._read()
        return self

    def __exit__(self, *_: object) -> None:
        after = self._read()
        difference = {name: after[name] - self._before[name] for name in after}
        self.outcomes = {name for name in self.NAMES if difference[name]}
        self.in_buckets = difference["buckets"]
        self.observed = difference["count"]

    def _read(self) -> dict[str, float]:
        found = {name: counted("streampulse_probe_events_total", outcome=name) for name in self.NAMES}
        found["buckets"] = counted("streampulse_probe_end_to_end_seconds_bucket", le="30.0")
        found["count"] = counted("streampulse_probe_end_to_end_seconds_count")
        return found


def follow(url: str, kafka: Kafka | None = None, patience: float = PATIENCE) -> Outcome:
    events = Events(kafka or Kafka(), Api(url.split(), None, 0.5), 10, patience)  # type: ignore[arg-type]
    with Outcome() as outcome:
        events.send_and_follow(event.make(NOW))
    return outcome


@pytest.mark.parametrize("clock", [None, -86_400, -60, 0, 299])
def test_its_event_gives_exactly_the_expected_row(clock: int | None) -> None:
    sent = event.make(NOW)
    now_us = (NOW - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)) // datetime.timedelta(microseconds=1)
    key = event.STREAM.encode()
    log = PartitionLog(partition_of(key, 4), 4)
    log.clock_us = None if clock is None else now_us + clock * 1_000_000
    decision = log.decide(Record(log.partition, 0, now_us // 1000, key, sent.value))
    assert decision.outcome == "accepted"
    assert isinstance(decision.event, Event)
    clocks = {} if log.clock_us is None else {log.partition: log.clock_us}
    computed = tables({event.STREAM: [decision.event]}, clocks, 6 * 3600 * 1_000_000, 36_500, log.own_clocks_us)
    ((_, row),) = computed.minutes.items()
    columns = row._asdict()
    columns["donations_usd"] = Decimal(columns.pop("donations_cents")) / 100
    assert columns == event.EXPECTED
    assert sent.window_start == WINDOW


def test_an_event_whose_row_appears_is_exact() -> None:
    kafka = Kafka()
    with serving(lambda number: (200, {"rows": [EARLIER] if number < 3 else [EARLIER, ROW]})) as (url, asked):
        outcome = follow(url, kafka)
    assert outcome.outcomes == {"exact"}
    assert outcome.in_buckets == outcome.observed == 1
    assert counted("streampulse_probe_last_exact_timestamp_seconds") == pytest.approx(time.time(), abs=10)
    assert [request.path for request in asked] == ["/metrics/history?minutes=15&stream_id=__probe"] * 3
    (taken,) = kafka.taken
    # The event's id finds the request in the API's log.
    assert {request.headers["X-Request-ID"] for request in asked} == {f"probe-{taken['event_id']}"}
    assert (taken["key"], taken["stream_id"], taken["user_id"]) == ("__probe",) * 3
    assert taken["ts"] == "2026-03-01T12:00:10.123456Z"


@pytest.mark.parametrize(
    "more",
    [
        {"chat_messages": 2}, {"chat_messages": 0}, {"unique_viewers": 2}, {"active_viewers": 1},
        {"donations_usd": "0.01"}, {"donations_usd": None}, {"joins": "many"},
    ],
)  # fmt: skip
def test_another_row_is_wrong(more: dict[str, object]) -> None:
    with serving(lambda _: (200, {"rows": [ROW | more]})) as (url, _):
        outcome = follow(url)
    assert outcome.outcomes == {"wrong"}
    assert outcome.in_buckets == outcome.observed == 1


@pytest.mark.parametrize(
    "answer",
    [
        (200, {"rows": []}),
        (200, {"rows": [EARLIER]}),
        (503, {"error": "PostgreSQL is away"}),
        (200, {"rows": None}),
        (200, b"<html>"),
        (200, {"rows": [{"window_start": 7}]}),
    ],
)
def test_an_event_that_does_not_become_visible_is_lost(answer: Answer) -> None:
    begun = time.monotonic()
    with serving(lambda _: answer) as (url, asked):
        outcome = follow(url)
    assert outcome.outcomes == {"lost"}
    # It counts as slow, not as missing.
    assert (outcome.in_buckets, outcome.observed) == (0, 1)
    assert PATIENCE <= time.monotonic() - begun < PATIENCE + 2
    assert len(asked) > 2


@pytest.mark.parametrize("status", [401, 403, 429])
def test_a_refused_request_counts_the_event_as_unread(status: int) -> None:
    with serving(lambda _: (status, {"error": "no"})) as (url, _):
        outcome = follow(url)
    assert outcome.outcomes == {"unread"}
    assert outcome.observed == 0
    # The last answer counts, not an earlier refusal.
    with serving(lambda number: (status, {}) if number == 1 else (200, {"rows": []})) as (url, _):
        assert follow(url).outcomes == {"lost"}


def test_an_event_is_read_from_any_host_that_answers() -> None:
    with serving(lambda number: (200, {"rows": [ROW] if number > 2 else []})) as (url, asked):
        outcome = follow(f"http://127.0.0.1:1 {url}", patience=10)
    assert outcome.outcomes == {"exact"}
    assert len(asked) == 3


def test_an_event_that_kafka_does_not_take_is_unsent() -> None:
    with serving(lambda _: (200, {"rows": [ROW]})) as (url, asked):
        outcome = follow(url, Kafka(refuses="no brokers"))
    assert outcome.outcomes == {"unsent"}
    assert (outcome.in_buckets, outcome.observed) == (0, 1)
    assert asked == []


def test_there_is_never_a_second_event_in_a_window() -> None:
    kafka = Kafka()
    with serving(lambda _: (200, {"rows": [ROW]})) as (url, _):
        events = Events(kafka, Api([url], None, 0.5), 10, PATIENCE)  # type: ignore[arg-type]
        events.send_and_follow(event.make(NOW))
        with Outcome() as outcome:
            # The clock was set back by some seconds.
            events.send_and_follow(event.make(NOW.replace(second=5)))
    assert outcome.outcomes == set()
    assert len(kafka.taken) == 1


def test_a_stop_ends_the_following_of_an_event() -> None:
    with serving(lambda _: (200, {"rows": []})) as (url, _):
        events = Events(Kafka(), Api([url], None, 0.5), 10, 30)  # type: ignore[arg-type]
        threading.Timer(0.3, events.stop).start()
        begun = time.monotonic()
        with Outcome() as outcome:
            events.send_and_follow(event.make(NOW))
    assert outcome.outcomes == set()
    assert time.monotonic() - begun < 2


@pytest.mark.parametrize(
    ("now", "due"), [(0.0, 10.0), (9.99, 10.0), (10.0, 70.0), (10.5, 70.0), (1_790_000_040.0, 1_790_000_050.0)]
)
def test_the_next_one_is_due_at_the_second_and_never_at_once(now: float, due: float) -> None:
    assert event.next_due(now, 10) == due


# Requests -------------------------------------------------------------------------------------------------------------


def request(url: str, key: str | None = None, timeout: float = 0.5) -> tuple[set[str], float]:
    """Make one request; return its outcome, and the number of observed durations."""
    names = ("ok", "refused", "error", "unanswered")

    def read() -> dict[str, float]:
        found = {name: counted("streampulse_probe_api_requests_total", outcome=name) for name in names}
        return found | {"observed": counted("streampulse_probe_api_request_duration_seconds_count")}

    before = read()
    Requests(Api(url.split(), key, timeout), 5).step()
    after = read()
    return {name for name in names if after[name] - before[name]}, after["observed"] - before["observed"]


def test_an_answer_with_rows_is_ok_and_the_key_is_sent() -> None:
    with serving(lambda _: (200, {"rows": []})) as (url, asked):
        assert request(url, key="k" * 16) == ({"ok"}, 1)
    (asking,) = asked
    assert asking.path == "/metrics/latest?limit=1"
    assert asking.headers["Authorization"] == f"Bearer {'k' * 16}"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422, 429, 499])
def test_an_answer_that_says_that_the_probe_is_wrong_is_a_refusal_and_no_error(status: int) -> None:
    with serving(lambda _: (status, {"error": "no"})) as (url, _):
        assert request(url) == ({"refused"}, 1)


@pytest.mark.parametrize("answer", [(500, {}), (503, {"error": "away"}), (399, {}), (200, b"?"), (200, {}), (303, b"")])
def test_any_other_answer_is_an_error(answer: Answer) -> None:
    with serving(lambda _: answer) as (url, _):
        assert request(url) == ({"error"}, 1)


def test_no_answer_is_unanswered() -> None:
    assert request("http://127.0.0.1:1") == ({"unanswered"}, 0)
    assert request("http://127.0.0.1:1 http://127.0.0.1:2") == ({"unanswered"}, 0)


def test_the_hosts_are_asked_in_turn_and_the_next_where_one_is_away() -> None:
    with serving(lambda _: (200, {"rows": []})) as (one, first), serving(lambda _: (503, {})) as (two, second):
        requests = Requests(Api([one, "http://127.0.0.1:1", two], None, 0.5), 5)
        before = [counted("streampulse_probe_api_requests_total", outcome=name) for name in ("ok", "error")]
        for _ in range(3):
            requests.step()
        after = [counted("streampulse_probe_api_requests_total", outcome=name) for name in ("ok", "error")]
    assert (len(first), len(second)) == (1, 2)
    assert [now - earlier for now, earlier in zip(after, before, strict=True)] == [1, 2]


def test_a_host_that_hangs_does_not_make_the_answer_of_the_next_one_late() -> None:
    release, name = threading.Event(), "streampulse_probe_api_request_duration_seconds_sum"

    def hanging(_: int) -> Answer:
        release.wait(10)
        return 200, {"rows": []}

    with serving(hanging) as (one, _), serving(lambda _: (200, {"rows": []})) as (two, _):
        before = counted(name)
        assert request(f"{one} {two}", timeout=0.4) == ({"ok"}, 1)
        assert counted(name) - before < 0.4
        release.set()


def test_the_next_request_is_due_an_interval_after_the_last_began() -> None:
    def slow(_: int) -> Answer:
        time.sleep(0.3)
        return 200, {"rows": []}

    with serving(slow) as (url, _):
        assert 0 < Requests(Api([url], None, 2), 1).step() <= 0.7


def test_counters_of_every_outcome_exist_from_the_start() -> None:
    scrape = fresh("import streampulse.probe.metrics")
    for outcome in ("ok", "refused", "error", "unanswered"):
        assert f'\nstreampulse_probe_api_requests_total{{outcome="{outcome}"}} 0.0\n' in scrape
