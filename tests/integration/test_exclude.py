"""An operator excludes a record: at once where the job has not read it, pending where it has."""

import threading
import time

import pytest
from broker import Broker, event
from conftest import Database
from pipeline import Pipeline
from postgres import WRITER

from streampulse.answers.exclude import exclude, listed
from streampulse.core.errors import OperatorError
from streampulse.core.settings import KafkaSettings
from streampulse.job.rows import Limit
from streampulse.job.suspects import Clocks, Suspects


def test_an_unread_record_is_excluded_at_once_and_a_counted_one_waits_for_a_recount(
    broker: Broker, kafka: KafkaSettings, database: Database, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streampulse.answers.exclude._PATIENCE_SECONDS", 2.0)
    server = database.settings(WRITER)
    with broker.producer() as producer:
        for value in (event("red"), event("red", 1), event("red"), b"garbage", event("red", 2), event("red")):
            producer.send(kafka.topic, value, key=b"red").get(10)
    pipeline.start()
    pipeline.count(0, 3)
    # Read by an executor and not committed: the job alone knows that it is too late.
    in_flight = pipeline.read(0, 4)

    def say(offset: int, reason: str = "future", *, dry_run: bool = False) -> str:
        (line,) = exclude(kafka, server, (0, offset), reason, "ann@desk", dry_run=dry_run)
        return line

    assert "would be excluded as future; effect: an inv recount" in say(1, dry_run=True)
    assert listed(server) == ["no record is excluded"]
    assert "pending, because it is counted already" in say(1)
    with pytest.raises(OperatorError, match=r"offset 1 is excluded already \(future, pending, by ann@desk at "):
        say(1)
    with pytest.raises(OperatorError, match="offset 3 is no valid event"):
        say(3)
    with pytest.raises(OperatorError, match="no record at offset 6: its log has 0 to 5"):
        say(6)
    assert "pending, because the job has not read on" in say(3, "invalid")

    # The running job looks while the operator waits.
    done = threading.Event()

    def job() -> None:
        while not done.wait(0.1):
            pipeline.excluded.ask()
            pipeline.excluded.ahead({0: 4})

    running = threading.Thread(target=job)
    running.start()
    assert "in force, the job had not read it" in say(4)
    done.set()
    running.join()
    pipeline.commit(in_flight)
    pipeline.count(0, 6)
    entries = database.query("SELECT first_offset, reason, pending FROM excluded_records ORDER BY first_offset")
    assert entries == [(1, "future", True), (3, "invalid", True), (4, "future", False)]
    report = pipeline.equal()
    assert report.outcomes == {"accepted": 4, "invalid": 1, "future": 1}
    assert [line.split()[:4] for line in listed(server)[1:]] == [
        ["0", "4", "future", "in"],
        ["0", "3", "invalid", "pending"],
        ["0", "1", "future", "pending"],
    ]


def test_a_partition_that_waits_for_clocks_goes_on_when_its_suspect_is_excluded(
    broker: Broker, kafka: KafkaSettings, database: Database, pipeline: Pipeline
) -> None:
    with broker.producer() as producer:
        producer.send(kafka.topic, event("red"), key=b"red").get(10)
        producer.send(kafka.topic, event("red", 2), key=b"red").get(10)
    pipeline.start()
    # The driver's clock is ten minutes behind.
    clocks = Clocks(kafka, database.settings(WRITER))
    suspects = Suspects(clocks, 1, pipeline.excluded.covers, wall=lambda: time.time() - 600)
    (piece,) = pipeline.read(0, 2, Limit(time.time_ns() // 1000 + 50_000_000, False))
    assert piece.suspect is not None
    assert suspects.note(0, piece.suspect)
    suspects.judge()
    assert suspects.limits() == {}
    pipeline.commit([piece])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("streampulse.answers.exclude._PATIENCE_SECONDS", 0.0)
        exclude(kafka, database.settings(WRITER), (0, 1), "future", "ann", dry_run=False)
    pipeline.excluded.ask()
    suspects.judge()
    assert set(suspects.limits()) == {0}
    pipeline.count(0, broker.end(kafka.topic))
    report = pipeline.verify()
    assert (report.differences, report.outcomes["future"]) == ([], 1)
