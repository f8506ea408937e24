"""``streampulse peek``: print the newest records of a topic. Control characters are escaped for the terminal."""

import argparse
import datetime
import sys
import time
from typing import Any, Final

from kafka import TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import KafkaError

from streampulse.core import kafka
from streampulse.core.errors import OperatorError, one_line
from streampulse.core.settings import KafkaSettings, load

#: Longer values are cut to this many characters; the output names the full length.
SHOWN_CHARACTERS: Final = 2_000
_SECONDS: Final = 10.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``streampulse peek``."""
    parser.add_argument("topic", nargs="?", metavar="TOPIC", help="default: the topic of the events")
    parser.add_argument("-n", dest="count", type=_positive, default=3, metavar="N", help="how many (default: 3)")


def _positive(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 1000:
        raise argparse.ArgumentTypeError("must be from 1 to 1000")
    return number


def run(arguments: argparse.Namespace) -> int:
    """Print the newest records, the oldest of them first.

    :raises OperatorError: Kafka does not answer or has no such topic.
    """
    kafka.silence()
    settings = load(KafkaSettings)
    topic = arguments.topic or settings.topic
    try:
        with kafka.Topic(settings, "streampulse-peek", _SECONDS, topic, auto_offset_reset="earliest") as source:
            known = source.consumer.topics()
            if topic not in known:
                names = ", ".join(sorted(name for name in known if not name.startswith("__"))) or "none"
                raise OperatorError(f"{topic} is not a topic. There are: {names}")
            newest = _newest(source, arguments.count)
    except KafkaError as error:
        raise OperatorError(
            f"Kafka at {settings.bootstrap_servers} does not answer ({one_line(error)}): inv logs kafka"
        ) from None
    if not newest:
        sys.stdout.write(f"{topic} is empty\n")
    for record in newest:
        sys.stdout.write(shown(record) + "\n")
    return 0


def _newest(topic: kafka.Topic, count: int) -> list[ConsumerRecord]:
    """Return the newest records of all partitions, by arrival.

    It reads the last ``count`` offsets of each partition, and doubles that while too few of them hold a record:
    transaction markers take offsets, too.
    """
    log = topic.log()
    deadline = time.monotonic() + _SECONDS
    found = []
    for number, end in sorted(log.ends.items()):
        back = count
        while True:
            begin = max(log.starts[number], end - back)
            here = _span(topic.consumer, TopicPartition(topic.name, number), begin, end, deadline)
            if len(here) >= count or begin == log.starts[number] or time.monotonic() > deadline:
                break
            back *= 2
        found.extend(here[-count:])
    found.sort(key=lambda record: (record.timestamp, record.partition, record.offset))
    return found[-count:]


def _span(consumer: Any, partition: TopicPartition, begin: int, end: int, deadline: float) -> list[ConsumerRecord]:
    found: list[ConsumerRecord] = []
    consumer.assign([partition])
    consumer.seek(partition, begin)
    while consumer.position(partition) < end and time.monotonic() < deadline:
        for records in consumer.poll(timeout_ms=500).values():
            found.extend(record for record in records if record.offset < end)
    return found


def shown(record: ConsumerRecord) -> str:
    """Return one record as text: its position, arrival, key, headers and value."""
    stamp = datetime.datetime.fromtimestamp(record.timestamp / 1000, datetime.UTC)
    lines = [
        f"partition {record.partition} offset {record.offset} at {stamp.isoformat(timespec='milliseconds')[:-6]}Z"
        f" key {printable(record.key)}"
    ]
    lines.extend(f"  {printable(name.encode())}: {printable(value)}" for name, value in record.headers or ())
    lines.append(f"  {printable(record.value, record.serialized_value_size)}")
    return "\n".join(lines)


def printable(data: bytes | None, size: int | None = None) -> str:
    """Return bytes as text, with an escape for every unprintable character.

    :param size: how many bytes there were before the client cut them; None: it cut none.
    """
    if data is None:
        return "(null)"
    if not data:
        return "(empty)"
    # A character has at most four bytes, so no shown character is cut in two.
    text = data[: SHOWN_CHARACTERS * 4].decode("utf-8", errors="backslashreplace")[:SHOWN_CHARACTERS]
    visible = "".join(each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in text)
    cut = len(data) > SHOWN_CHARACTERS and len(data) > len(text.encode("utf-8", errors="replace"))
    return f"{visible} ... ({size or len(data):,} bytes)" if cut else visible
