"""Records that Kafka's clients can send and few do: every reader reads them, and job and oracle agree."""

import json
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from broker import Broker, event
from confluent_kafka import Producer
from conftest import Database
from pipeline import Pipeline

from streampulse.answers.conditions import Where
from streampulse.answers.letters import Letters
from streampulse.answers.output import database as connected
from streampulse.answers.trace import Tracer
from streampulse.core.settings import KafkaSettings
from streampulse.host.cli import main
from streampulse.oracle.decide import ACCEPTED
from streampulse.oracle.reader import TopicReader
from streampulse.probe.topic import Topic

Send = Callable[[Broker, str, str, list[bytes]], None]
STREAM = b"stream"
CODECS = ("none", "gzip", "snappy", "lz4", "zstd")


class NotUtf8(str):
    """The name of a header, which kafka-python's producer encodes to other bytes."""

    __slots__ = ()

    def encode(self, *_: object) -> bytes:
        return b"\xff\xfe\x00name"


ODD: dict[str, dict[str, Any]] = {
    # CPython leaves a check out once a call has run often, so one such record proves nothing.
    **{
        f"a header's name is not UTF-8, {n}": {"headers": [("client.id", b"sender"), (NotUtf8(), b"x")]}
        for n in range(20)
    },
    "a header without a value": {"headers": [("client.id", None), ("client.id", b"sender")]},
    "a header's value is not UTF-8": {"headers": [("client.id", b"\xff\xfe\x00")]},
    "a header without a name": {"headers": [("", b"x")]},
    "1,000 headers": {"headers": [("name", b"value")] * 1_000},
    "an empty key": {"key": b""},
    "no key": {"key": None},
    "a key of 200 KB": {"key": b"k" * 200_000},
    "no value": {"value": None},
    "an empty value": {"value": b""},
}


def send(broker: Broker, topic: str, record: dict[str, Any]) -> None:
    """Send a record with the client that can."""
    if any(isinstance(name, NotUtf8) for name, _ in record.get("headers", ())):
        with broker.producer(compression_type="lz4") as python:
            python.send(topic, **record).get(10)
    else:
        librdkafka = Producer({"bootstrap.servers": broker.address})
        librdkafka.produce(topic, **record)
        assert librdkafka.flush(10) == 0


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, kafka: KafkaSettings) -> None:
    for name in ("bootstrap_servers", "topic", "dlq_topic"):
        monkeypatch.setenv(f"STREAMPULSE_KAFKA_{name.upper()}", getattr(kafka, name))


def test_odd_records_pass_every_reader(
    broker: Broker, kafka: KafkaSettings, database: Database, pipeline: Pipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    refused = {"an empty key", "no key", "a key of 200 KB", "no value", "an empty value"}
    for fields in ODD.values():
        for value in (event("stream"), b"no event"):
            send(broker, kafka.topic, {"key": STREAM, "value": value, "partition": 0, **fields})
    end = broker.end(kafka.topic)
    pipeline.start()
    pipeline.count(0, end)

    report = pipeline.equal(whole=True)
    assert report.outcomes == {"accepted": len(ODD) - len(refused), "invalid": len(ODD) + len(refused)}
    with closing(TopicReader(kafka)) as reader, connected(database.settings(), "trace") as connection:
        letters = Letters(reader, kafka.dlq_topic, kafka.topic).newest(Where(), 100)
        first = json.loads(next(reader.read(kafka.topic, reader.bounds(kafka.topic))).value or b"")
        answers = Tracer(reader, kafka, connection).answers([first["event_id"]])
    assert len(letters) == len(ODD) + len(refused)
    assert {letter.producer for letter in letters} == {"", "sender", "\ufffd\ufffd\x00"}
    assert [answer.words for answer in answers.values()] == [[ACCEPTED]]
    topic = Topic(kafka, patience=5)
    for offset in range(end):
        assert topic.arrivals({0: offset}, {0: end}).keys() == {0}
    for name in (kafka.topic, kafka.dlq_topic):
        assert main(["peek", name, "-n", "100"]) == 0
    shown = capsys.readouterr().out
    assert shown.count(" at ") >= 2 * len(ODD) + len(letters)
    assert r"\xff\xfe\x00name" in shown


def send_with_librdkafka(broker: Broker, topic: str, codec: str, values: list[bytes]) -> None:
    producer = Producer({"bootstrap.servers": broker.address, "compression.type": codec, "linger.ms": 200})
    for value in values:
        producer.produce(topic, value, STREAM, 0)
    assert producer.flush(10) == 0


def send_with_kafka_python(broker: Broker, topic: str, codec: str, values: list[bytes]) -> None:
    with broker.producer(compression_type=None if codec == "none" else codec, linger_ms=200) as producer:
        for value in values:
            producer.send(topic, value, STREAM)


def send_with_java(broker: Broker, topic: str, codec: str, values: list[bytes]) -> None:
    lines = b"".join(STREAM + b"\t" + value + b"\n" for value in values)
    broker.java(
        "org.apache.kafka.tools.ConsoleProducer",
        *("--bootstrap-server", broker.address, "--topic", topic, "--compression-codec", codec),
        *("--reader-property", "parse.key=true"),
        stdin=lines,
    )


@pytest.mark.parametrize("send", [send_with_librdkafka, send_with_kafka_python, send_with_java])
def test_every_codec_of_every_client_is_read(
    broker: Broker, kafka: KafkaSettings, pipeline: Pipeline, capsys: pytest.CaptureFixture[str], send: Send
) -> None:
    for codec in CODECS:
        send(broker, kafka.topic, codec, [event("stream") for _ in range(20)] + [b"no event"])
    end = broker.end(kafka.topic)
    pipeline.start()
    pipeline.count(0, end)
    report = pipeline.equal(whole=True)
    assert report.outcomes == {"accepted": 20 * len(CODECS), "invalid": len(CODECS)}
    topic = Topic(kafka, patience=5)
    for offset in range(end):
        assert topic.arrivals({0: offset}, {0: end}).keys() == {0}
    assert main(["peek", "-n", "200"]) == 0
    assert capsys.readouterr().out.count(" at ") == end
