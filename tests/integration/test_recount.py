"""``streampulse recount`` beside the job: with a real broker and a real PostgreSQL."""

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from broker import Broker
from broker import event as event_of
from conftest import Database
from pipeline import TIMEOUT_SECONDS, Pipeline
from postgres import WRITER

from streampulse.core.errors import OperatorError
from streampulse.core.settings import CountingSettings, KafkaSettings
from streampulse.recount import NOTHING
from streampulse.recount.command import recount
from streampulse.recount.compare import Differences

STREAM = "stream"


def event(user: str, kind: str = "chat_message", ahead: float = 0) -> bytes:
    return event_of(STREAM, ahead, user_id=user, event_type=kind, message_len=1)


class Bench:
    """A topic, the job that counts it, and the recount."""

    def __init__(self, broker: Broker, kafka: KafkaSettings, database: Database, pipeline: Pipeline) -> None:
        self.broker, self.kafka, self.database, self.pipeline = broker, kafka, database, pipeline
        self.lines: list[str] = []

    def send(self, *values: bytes, ahead: float = 0) -> int:
        """Send records and return the log's end. ``ahead``: minutes to their stamp, where the topic takes one."""
        with self.broker.producer(linger_ms=0) as producer:
            for value in values:
                at = round((time.time() + 60 * ahead) * 1000)
                producer.send(self.kafka.topic, value, key=STREAM.encode(), timestamp_ms=at).get(10)
        return self.broker.end(self.kafka.topic)

    def count(self, *values: bytes) -> None:
        """Send records and have the job count them."""
        self.pipeline.count(0, self.send(*values))

    def recount(self, *, dry_run: bool = False) -> Differences:
        self.lines.clear()
        return recount(
            self.kafka,
            self.database.settings(WRITER),
            CountingSettings(viewer_timeout_seconds=TIMEOUT_SECONDS, history_days=30),
            dry_run=dry_run,
            say=self.lines.append,
        )

    def tables(self) -> list[object]:
        return [
            self.database.query(f"SELECT * FROM {name} ORDER BY 1")  # noqa: S608 - constants
            for name in ("stream_metrics_minute", "stream_presence", "batch_ledger", "job_state_delta", "due_letters")
        ]

    def exclude(self, offset: int) -> None:
        """Enter a pending exclusion, as ``inv exclude`` does."""
        self.database.execute(
            "INSERT INTO excluded_records SELECT topic_id, 0, 0, %s, %s, 'future', true, 'operator', now()"
            " FROM batch_ledger ORDER BY seq DESC LIMIT 1",
            (offset, offset),
        )

    def follow(self, until: int) -> None:
        """Count up to an offset as the job does, which is started again where a recount was swapped in."""
        while (at := self.pipeline.start().offsets[0]) < until:
            with contextlib.suppress(OperatorError):
                while at < until:
                    at = min(at + 5, until)
                    self.pipeline.count(0, at)

    def check(self) -> None:
        """Expect that the job goes on from the newest row, and that the oracle agrees."""
        self.pipeline.start()
        self.pipeline.equal()


@pytest.fixture
def bench(broker: Broker, kafka: KafkaSettings, database: Database, pipeline: Pipeline) -> Iterator[Bench]:
    pipeline.start()
    yield Bench(broker, kafka, database, pipeline)
    assert database.query("SELECT 1 FROM pg_namespace WHERE nspname = 'streampulse_recount'") == []


def test_a_recount_without_the_event_that_moved_the_clock_counts_those_that_were_late(bench: Bench) -> None:
    bench.count(event("a", "viewer_join", -14))
    bench.count(event("poison", ahead=4))
    bench.count(event("b", "viewer_join", -13), b"garbage", event("a", ahead=-12))
    report = bench.pipeline.equal()
    assert report.outcomes["late"] == 2
    bench.exclude(1)
    bench.pipeline.equal()

    found = bench.recount(dry_run=True)
    assert (found.viewers_added, found.letters_due, found.letters_overruled) == (1, 1, 2)
    assert bench.pipeline.verify().outcomes["late"] == 2

    bench.recount()
    report = bench.pipeline.equal()
    assert "2 dead letters that a recount has overruled" in report.not_checked
    assert report.outcomes == {"accepted": 3, "future": 1, "invalid": 1}
    # The job that runs finds that its state was replaced, and a new one goes on.
    end = bench.send(event("b", ahead=-1))
    with pytest.raises(OperatorError, match="a recount was swapped in"):
        bench.pipeline.count(0, end)
    bench.pipeline.start()
    bench.pipeline.count(0, end)
    bench.check()
    assert not bench.recount().any()


def test_rows_that_are_wrong_are_named_and_repaired(bench: Bench) -> None:
    bench.count(event("a", "viewer_join", -2), event("b", "viewer_join"), event("a"))
    bench.database.execute("UPDATE stream_metrics_minute SET joins = 7 WHERE joins = 1")
    bench.database.execute("INSERT INTO stream_presence VALUES ('nothing', 3, NULL, now())")
    found = bench.recount()
    assert (found.rows_added, found.rows_removed, found.rows_changed, found.streams) == (0, 0, 2, 1)
    assert sum("joins 7 -> 1" in line for line in bench.lines) == 2
    bench.check()


def test_where_nothing_would_change_nothing_is_swapped(bench: Bench) -> None:
    bench.count(event("a", "viewer_join", -2), b"garbage", event("a"))
    before = bench.tables()
    assert not bench.recount().any()
    assert bench.lines[-1] == NOTHING
    assert bench.tables() == before
    bench.count(event("b"))
    bench.check()


def test_a_recount_that_is_killed_in_the_middle_of_its_swap_has_changed_nothing(bench: Bench) -> None:
    bench.count(event("a", "viewer_join", -14), event("poison", ahead=4), event("a", ahead=-12))
    bench.exclude(1)
    before = bench.tables()
    bench.database.execute(
        "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(60); RETURN NEW; END $$;"
        " CREATE TRIGGER wait BEFORE INSERT ON recounts FOR EACH ROW EXECUTE FUNCTION wait()"
    )
    environment = os.environ | bench.database.server.environment(bench.database.name, WRITER)
    environment |= {f"STREAMPULSE_KAFKA_{name.upper()}": str(value) for name, value in bench.kafka if value is not None}
    command = [sys.executable, "-m", "streampulse.host.cli", "recount"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
        waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
        while not bench.database.query(waiting):
            assert process.poll() is None
            time.sleep(0.1)
        process.kill()
    bench.database.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'streampulse-recount' AND datname = current_database()"
    )
    bench.database.execute("DROP TRIGGER wait ON recounts")
    assert bench.tables() == before
    bench.check()
    bench.count(event("b"))
    assert bench.recount().letters_due == 1
    bench.check()


def test_letters_that_a_killed_recount_left_are_sent_by_the_job_and_only_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.count(event("a", "viewer_join", -14), event("poison", ahead=4))
    bench.exclude(1)
    # The process ends after the commit.
    monkeypatch.setattr("streampulse.recount.command._Run._send", lambda *_: None)
    bench.recount()
    due = bench.database.query("SELECT * FROM due_letters")
    assert len(due) == 1
    bench.database.execute("UPDATE stream_metrics_minute SET joins = 7")
    with pytest.raises(OperatorError, match="letters of the last recount are not sent"):
        bench.recount()
    bench.database.execute("UPDATE stream_metrics_minute SET joins = 1")
    bench.check()
    assert bench.database.query("SELECT * FROM due_letters") == []
    # The job is killed after it has sent them, before it notes that.
    bench.database.execute(
        "INSERT INTO due_letters OVERRIDING SYSTEM VALUE VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)", *due
    )
    bench.pipeline.start()
    assert not [each for each in bench.pipeline.verify().differences if "dead letter" in each]


def test_a_poisoned_clock_is_cured_while_records_keep_arriving(bench: Bench) -> None:
    bench.count(event("a", "viewer_join", -14), event("poison", ahead=4))
    end = [2]
    ended = threading.Event()

    def load() -> None:
        with bench.broker.producer(linger_ms=0) as producer:
            for number in range(300):
                value = event(f"user {number}", "viewer_join" if number % 3 else "nonsense", -9 + number / 60)
                producer.send(bench.kafka.topic, value, key=STREAM.encode()).get(10)
                end[0] += 1
                time.sleep(0.02)
        ended.set()

    def job() -> None:
        while not ended.is_set():
            bench.follow(end[0])

    threads = [threading.Thread(target=load), threading.Thread(target=job)]
    for thread in threads:
        thread.start()
    time.sleep(1)
    bench.exclude(1)
    bench.recount()
    for thread in threads:
        thread.join()
    bench.follow(end[0])
    report = bench.pipeline.equal()
    assert report.outcomes == {"accepted": 201, "future": 1, "invalid": 100}


def test_history_from_before_the_oldest_record_is_kept(bench: Bench) -> None:
    bench.broker.stamp(bench.kafka.topic, "CreateTime")
    bench.pipeline.count(
        0, bench.send(event("old", "viewer_join", -200), event("gone", "viewer_join", -200), ahead=-200)
    )
    removed = bench.broker.end(bench.kafka.topic)
    for ahead in (-100, -50, -49, 0):
        bench.pipeline.count(0, bench.send(event("new", "viewer_join", ahead), ahead=ahead))
    bench.pipeline.count(0, bench.send(event("gone", "viewer_leave", 0), ahead=0))
    bench.broker.remove_records(bench.kafka.topic, removed)
    before = bench.database.query("SELECT * FROM stream_metrics_minute ORDER BY 1")
    assert not bench.recount().any()
    bench.database.execute("UPDATE stream_metrics_minute SET joins = 7 WHERE joins > 0")
    found = bench.recount()
    assert (found.rows_added, found.rows_removed, found.rows_changed, found.streams) == (0, 0, 2, 0)
    after = bench.database.query("SELECT * FROM stream_metrics_minute ORDER BY 1")
    kept = [row for row, was in zip(after, before, strict=True) if row != was]
    # The first windows: that without records, and those of records whose outcome the removed ones may decide.
    assert [row[5] for row in kept] == [7, 7, 7]
    assert bench.database.query("SELECT active_viewers FROM stream_presence") == [(2,)]
    # The viewer whose join is no longer in the log leaves.
    bench.pipeline.start()
    bench.pipeline.count(0, bench.send(event("old", "viewer_leave", 1), ahead=1))
    assert bench.database.query("SELECT active_viewers FROM stream_presence") == [(1,)]
    bench.check()


def test_a_recount_goes_on_behind_a_lost_span(bench: Bench) -> None:
    bench.count(event("a", "viewer_join", -14))
    first = bench.broker.end(bench.kafka.topic)
    bench.count(event("b", "viewer_join", 4))
    bench.broker.cut(bench.kafka.topic, first)
    bench.pipeline.start()
    bench.count(event("late", ahead=-12), event("a", ahead=4))
    assert not bench.recount().any()
    bench.check()
