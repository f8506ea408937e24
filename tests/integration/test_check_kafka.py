"""Doctor's look at a real broker."""

import uuid

import pytest
from broker import Broker
from confluent_kafka import Producer

from streampulse.host.check import host, kafka


def test_an_open_transaction_is_named_with_its_partition(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = broker.topics(f"events-{uuid.uuid4()}", partitions=2)
    monkeypatch.setattr(kafka, "load", lambda _: settings)
    monkeypatch.setattr(kafka, "LONG_TRANSACTION_SECONDS", 0)
    name = f"forgotten-{uuid.uuid4()}"
    producer = Producer({"bootstrap.servers": broker.address, "transactional.id": name})
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(settings.topic, b"value", partition=1)
    producer.flush(30)
    (found,) = kafka.transactions(host.Host(), {})
    assert found.cause.startswith(
        f"partitions 1 of {settings.topic} wait for the open transaction of the producer {name}"
    )

    producer.abort_transaction(30)
    (found,) = kafka.transactions(host.Host(), {})
    assert found.ok
