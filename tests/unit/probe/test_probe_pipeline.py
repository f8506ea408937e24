"""The pipeline's lag, and its metrics when a part cannot be read."""

import time
from collections.abc import Mapping

import pytest
from prometheus_client import CollectorRegistry

from streampulse.core.kafka import Log, OpenTransaction
from streampulse.probe.ledger import Entry, LatestReading, Reading
from streampulse.probe.part import Unreadable
from streampulse.probe.pipeline import Figures, Lag, TopicReader, waiting

ENTRY = Entry(seq=9, offsets={0: 10, 1: 5}, topic_id="a", committed_at=1_790_000_000.5)


def log(ends: dict[int, int], starts: dict[int, int] | None = None, topic_id: str = "a") -> Log:
    return Log(topic_id, starts or dict.fromkeys(ends, 0), ends)


@pytest.mark.parametrize(
    ("found", "entry", "expected"),
    [
        (log({0: 10, 1: 5}), ENTRY, {}),
        (log({0: 14, 1: 5}), ENTRY, {0: (10, 14)}),
        # Nothing was committed yet, of a partition or at all.
        (log({0: 10, 1: 5, 2: 3}), ENTRY, {2: (0, 3)}),
        (log({0: 2, 1: 0}), None, {0: (0, 2)}),
        # Retention has removed records that the job has not read.
        (log({0: 20, 1: 5}, {0: 15, 1: 5}), ENTRY, {0: (15, 20)}),
        (log({0: 20}, {0: 20}), None, {}),
        # The topic was re-created, and the job has not noticed yet.
        (log({0: 4, 1: 8}, topic_id="b"), ENTRY, {0: (0, 4), 1: (0, 8)}),
        # A ledger row from before topics had ids.
        (log({0: 12, 1: 5}), ENTRY._replace(topic_id=None), {0: (10, 12)}),
        # The log lost its end.
        (log({0: 7, 1: 5}), ENTRY, {}),
        # A partition is gone.
        (log({1: 6}), ENTRY, {1: (5, 6)}),
    ],
)
def test_waiting_spans(found: Log, entry: Entry | None, expected: dict[int, tuple[int, int]]) -> None:
    assert waiting(found, entry) == expected


class Source:
    """Substitute for Kafka with fixed answers."""

    def __init__(self) -> None:
        self.log: Log | None = log({0: 14, 1: 5})
        self.arrived: dict[int, float] | None = {}
        self.asked: dict[int, int] = {}
        self.open: list[OpenTransaction] = []

    def read(self) -> Log:
        if self.log is None:
            raise Unreadable("no brokers")
        return self.log

    def transactions(self) -> list[OpenTransaction]:
        return self.open

    def arrivals(self, offsets: Mapping[int, int], ends: Mapping[int, int]) -> dict[int, float]:
        assert all(offset < ends[number] for number, offset in offsets.items())
        self.asked = dict(offsets)
        if self.arrived is None:
            raise Unreadable("no records")
        return self.arrived


class World:
    """A probe's readers, with the ledger and Kafka set by hand."""

    def __init__(self) -> None:
        self.source = Source()
        self.entries = LatestReading()
        self.reading: Reading | None = Reading(time.monotonic(), ENTRY, 3)
        self.topics = TopicReader(self.source, self.entries, self.ask, 5, 1)  # type: ignore[arg-type]
        self.registry = CollectorRegistry()
        self.registry.register(Figures(self.entries, self.topics, 5))

    def ask(self) -> None:
        self.entries.put(time.monotonic(), self.reading)

    def look(self) -> dict[str, float]:
        self.topics.step()
        return self.scraped()

    def scraped(self) -> dict[str, float]:
        return {
            sample.name.removeprefix("streampulse_pipeline_")
            + "".join(f"/{value}" for value in sample.labels.values()): (sample.value)
            for metric in self.registry.collect()
            for sample in metric.samples
        }


KAFKA = {"end_offset/0": 14, "end_offset/1": 5, "readable/kafka": 1}
POSTGRES = {
    "committed_offset/0": 10,
    "committed_offset/1": 5,
    "dead_letters_total": 3,
    "last_commit_timestamp_seconds": 1_790_000_000.5,
    "readable/postgres": 1,
}


def test_every_metric_is_shown_when_all_parts_can_be_read() -> None:
    world = World()
    world.source.arrived = {0: time.time() - 7}
    found = world.look()
    assert found.pop("lag_seconds") == pytest.approx(7, abs=1)
    assert found == {**KAFKA, **POSTGRES, "lag_records": 4}
    assert world.source.asked == {0: 10}


def test_an_open_transaction_is_shown_with_each_partition_that_it_holds_back() -> None:
    world = World()
    world.source.open = [OpenTransaction("orders", [0, 1], 12.5, 60.0)]
    found = world.look()
    assert [found[f"open_transaction_seconds/{number}/orders"] for number in (0, 1)] == [12.5, 12.5]


def test_the_age_is_that_of_the_oldest_and_never_negative() -> None:
    world = World()
    world.source.log = log({0: 14, 1: 9})
    world.source.arrived = {0: time.time() - 7, 1: time.time() - 90}
    assert world.look()["lag_seconds"] == pytest.approx(90, abs=1)
    # The broker's clock is ahead of this host's.
    world.source.arrived = {0: time.time() + 5, 1: time.time() + 9}
    assert world.look()["lag_seconds"] == 0


def test_offsets_without_records_are_no_lag() -> None:
    world = World()
    world.source.arrived = {}
    found = world.look()
    assert (found["lag_records"], found["lag_seconds"]) == (0, 0)


def test_an_empty_ledger_is_read_and_all_of_the_log_waits() -> None:
    world = World()
    world.reading = Reading(time.monotonic(), None, 0)
    world.source.arrived = {0: time.time(), 1: time.time()}
    found = world.look()
    assert found.pop("lag_seconds") < 5
    assert found == {**KAFKA, "lag_records": 19, "dead_letters_total": 0, "readable/postgres": 1}


def test_without_kafka_the_ledgers_metrics_remain() -> None:
    world = World()
    world.source.arrived = {0: time.time()}
    world.look()
    world.source.log = None
    # The ledger is also read on its own schedule.
    world.ask()
    world.topics.step()
    assert world.scraped() == {**POSTGRES, "readable/kafka": 0}


def test_without_the_ledger_kafkas_metrics_remain() -> None:
    world = World()
    world.source.arrived = {0: time.time()}
    world.look()
    world.reading = None
    assert world.look() == {**KAFKA, "readable/postgres": 0}


def test_unreadable_records_leave_their_number() -> None:
    world = World()
    world.source.arrived = None
    assert world.look() == {**KAFKA, **POSTGRES, "lag_records": 4}


def test_the_wait_for_a_silent_ledger_is_bounded() -> None:
    source, entries = Source(), LatestReading()
    topics = TopicReader(source, entries, lambda: None, 5, 0.3)  # type: ignore[arg-type]
    begun = time.monotonic()
    topics.step()
    assert time.monotonic() - begun < 3
    found = topics.get(10)
    assert found is not None
    assert found.log == source.log
    assert found.lag is None


def test_shown_metrics_are_never_old() -> None:
    world = World()
    world.source.arrived = {0: time.time()}
    world.look()
    assert world.topics.get(60) is not None
    assert world.entries.get(60) is not None
    time.sleep(0.05)
    assert world.topics.get(0.01) is None
    assert world.entries.get(0.01) is None


def test_the_ledger_is_read_after_kafka() -> None:
    """An earlier reading would count records as waiting that were committed since."""
    world = World()
    world.source.arrived = {0: time.time()}
    world.entries.put(time.monotonic(), Reading(time.monotonic(), ENTRY._replace(offsets={0: 1, 1: 1}), 0))
    world.look()
    found = world.topics.get(10)
    assert found is not None
    assert found.lag == Lag(4, pytest.approx(0, abs=5))  # type: ignore[arg-type]
