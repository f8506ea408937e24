"""`inv trace` against the oracle: events of every outcome, after kills of the job and a loss of Kafka's."""

import os
import random
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime

import pytest
from broker import Broker, event
from conftest import Database
from pipeline import Pipeline
from postgres import WRITER

from streampulse.answers.output import database as connected
from streampulse.answers.trace import Answer, Tracer, api_delay
from streampulse.core.settings import KafkaSettings
from streampulse.events import partition_of
from streampulse.generator.backlog import Plan
from streampulse.generator.faults import Shares
from streampulse.generator.fill import fill
from streampulse.job.store.retention import thin_ledger
from streampulse.oracle.decide import PartitionLog, Record
from streampulse.oracle.reader import Bounds, TopicReader
from streampulse.oracle.spans import by_partition, in_force, read_spans, reason_of

#: CI's log is smaller than the one of a million records that the figure of decision 0051 is of.
RECORDS = int(os.environ.get("STREAMPULSE_TEST_RECORDS", "40000"))
PARTITIONS = 3
EACH = 40
LOST_RECORDS = 400
STREAM = next(name for name in map(str, range(100)) if partition_of(name.encode(), PARTITIONS) == 0)


class KilledError(Exception):
    """The job ends between two steps."""


def filled(broker: Broker, seed: int) -> KafkaSettings:
    kafka = broker.topics(f"events-{uuid.uuid4()}", PARTITIONS)
    now_us = time.time_ns() // 1000
    shares = Shares(duplicates=0.03, disorder=0.1, late=0.03, garbage=0.06)
    good = RECORDS * 100 // 112
    plan = Plan(good, now_us - 3_600_000_000, now_us, PARTITIONS, 40, 2_000, 1.0, seed, shares)
    fill(plan, kafka, 2)
    # The end of a log can be lost by whole batches, so each of these records is one.
    with broker.producer(linger_ms=0, batch_size=1) as producer:
        for _ in range(LOST_RECORDS):
            producer.send(kafka.topic, event(STREAM), STREAM.encode(), partition=0)
    return kafka


def count_with_kills(broker: Broker, kafka: KafkaSettings, pipeline: Pipeline, chance: random.Random) -> int:
    """Count everything in batches of random sizes, and return the number of kills.

    Some batches are read and dropped. Others have their letters out when the job ends before its commit.
    """
    ends = {number: broker.end(kafka.topic, number) for number in range(PARTITIONS)}
    reached = dict.fromkeys(ends, 0)
    kills = 0

    def die(*_: object) -> int:
        raise KilledError

    while waiting := [number for number in ends if reached[number] < ends[number]]:
        number, kind = chance.choice(waiting), chance.random()
        until = min(ends[number], reached[number] + chance.randint(1, RECORDS // 20))
        # The ledger has a row where the log will be lost, so the loss is found at its first record.
        if number == 0 and reached[0] < ends[0] - LOST_RECORDS:
            until = min(until, ends[0] - LOST_RECORDS)
        if kind > 0.24:
            pipeline.count(number, until)
            reached[number] = until
            continue
        slices = pipeline.read(number, until)
        if kind > 0.12:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(pipeline.store, "commit", die)
                with pytest.raises(KilledError):
                    pipeline.commit(slices)
        kills += 1
        pipeline.start()
    return kills


def ids(record: Record) -> list[str]:
    """Return the event id that a record of the generator shows."""
    return [each.decode() for each in re.findall(rb'"event_id":"([0-9a-f-]{36})"', record.value or b"")]


def oracle_words(kafka: KafkaSettings, database: Database) -> dict[str, list[str]]:
    """Return by event id the outcomes of its records in the log, in the order of offsets, by the oracle alone."""
    with database.writer.cursor() as cursor:
        cursor.execute("SELECT topic_id FROM batch_ledger ORDER BY seq DESC LIMIT 1")
        lost, entries = read_spans(cursor, cursor.fetchone()[0])  # type: ignore[index]
    excluded = in_force(entries, by_partition(lost))
    logs = {number: PartitionLog(number, PARTITIONS) for number in range(PARTITIONS)}
    words: dict[str, list[str]] = {}
    with closing(TopicReader(kafka)) as reader:
        for record in reader.read(kafka.topic, reader.bounds(kafka.topic)):
            reason = reason_of(excluded.get(record.partition, ()), record.offset)
            decision = logs[record.partition].decide(record, reason)
            if decision.event is not None:
                words.setdefault(decision.event.event_id, []).append("excluded" if reason else decision.outcome)
            else:
                for event_id in ids(record):
                    words.setdefault(event_id, []).append(decision.outcome)
    return words


@contextmanager
def tracer(kafka: KafkaSettings, database: Database) -> Iterator[Tracer]:
    with closing(TopicReader(kafka)) as reader, connected(database.settings(), "trace") as connection:
        yield Tracer(reader, kafka, connection)


def exclude_some(kafka: KafkaSettings, database: Database, chance: random.Random, count: int) -> None:
    with closing(TopicReader(kafka)) as reader:
        topic_id, bounds = str(reader.topic_id(kafka.topic)), reader.bounds(kafka.topic)
    for _ in range(count):
        number = chance.randrange(PARTITIONS)
        offset = chance.randrange(bounds[number].end - LOST_RECORDS)
        database.execute(
            "INSERT INTO excluded_records (topic_id, partition, generation, first_offset, last_offset, reason, pending,"
            " excluded_by) VALUES (%s, %s, 0, %s, %s, 'future', true, 'ann') ON CONFLICT DO NOTHING",
            (topic_id, number, offset, offset),
        )


def lose_some(broker: Broker, kafka: KafkaSettings, number: int) -> set[str]:
    """Remove the end of a partition's log, and return the ids of the events there that were accepted for sure."""
    end = broker.end(kafka.topic, number)
    with closing(TopicReader(kafka)) as reader:
        records = list(reader.read(kafka.topic, {number: Bounds(end - LOST_RECORDS, end)}))
    broker.cut(kafka.topic, end - LOST_RECORDS, number)
    with closing(TopicReader(kafka)) as reader:
        left = reader.bounds(kafka.topic)[number].end
    return {event_id for record in records if record.offset >= left for event_id in ids(record)}


@pytest.mark.timeout(900)
def test_traces_agree_with_the_oracle_for_every_outcome(broker: Broker, database: Database) -> None:
    seed = random.SystemRandom().getrandbits(32)
    print(f"seed {seed}, {RECORDS:,} records")  # noqa: T201 - to repeat a failure
    chance = random.Random(seed)  # noqa: S311 - chooses test data
    kafka = filled(broker, seed)
    pipeline = Pipeline(kafka, database.settings(WRITER))
    exclude_some(kafka, database, chance, 3 * EACH)
    pipeline.start()
    print(f"{count_with_kills(broker, kafka, pipeline, chance)} kills")  # noqa: T201 - for the report
    before = oracle_words(kafka, database)
    gone = lose_some(broker, kafka, 0)
    pipeline.start()
    words = oracle_words(kafka, database)
    gone = {each for each in gone if before.get(each) == ["accepted"] and each not in words}

    chosen: dict[str, list[str]] = {}
    for word in ("accepted", "duplicate", "late", "invalid", "future", "excluded"):
        some = sorted(event_id for event_id, found in words.items() if word in found)
        assert len(some) >= EACH, f"{word}: {len(some)}"
        chosen |= {event_id: words[event_id] for event_id in chance.sample(some, EACH)}
    assert len(gone) >= EACH
    chosen |= {event_id: ["lost"] for event_id in chance.sample(sorted(gone), EACH)}

    with tracer(kafka, database) as each:
        begun = time.monotonic()
        answers = each.answers(chosen)
        print(f"{len(chosen)} traces in {time.monotonic() - begun:.1f} s")  # noqa: T201 - for the report
        assert {event_id: answer.words for event_id, answer in answers.items()} == chosen
        for answer in answers.values():
            check(answer)
            assert list(each.said(answer))
        one = next(event_id for event_id, found in chosen.items() if found == ["accepted"])
        path = answers[one].paths[0]
        assert path.outcome.decision.event is not None
        stream, stamp = path.outcome.decision.event.stream_id, path.outcome.record.stamp_ms
        assert each.answers([one], stream, stamp)[one].words == ["accepted"]
        assert each.answers([one], stream, stamp + 3_600_000)[one].words == []
        lines = "\n".join(each.said(answers[one]))
        assert f"partition {path.outcome.record.partition} offset {path.outcome.record.offset}: accepted" in lines
        assert f"of {stream}: chat " in lines

    # Days later the ledger is thinned to a row a minute.
    database.execute("UPDATE batch_ledger SET committed_at = committed_at - interval '3 days'")
    with database.writer.cursor() as cursor:
        thin_ledger(cursor, 0)
    with tracer(kafka, database) as each:
        assert {event_id: answer.words for event_id, answer in each.answers(chosen).items()} == chosen
    pipeline.stop()


def check(answer: Answer) -> None:
    """Check that the times of each record are in their order, and that a dead letter has its letter."""
    for path in answer.paths:
        assert path.times is not None
        begun, decoded, committed = path.times[:3]
        assert isinstance(begun, datetime)
        assert isinstance(decoded, datetime)
        assert begun <= decoded <= committed < committed + api_delay()
        dead = path.word in ("late", "invalid", "future", "excluded")
        assert (path.letter is not None) == dead
        if path.word == "duplicate":
            assert path.outcome.duplicate_of is not None
