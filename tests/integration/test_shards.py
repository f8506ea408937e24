"""Several drivers count one topic: each its own partitions, and together the oracle's numbers."""

import json
import random
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta

import psycopg2
import pytest
from broker import Broker
from conftest import Database
from kafka.errors import KafkaError
from pipeline import TIMEOUT_SECONDS, Pipeline
from postgres import WRITER

from streampulse.core.errors import OperatorError
from streampulse.core.settings import CountingSettings, KafkaSettings
from streampulse.events import partition_of
from streampulse.job.shards import Shard
from streampulse.oracle.command import take_snapshot
from streampulse.recount.command import recount
from streampulse.recount.prove import prove

PARTITIONS = 4
STREAMS = [f"stream {number}" for number in range(24)]
#: A worker of Spark has its consumer for itself; here all read with one.
READING = threading.Lock()
KINDS = ("viewer_join", "viewer_join", "viewer_leave", "chat_message", "donation", "stream_stop", "nonsense")


@pytest.fixture
def kafka(broker: Broker) -> KafkaSettings:
    return broker.topics(f"events-{uuid.uuid4()}", PARTITIONS)


class World:
    """Seeded events: joins, leaves, duplicates, late ones and garbage, of streams in all partitions."""

    def __init__(self, broker: Broker, kafka: KafkaSettings) -> None:
        self._broker = broker
        self._kafka = kafka
        self._random = random.Random(8)  # noqa: S311 - not for secrets
        self._before: list[tuple[bytes, bytes]] = []

    def send(self, count: int, streams: list[str] = STREAMS, ahead: float = 0) -> None:
        """Send events, the times of most of which are ``ahead`` minutes from now."""
        choose = self._random
        with self._broker.producer() as producer:
            for number in range(count):
                stream = choose.choice(streams)
                behind = choose.choice([0.0, 0.5, 3.0, 30.0])
                fields = {
                    "event_id": str(uuid.UUID(int=choose.getrandbits(128))),
                    "ts": (datetime.now(UTC) + timedelta(minutes=ahead - behind, milliseconds=number)).isoformat(),
                    "event_type": choose.choice(KINDS),
                    "stream_id": stream,
                    "user_id": f"user {choose.randrange(30)}",
                    "message_len": 1,
                    "amount_usd": "0.10",
                }
                event = stream.encode(), json.dumps(fields).encode()
                if self._before and not number % 9:
                    event = choose.choice(self._before)
                self._before.append(event)
                producer.send(self._kafka.topic, event[1], key=event[0])


class Drivers:
    """The drivers of all shards, without Spark."""

    def __init__(self, broker: Broker, kafka: KafkaSettings, database: Database) -> None:
        self._broker = broker
        self._kafka = kafka
        self._database = database
        self.all: list[Pipeline] = []

    def start(self, count: int) -> None:
        """Start shards beside those that run."""
        self.all = [
            Pipeline(self._kafka, self._database.settings(WRITER), Shard(number, count)) for number in range(count)
        ]
        for driver in self.all:
            driver.start()

    def stop(self) -> None:
        for driver in self.all:
            driver.stop()

    def count(self, *shards: int) -> None:
        """Have shards, or all, count what the log has."""
        for driver in [self.all[each] for each in shards] or self.all:
            for number in list(driver.positions):
                driver.count(number, self.end(number))

    def end(self, number: int) -> int:
        return self._broker.end(self._kafka.topic, number)

    def follow(self) -> None:
        for driver in self.all:
            driver.batches.follow()


@pytest.fixture
def world(broker: Broker, kafka: KafkaSettings) -> World:
    return World(broker, kafka)


@pytest.fixture
def drivers(broker: Broker, kafka: KafkaSettings, database: Database) -> Iterator[Drivers]:
    made = Drivers(broker, kafka, database)
    yield made
    made.stop()


def clocks(database: Database) -> list[int | None]:
    return list(take_snapshot(database.settings()).ledger_clocks_us)


@pytest.mark.parametrize("count", [2, 4])
def test_each_shard_counts_its_own_partitions(world: World, drivers: Drivers, database: Database, count: int) -> None:
    drivers.start(count)
    for _ in range(3):
        world.send(200)
        drivers.count()
    drivers.all[0].equal(whole=True)
    rows = database.query(
        "SELECT shard, array_agg(DISTINCT key::int ORDER BY key::int) FROM newest_batches,"
        " jsonb_each(offsets) GROUP BY shard ORDER BY shard"
    )
    assert rows == [(shard, [each for each in range(PARTITIONS) if each % count == shard]) for shard in range(count)]
    for stream, shard in database.query("SELECT stream_id, shard FROM stream_presence"):
        assert shard == partition_of(str(stream).encode(), PARTITIONS) % count
    # All go on from their own state.
    drivers.stop()
    drivers.start(count)
    world.send(200)
    drivers.count()
    drivers.all[0].equal(whole=True)


def test_a_dead_shard_holds_up_no_other_and_an_idle_one_follows(
    world: World, drivers: Drivers, database: Database
) -> None:
    drivers.start(2)
    world.send(300)
    drivers.count()
    drivers.all[1].stop()
    first, second = clocks(database)
    # The time goes on, and only the first shard counts.
    world.send(300, ahead=4)
    drivers.count(0)
    moved, stands = clocks(database)
    assert stands == second
    assert moved is not None
    assert first is not None
    assert moved > first
    # What the dead shard has shown is compared by the clock that it used.
    drivers.all[0].equal(whole=True)
    shown = database.query(
        "SELECT shard, count(DISTINCT updated_at) FROM stream_state JOIN stream_presence USING (stream_id)"
        " GROUP BY shard ORDER BY shard"
    )
    assert shown == [(0, 1), (1, 1)]

    # Back again and without anything to read: its rows are extended to the clock of the others.
    drivers.all[1].start()
    drivers.all[1].batches.follow()
    assert clocks(database) == [moved, moved]
    drivers.all[0].equal(whole=True)
    ledger = database.query("SELECT count(*) FROM batch_ledger")
    drivers.follow()
    assert database.query("SELECT count(*) FROM batch_ledger") == ledger
    drivers.count()
    drivers.all[0].equal(whole=True)


def test_another_number_takes_over_what_every_shard_before_had(
    world: World, drivers: Drivers, database: Database
) -> None:
    for number, count in enumerate([1, 2, 4, 3, 2, 1, 4, 1]):
        drivers.start(count)
        assert len(clocks(database)) == count or not number
        if number:
            # Nothing was read since, so all of this is what was taken over.
            drivers.all[0].equal(whole=True)
            assert len(set(clocks(database))) == 1
        world.send(150)
        drivers.count()
        world.send(100, ahead=number / 2)
        # The last ones have not read everything, and so have other clocks.
        drivers.count(0)
        drivers.all[0].equal(whole=True)
        drivers.stop()
    assert database.query("SELECT shard, clock IS NULL FROM event_clock") == [(0, False)]
    assert database.query("SELECT DISTINCT shard FROM stream_presence") == [(0,)]
    assert database.query("SELECT DISTINCT format FROM newest_batches") == [(2,)]


def test_more_shards_than_partitions_are_refused_by_name(drivers: Drivers, database: Database) -> None:
    with pytest.raises(OperatorError, match=r"job_shards is 5, and events-.* has 4 partitions"):
        drivers.start(5)
    assert database.query("SELECT count(*) FROM batch_ledger") == [(0,)]


def test_drivers_of_another_number_are_kept_out_and_fenced(
    world: World, drivers: Drivers, database: Database, kafka: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streampulse.job.store._TAKE_OVER_SECONDS", 0.5)
    monkeypatch.setattr("pipeline.PATIENCE_SECONDS", 0.5)
    drivers.start(2)
    world.send(100)
    drivers.count()
    one = Pipeline(kafka, database.settings(WRITER))
    third = Pipeline(kafka, database.settings(WRITER), Shard(2, 3))
    again = Pipeline(kafka, database.settings(WRITER), Shard(1, 2))
    for late in (third, again, one):
        with pytest.raises(OperatorError, match="another driver of the job writes to this database"):
            late.start()
    drivers.all[0].equal(whole=True)

    # The connection of one breaks, and it does not know. It has read, and its letters are not out.
    zombie = drivers.all[0]
    world.send(60)
    pieces = [piece for number in list(zombie.positions) for piece in zombie.read(number, drivers.end(number))]
    assert any(piece.dead_letters for piece in pieces)
    drivers.all[1].stop()
    zombie.store.close()
    four = [Pipeline(kafka, database.settings(WRITER), Shard(number, 4)) for number in range(4)]
    for driver in four:
        driver.start()
    with pytest.raises(KafkaError):
        zombie.letters.write([letter for piece in pieces for letter in piece.dead_letters], {0: 10**6, 2: 10**6})
    with pytest.raises(OperatorError, match="the number was changed"):
        zombie.commit(pieces)
    drivers.all = four
    drivers.count()
    four[0].equal(whole=True)


@contextmanager
def counting(driver: Pipeline, drivers: Drivers) -> Iterator[list[BaseException]]:
    """Have a driver count in a thread until the end, or until it is killed."""
    done, failures = threading.Event(), list[BaseException]()

    def run() -> None:
        try:
            while not done.is_set():
                for number in list(driver.positions):
                    with READING:
                        pieces = driver.read(number, drivers.end(number))
                    driver.commit(pieces)
                driver.batches.follow()
        except BaseException as error:  # noqa: BLE001 - looked at by the test
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield failures
    finally:
        done.set()
        thread.join()


@pytest.mark.parametrize(("before", "after"), [(2, 4), (4, 2), (1, 2), (2, 1)])
def test_the_number_changes_under_load(
    world: World, drivers: Drivers, database: Database, before: int, after: int
) -> None:
    done = threading.Event()

    def load() -> None:
        ahead = 0.0
        while not done.is_set():
            world.send(40, ahead=min(4.0, ahead))
            ahead += 0.2

    loading = threading.Thread(target=load)
    loading.start()
    try:
        for count in (before, after, before):
            drivers.start(count)
            running = [counting(driver, drivers) for driver in drivers.all]
            failures = [each.__enter__() for each in running]
            time.sleep(1.0)
            # Killed: one connection is ended by the server, in the middle of whatever it does.
            with suppress(psycopg2.Error):
                database.query(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE application_name = 'streampulse-job' AND datname = current_database() LIMIT 1"
                )
            time.sleep(1.5)
            for each in running:
                each.__exit__(None, None, None)
            assert not [error for found in failures for error in found]
            drivers.stop()
    finally:
        done.set()
        loading.join()
    drivers.start(after)
    drivers.count()
    drivers.all[0].equal(whole=True)


def test_a_proof_and_a_recount_take_all_shards_together(
    world: World, kafka: KafkaSettings, drivers: Drivers, database: Database
) -> None:
    def waited() -> None:
        world.send(100)
        drivers.count()

    drivers.start(3)
    world.send(300)
    drivers.count()
    counting = CountingSettings(viewer_timeout_seconds=TIMEOUT_SECONDS, history_days=30)
    proof = prove(kafka, database.settings(WRITER), counting, 150, 60, waited)
    assert (proof.enough, proof.differences) == (True, [])

    database.execute("UPDATE stream_metrics_minute SET joins = joins + 1 WHERE left(stream_id, 8) = 'stream 1'")
    with pytest.raises(AssertionError):
        drivers.all[0].equal()
    found = recount(kafka, database.settings(WRITER), counting)
    assert (found.rows_added, found.rows_removed, found.streams) == (0, 0, 0)
    assert found.rows_changed
    drivers.all[0].equal(whole=True)
    # Each driver goes on from the new state, once it has been started again.
    world.send(200)
    for shard in range(3):
        with pytest.raises(OperatorError, match="a recount was swapped in"):
            drivers.count(shard)
    drivers.start(3)
    drivers.count()
    drivers.all[0].equal(whole=True)
