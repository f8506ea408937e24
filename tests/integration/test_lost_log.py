"""Kafka's log loses its end: whatever it holds afterwards is counted, and the span is entered, exactly."""

import shutil
import uuid

import pytest
from broker import Broker, cluster, event
from conftest import Database
from pipeline import Pipeline
from postgres import WRITER

from streampulse.core.settings import KafkaSettings
from streampulse.events import partition_of
from streampulse.job.ends import LogLost

STREAM = "stream"
#: One stream for each of three partitions.
STREAMS = [
    next(name for name in map(str, range(99)) if partition_of(name.encode(), 3) == number) for number in range(3)
]
#: Records of the beginning, among them a dead letter with every tenth; those that are lost; those of the new end.
OLD, LOST, NEW = 40, 15, 30


def send(
    broker: Broker, kafka: KafkaSettings, count: int, ahead: float = 0, valid: bool = False, stream: str = STREAM
) -> int:
    """Send events, each in a batch of its own, and return the partition's end.

    :param ahead: how far their times are ahead of the present, in minutes.
    :param valid: no event is a dead letter; else every tenth is.
    """
    with broker.producer(linger_ms=0) as producer:
        for number in range(count):
            kind = "chat_message" if valid or number % 10 else "nonsense"
            value = event(stream, ahead, event_type=kind, message_len=1)
            sent = producer.send(kafka.topic, value, key=stream.encode()).get(10)
    return int(sent.offset) + 1


def spans(database: Database) -> list[tuple[object, ...]]:
    found = database.query("SELECT kind, first_offset, next_offset, epoch FROM lost_spans ORDER BY seq")
    print("lost spans:", found)  # noqa: T201 - for the report
    return found


def counted(database: Database) -> int:
    ((chat,),) = database.query("SELECT sum(chat_messages)::int FROM stream_metrics_minute")
    assert isinstance(chat, int)
    return chat


@pytest.mark.parametrize("new", [0, NEW], ids=["ends before the position", "has grown past the position"])
def test_a_lost_end_is_a_span_and_the_rest_is_equal(
    broker: Broker, kafka: KafkaSettings, pipeline: Pipeline, database: Database, new: int
) -> None:
    pipeline.start()
    pipeline.count(0, send(broker, kafka, OLD))
    pipeline.count(0, send(broker, kafka, LOST))
    broker.cut(kafka.topic, OLD)
    end = send(broker, kafka, new) if new else OLD
    if new:
        # The running job notices it as well.
        with pytest.raises(LogLost, match="has another record at offset"):
            pipeline.read(0, end)

    start = pipeline.start()
    assert start.offsets == {0: OLD}
    pipeline.count(0, end)

    ((kind, first, reached, epoch),) = spans(database)
    assert (kind, first, reached) == ("lost", OLD, OLD + LOST)
    assert isinstance(epoch, int)
    letters = -(-OLD // 10) + -(-LOST // 10) + -(-new // 10)
    assert counted(database) == OLD + LOST + new - letters
    report = pipeline.equal()
    assert f"records {OLD} to {OLD + LOST - 1} of partition 0: counted, then lost by Kafka" in report.not_checked
    assert pipeline.start().spans == []


def test_every_partition_loses_its_end_at_once(broker: Broker, database: Database) -> None:
    kafka = broker.topics(f"events-{uuid.uuid4()}", partitions=3)
    pipeline = Pipeline(kafka, database.settings(WRITER))
    pipeline.start()
    for number, stream in enumerate(STREAMS):
        pipeline.count(number, send(broker, kafka, OLD + LOST, stream=stream))
    broker.kill()
    for number in range(3):
        broker.lose_end(kafka.topic, number, OLD)
    broker.start()
    # The first ends before the position, the second at it, and the third has grown past it.
    ends = [OLD, *(send(broker, kafka, new, stream=STREAMS[i]) for i, new in ((1, LOST), (2, NEW)))]
    assert pipeline.start().offsets == {0: OLD, 1: OLD, 2: OLD}
    for number, end in enumerate(ends):
        pipeline.count(number, end)
    assert [span[:3] for span in spans(database)] == [("lost", OLD, OLD + LOST)] * 3
    pipeline.equal()
    pipeline.stop()


def test_a_fresh_reading_takes_the_clock_of_a_lost_span(
    broker: Broker, kafka: KafkaSettings, pipeline: Pipeline, database: Database
) -> None:
    pipeline.start()
    pipeline.count(0, send(broker, kafka, OLD))
    pipeline.count(0, send(broker, kafka, LOST, ahead=4))
    broker.cut(kafka.topic, OLD)
    pipeline.start()
    # Late by the clock of the lost records, not by that of the others.
    pipeline.count(0, send(broker, kafka, NEW, ahead=-8))
    database.execute(
        "TRUNCATE stream_metrics_minute, stream_presence, batch_ledger, job_state_snapshot, job_state_delta;"
        " UPDATE event_clock SET clock = NULL"
    )
    pipeline.start()
    pipeline.count(0, OLD)
    report = pipeline.equal()
    pipeline.count(0, broker.end(kafka.topic))
    report = pipeline.equal()
    assert report.outcomes["late"] == NEW - NEW // 10


def test_a_loss_of_many_positions_is_found_at_its_first_record(
    broker: Broker, kafka: KafkaSettings, pipeline: Pipeline, database: Database
) -> None:
    pipeline.start()
    end = send(broker, kafka, 2 * OLD)
    for offset in range(1, end + 1, 2):
        pipeline.count(0, offset)
    pipeline.count(0, end)
    # Behind a dead letter, which the state does not know.
    broker.cut(kafka.topic, 11)
    # Nothing that is sent now could be told from the records before by its event id.
    with broker.producer(linger_ms=0) as producer:
        for _ in range(3):
            producer.send(kafka.topic, b"garbage", key=STREAM.encode()).get(10)
    assert pipeline.start().offsets == {0: 11}
    pipeline.count(0, broker.end(kafka.topic))
    assert [span[:3] for span in spans(database)] == [("lost", 11, end)]
    pipeline.equal()


def test_a_disk_that_went_back_in_time_is_noticed_though_the_epoch_is_the_same(
    broker: Broker, kafka: KafkaSettings, pipeline: Pipeline, database: Database
) -> None:
    pipeline.start()
    pipeline.count(0, send(broker, kafka, OLD))
    broker.kill()
    copy = broker.data.with_name("copy")
    shutil.copytree(broker.data, copy)
    broker.start()
    pipeline.count(0, send(broker, kafka, LOST))
    broker.kill()
    shutil.rmtree(broker.data)
    copy.rename(broker.data)
    broker.start()
    end = send(broker, kafka, NEW)

    start = pipeline.start()
    assert start.offsets == {0: OLD}
    pipeline.count(0, end)
    ((kind, first, reached, _),) = spans(database)
    assert (kind, first, reached) == ("lost", OLD, OLD + LOST)
    pipeline.equal()


def test_an_unclean_election_among_three_brokers_is_a_lost_span(database: Database) -> None:
    with cluster(3) as (first, second, third):
        # No dead letters: a producer of transactions may take minutes to find their coordinator's successor.
        kafka = third.topics("events", replicas=[1, 2])
        pipeline = Pipeline(kafka, database.settings(WRITER))
        pipeline.start()
        pipeline.count(0, send(third, kafka, OLD, valid=True))
        second.kill()
        pipeline.count(0, send(third, kafka, LOST, valid=True))
        first.kill()
        # It has not the records that were sent without it, and leads all the same.
        second.start()
        end = send(third, kafka, NEW, valid=True)
        with pytest.raises(LogLost, match="has another record at offset"):
            pipeline.read(0, end)
        assert pipeline.start().offsets == {0: OLD}
        pipeline.count(0, end)
        assert [span[:3] for span in spans(database)] == [("lost", OLD, OLD + LOST)]
        # The leader before loses its own end, and the position stays right.
        first.start()
        pipeline.count(0, send(third, kafka, 1, valid=True))
        pipeline.equal()
        assert len(spans(database)) == 1
        pipeline.stop()


def test_records_that_were_removed_before_they_were_read_are_an_unread_span(
    broker: Broker, kafka: KafkaSettings, pipeline: Pipeline, database: Database
) -> None:
    pipeline.start()
    pipeline.count(0, send(broker, kafka, OLD))
    # The record before the position is gone, the position itself is not.
    broker.remove_records(kafka.topic, OLD)
    assert pipeline.start().spans == []
    end = send(broker, kafka, NEW)
    broker.remove_records(kafka.topic, OLD + 10)
    with pytest.raises(LogLost):
        pipeline.read(0, end)
    assert pipeline.start().offsets == {0: OLD + 10}
    pipeline.count(0, end)
    assert spans(database) == [("unread", OLD, OLD + 10, spans(database)[0][3])]
    pipeline.equal()


def test_aborted_records_are_neither_lag_nor_lost(
    broker: Broker, kafka: KafkaSettings, pipeline: Pipeline, database: Database
) -> None:
    send(broker, kafka, OLD)
    with broker.producer(transactional_id=kafka.topic) as producer:
        producer.init_transactions()
        producer.begin_transaction()
        for _ in range(LOST):
            producer.send(kafka.topic, event(STREAM), key=STREAM.encode())
        producer.flush()
        producer.abort_transaction()
    end = OLD + LOST + 1
    assert broker.end(kafka.topic) == end
    pipeline.start()
    pipeline.count(0, end)
    assert database.query("SELECT offsets FROM batch_ledger ORDER BY seq DESC LIMIT 1") == [({"0": end},)]
    broker.remove_records(kafka.topic, end)
    assert pipeline.start().offsets == {0: end}
    assert spans(database) == []
