"""A broker's clock that was ahead for a moment: its records move no clock, and job and oracle agree about them."""

import time

from broker import Broker
from conftest import Database
from pipeline import Pipeline
from postgres import WRITER

from streampulse.core.settings import KafkaSettings
from streampulse.job.suspects import Clocks, Suspects, clock_event


def test_events_stamped_by_a_clock_that_ran_ahead_are_excluded(
    broker: Broker, kafka: KafkaSettings, database: Database, pipeline: Pipeline
) -> None:
    now = time.time()
    day = now + 86_400

    def send(at: float) -> None:
        # A key of an ordinary stream: the topic has one partition.
        _, value = clock_event(0, 1, round(at * 1_000_000))
        value = value.replace(b"__clock-0", b"ordinary")
        producer.send(kafka.topic, value, key=b"ordinary", timestamp_ms=round(at * 1000)).get(10)

    with broker.producer() as producer:
        broker.stamp(kafka.topic, "CreateTime")
        for at in (now, day, day + 1, now):
            send(at)
        broker.stamp(kafka.topic, "LogAppendTime")
        send(now)
    pipeline.start()
    suspects = Suspects(Clocks(kafka, database.settings(WRITER)), 1)
    (piece,) = pipeline.read(0, 5, suspects.limits()[0])
    assert piece.next_offset == 1
    assert piece.suspect is not None
    assert piece.suspect.offset == 1
    assert suspects.note(0, piece.suspect)
    suspects.judge()
    pipeline.commit([piece, *pipeline.read(0, broker.end(kafka.topic), suspects.limits()[0])])

    assert database.query("SELECT partition, first_offset, last_offset, reason, pending FROM excluded_records") == [
        (0, 1, 2, "future", False)
    ]
    report = pipeline.equal()
    assert report.outcomes == {"accepted": 5, "future": 2}
