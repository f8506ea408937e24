"""One of three brokers hangs, as one does whose packets are dropped: events and dead letters go on without it."""

import time

import pytest
from broker import cluster, event
from conftest import Database
from kafka.admin import NewTopic
from pipeline import Pipeline
from postgres import WRITER

from streampulse.core.kafka import Topic
from streampulse.core.settings import KafkaSettings
from streampulse.job.ends import Ends

EVENTS = 60
#: Counting once stood still until the broker was back, however long.
PATIENCE_SECONDS = 45.0


@pytest.mark.parametrize("node", [1, 2])
def test_counting_goes_on_while_a_broker_hangs(database: Database, node: int) -> None:
    with cluster(3) as brokers:
        first = brokers[0]
        # Each broker leads a partition; the second one leads the dead letters too.
        configs = {"message.timestamp.type": "LogAppendTime", "min.insync.replicas": "2"}
        events = NewTopic(
            "events", replica_assignments={0: [1, 2, 3], 1: [2, 3, 1], 2: [3, 1, 2]}, topic_configs=configs
        )
        letters = NewTopic("events.dlq", replica_assignments={0: [2, 3, 1]}, topic_configs=configs)
        with first.admin() as admin:
            admin.create_topics([events, letters])
        with first.producer(acks="all") as producer:
            for number in range(EVENTS):
                kind = "chat_message" if number % 10 else "nonsense"
                producer.send("events", event("stream", event_type=kind, message_len=1), partition=number % 3)
        everyone = ",".join(each.address for each in brokers)
        kafka = KafkaSettings(bootstrap_servers=everyone, topic="events", dlq_topic="events.dlq")
        pipeline = Pipeline(kafka, database.settings(WRITER))
        pipeline.start()
        ends = Ends(kafka.librdkafka_options("streampulse-job"), "events")
        half, whole = (dict.fromkeys(range(3), EVENTS // share) for share in (6, 3))
        assert ends.after(dict.fromkeys(range(3), 0)) == whole
        for number, end in half.items():
            pipeline.count(number, end)
        with brokers[node - 1].hanging():
            until = time.monotonic() + PATIENCE_SECONDS
            while (found := ends.after(half)) is None:
                assert time.monotonic() < until, "nobody leads the partitions of the broker that hangs"
            assert found == whole
            # Clients choose a broker at random: most looks once spent all their time on the one that hangs.
            for _ in range(4):
                with Topic(kafka, "test", 15) as topic:
                    assert topic.log(settled=True).ends == whole
            for number, end in whole.items():
                pipeline.count(number, end)
            assert database.query("SELECT offsets FROM batch_ledger ORDER BY seq DESC LIMIT 1") == [
                ({str(number): end for number, end in whole.items()},)
            ]
        pipeline.equal(whole=True)
        pipeline.stop()
