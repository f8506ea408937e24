"""A broker that was cut off takes itself for a leader for a moment. Its log ends too early, and nothing is lost."""

from collections.abc import Iterator
from typing import Any

import pytest
from broker import Broker, cluster, event
from kafka import KafkaAdminClient
from kafka.admin import NewTopic
from kafka.errors import KafkaError

from streampulse.core.kafka import Topic
from streampulse.core.settings import KafkaSettings

COUNT = 20


@pytest.fixture(scope="module")
def brokers() -> Iterator[list[Broker]]:
    with cluster(3) as found:
        with found[0].admin() as admin:
            admin.create_topics([NewTopic("events", replica_assignments={0: [1, 2, 3]})])
        with found[0].producer(acks="all") as producer:
            for _ in range(COUNT):
                producer.send("events", event("stream"), partition=0)
        # Another leader, of a higher epoch.
        found[0].kill()
        assert found[1].end("events") == COUNT
        yield found


@pytest.fixture
def topic(brokers: list[Broker]) -> Iterator[Topic]:
    settings = KafkaSettings(bootstrap_servers=brokers[1].address, topic="events", dlq_topic="letters")
    with Topic(settings, "test", 5) as made:
        yield made


def lie(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """Answer questions about offsets as a leader of an earlier epoch, that many times."""
    ask, left = KafkaAdminClient.list_partition_offsets, times

    def answers(*asked: Any) -> dict[Any, Any]:
        nonlocal left
        left -= 1
        older = {"offset": 3, "leader_epoch": 0} if left >= 0 else {}
        return {where: each._replace(**older) for where, each in ask(*asked).items()}

    monkeypatch.setattr(KafkaAdminClient, "list_partition_offsets", answers)


def test_the_newest_leader_is_believed(topic: Topic, monkeypatch: pytest.MonkeyPatch) -> None:
    # A look asks twice, for the starts and for the ends.
    lie(monkeypatch, times=2)
    assert topic.log(settled=True).ends == {0: COUNT}


def test_a_leader_that_most_brokers_know_of_no_more_is_not(topic: Topic, monkeypatch: pytest.MonkeyPatch) -> None:
    lie(monkeypatch, times=1_000_000)
    assert topic.log().ends == {0: 3}
    with pytest.raises(KafkaError, match="do not agree about who leads events"):
        topic.log(settled=True)
