"""One topic of Kafka: its id, the bounds of its partitions, and the clients that read it."""

import contextlib
import itertools
import logging
import random
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, Self, TypeVar

import zstandard
from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition, codec
from kafka.errors import CorruptRecordError, KafkaError, KafkaTimeoutError, RetriableError
from kafka.net.compat import KafkaNetClient
from kafka.protocol.consumer import IsolationLevel, OffsetSpec
from kafka.protocol.metadata import MetadataRequest
from kafka.record.default_records import DefaultRecordBatch
from kafka.serializer import Deserializer

from streampulse.core.errors import OperatorError
from streampulse.core.settings import KafkaSettings
from streampulse.events import MAX_BATCH_BYTES, MAX_RECORD_BYTES

# The pause before brokers that did not agree, or did not answer, are asked again.
_AGAIN_SECONDS: Final = 0.2
# The limit of the first attempt to find a cluster. A broker answers within milliseconds.
_FIRST_ATTEMPT_SECONDS: Final = 1.0


class NoTopic(OperatorError):  # noqa: N818 - a finding
    """Kafka answers and does not have the topic."""


class Log(NamedTuple):
    """The log of a topic. Offsets by partition.

    :param topic_id: id that Kafka gave the topic when it was created; a topic that is created again has another.
    :param starts: first offset that the partition holds.
    :param ends: offset after the last committed record.
    """

    topic_id: str
    starts: Mapping[int, int]
    ends: Mapping[int, int]

    def behind(self, offsets: Mapping[str, int]) -> int:
        """Return how many offsets the job has still to read.

        :param offsets: the next offset to read by partition, as the ledger has them.
        """
        return sum(
            max(end - max(int(offsets.get(str(number), 0)), self.starts[number]), 0)
            for number, end in self.ends.items()
        )


class CannotUnpack(KafkaError):  # type: ignore[misc]  # noqa: N818 - a finding
    """A batch has a wrong checksum, or its records cannot be unpacked."""

    def __init__(self, first: int, last: int, cause: object) -> None:
        self.first = first
        self.last = last
        super().__init__(f"the batch of offsets {first} to {last} cannot be unpacked: {cause}")


Part = TypeVar("Part", str, bytes, bytes | None)
Client = TypeVar("Client")


class _Cut(Deserializer):  # type: ignore[misc]
    """Cuts the parts of a record to just more than the contract allows; :func:`.is_too_large` says the same of it."""

    def deserialize(self, topic: str, headers: list[tuple[str, bytes | None]], data: bytes | None) -> bytes | None:  # noqa: ARG002
        """Return a key or value, and shorten the headers."""
        if headers:
            headers[:] = [(_cut(name), _cut(value)) for name, value in headers]
        return _cut(data)


def _cut(part: Part) -> Part:
    return part if part is None or len(part) <= MAX_RECORD_BYTES else part[: MAX_RECORD_BYTES + 1]


#: Options of a consumer that holds few bytes of large records. While a batch is read, kafka-python needs up to three
#: times the bytes that it unpacks to.
SMALL: Final[Mapping[str, Any]] = {
    "key_deserializer": _Cut(),
    "value_deserializer": _Cut(),
    "max_poll_records": 500,
    # Where a batch is unpacked, its checksum is compared and an error names its offsets.
    "check_crcs": False,
    "max_partition_fetch_bytes": 1024 * 1024,
}


def _zstd_decode(payload: bytes) -> bytes:
    pieces, size = [], 0
    with zstandard.ZstdDecompressor().stream_reader(payload, read_across_frames=True) as reader:
        while piece := reader.read(1024 * 1024):
            pieces.append(piece)
            size += len(piece)
            if size > MAX_BATCH_BYTES:
                raise ValueError(f"more than {MAX_BATCH_BYTES} bytes")
    return b"".join(pieces)


# By the number that Kafka gives the codec.
_DECODERS: Final = {1: codec.gzip_decode, 2: codec.snappy_decode, 3: codec.lz4_decode, 4: _zstd_decode}


def _unpack(batch: DefaultRecordBatch) -> None:
    if batch._decompressed:
        return
    if not batch.validate_crc():
        raise CannotUnpack(batch.base_offset, batch.last_offset, "its checksum is wrong")
    if batch.compression_type:
        try:
            batch._buffer = _DECODERS[batch.compression_type](bytes(batch._buffer[batch._pos :]))
        except Exception as error:  # noqa: BLE001 - each codec's library has errors of its own
            raise CannotUnpack(batch.base_offset, batch.last_offset, error) from None
        batch._pos = 0
    batch._decompressed = True


_next_record = DefaultRecordBatch.__next__


class _AnyText(bytes):
    """Bytes whose parts are text in any case: the name of a header need not be UTF-8."""

    def __getitem__(self, index: Any) -> Any:
        part = super().__getitem__(index)
        return _AnyText(part) if isinstance(part, bytes) else part

    def decode(self, encoding: str = "utf-8", errors: str = "backslashreplace") -> str:
        return super().decode(encoding, errors)


def _next(batch: DefaultRecordBatch) -> Any:
    try:
        return _next_record(batch)
    except CorruptRecordError as error:
        if isinstance(error.__context__, UnicodeDecodeError):
            batch._buffer = _AnyText(batch._buffer)
            return _next(batch)
        raise CannotUnpack(batch.base_offset, batch.last_offset, error) from None


# In kafka-python's own methods zstd has no limit, errors do not name the batch, and the batch is in memory twice.
DefaultRecordBatch._maybe_uncompress = _unpack
DefaultRecordBatch.__next__ = _next


class OpenTransaction(NamedTuple):
    """A transaction that holds back readers of partitions, by its producer's transactional id.

    ``seconds``: since its begin, by the broker's clock; ``timeout_seconds``: the broker aborts it after that.
    """

    producer: str
    partitions: list[int]
    seconds: float
    timeout_seconds: float


def silence() -> None:
    """Switch off the client library's log. It writes several lines for each attempt to connect; callers write one."""
    logging.getLogger("kafka").setLevel(logging.CRITICAL)


def connected(client: Callable[..., Client], seconds: float, *, bootstrap_servers: str, **arguments: Any) -> Client:
    """Return a client of kafka-python that has found its cluster.

    kafka-python asks one broker, chosen at random, for the whole limit of a bootstrap, and that broker may hang. So the
    brokers are tried in turn, in each round with twice the limit.

    :param seconds: limit for all attempts together.
    :raises kafka.errors.KafkaError: no broker answers.
    """
    opened: list[KafkaNetClient] = []

    def network(**options: Any) -> KafkaNetClient:
        opened.append(KafkaNetClient(**options))
        return opened[-1]

    deadline = time.monotonic() + seconds
    servers = bootstrap_servers.split(",")
    random.shuffle(servers)
    for attempt in itertools.count():
        left = deadline - time.monotonic()
        if left <= 0:
            break
        limit = min(_FIRST_ATTEMPT_SECONDS * 2 ** (attempt // len(servers)), left)
        try:
            return client(
                kafka_client=network,
                bootstrap_servers=servers[attempt % len(servers)],
                bootstrap_timeout_ms=max(round(1000 * limit), 1),
                **arguments,
            )
        except BaseException as error:
            # A client that fails here leaves its thread and its connections behind.
            while opened:
                failed = opened.pop()
                failed.close()
                failed._manager._net.stop()
            if not isinstance(error, KafkaTimeoutError):
                raise
    raise KafkaTimeoutError(f"no broker of {bootstrap_servers} answers")


class Topic:
    """A topic, read through clients that belong to no consumer group and commit nothing. Used by one thread.

    :param settings: addresses and login of the brokers.
    :param client_id: name that the brokers' logs and quotas show.
    :param seconds: limit for each answer.
    :param name: the topic; by default the topic of the events.
    :param options: further options of the consumer.
    """

    def __init__(
        self, settings: KafkaSettings, client_id: str, seconds: float, name: str | None = None, **options: Any
    ) -> None:
        self.name = name or settings.topic
        self._seconds = seconds
        self._arguments: dict[str, Any] = {
            **settings.client_arguments(client_id),
            "request_timeout_ms": round(seconds * 1000),
            "reconnect_backoff_max_ms": 1_000,
        }
        self._options: dict[str, Any] = {
            "group_id": None,
            "enable_auto_commit": False,
            "isolation_level": "read_committed",
            **SMALL,
            **options,
        }
        self._admin: Any = None
        self._consumer: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def admin(self) -> Any:
        """The client that describes topics, connected at the first use.

        :raises kafka.errors.KafkaError: no broker answers.
        """
        if self._admin is None:
            self._admin = connected(KafkaAdminClient, self._seconds, **self._arguments)
        return self._admin

    @property
    def consumer(self) -> Any:
        """The consumer, connected at the first use.

        :raises kafka.errors.KafkaError: no broker answers.
        """
        if self._consumer is None:
            self._consumer = connected(KafkaConsumer, self._seconds, **self._arguments, **self._options)
        return self._consumer

    def log(self, *, settled: bool = False) -> Log:
        """Ask for the topic's id and bounds.

        :param settled: ask all brokers who leads. One that was cut off takes itself for a leader until it has read what
            happened, and its log ends too early.
        :raises NoTopic: there is no such topic.
        :raises kafka.errors.KafkaError: no broker answers in time; where it must be settled, most do not, or disagree.
        """
        deadline = time.monotonic() + self._seconds
        while True:
            try:
                return self._log(settled)
            except RetriableError:
                if time.monotonic() > deadline:
                    raise
            self.close()
            time.sleep(_AGAIN_SECONDS)

    def _log(self, settled: bool) -> Log:
        found = [each for each in self.admin.describe_topics([self.name]) if not each.get("error_code")]
        if not found or not found[0].get("partitions"):
            raise NoTopic(f"Kafka has no topic {self.name}: make it with inv up")
        partitions = [TopicPartition(self.name, each["partition_index"]) for each in found[0]["partitions"]]

        def offsets(which: OffsetSpec) -> dict[TopicPartition, Any]:
            asked = dict.fromkeys(partitions, which)
            return dict(self.admin.list_partition_offsets(asked, IsolationLevel.READ_COMMITTED))

        starts, ends = offsets(OffsetSpec.EARLIEST), offsets(OffsetSpec.LATEST)
        if settled:
            self._require_newest_leaders({each.partition: ends[each].leader_epoch or 0 for each in partitions})
        return Log(
            str(found[0]["topic_id"]),
            {each.partition: starts[each].offset for each in partitions},
            {each.partition: ends[each].offset for each in partitions},
        )

    def _require_newest_leaders(self, epochs: Mapping[int, int]) -> None:
        """Ask each broker who leads.

        :param epochs: the leader epoch of each partition's answer.
        :raises kafka.errors.KafkaTimeoutError: most brokers did not answer, or one knows of a newer leader.
        """
        manager = self.admin._manager
        asked = MetadataRequest(topics=[MetadataRequest.MetadataRequestTopic(name=self.name)])
        newest, answers = dict(epochs), 0

        async def ask() -> None:
            nonlocal answers
            for broker in manager.cluster.brokers():
                with contextlib.suppress(KafkaError):
                    answer = await manager.send(asked, node_id=broker.node_id, request_timeout_ms=3_000)
                    answers += 1
                    for each in answer.topics[0].partitions:
                        number = each.partition_index
                        if number in newest:
                            newest[number] = max(each.leader_epoch, newest[number])

        manager.run(ask)
        if newest != epochs or 2 * answers <= len(manager.cluster.brokers()):
            raise KafkaTimeoutError(f"the brokers do not agree about who leads {self.name}")

    def transactions(self, seconds: float) -> list[OpenTransaction]:
        """Return the transactions on the topic that are open for longer than this, in seconds.

        :raises kafka.errors.KafkaError: no broker answers in time.
        """
        listed = self.admin.list_transactions(state_filters=["Ongoing"], duration_filter_ms=round(seconds * 1000))
        described = self.admin.describe_transactions(
            [each.transactional_id for found in listed.values() for each in found]
        )
        now = time.time()
        open_ = [
            OpenTransaction(
                name,
                sorted(each.partition for each in found.topic_partitions if each.topic == self.name),
                max(seconds, now - found.transaction_start_time_ms / 1000),
                found.transaction_timeout_ms / 1000,
            )
            for name, found in sorted(described.items())
        ]
        return [each for each in open_ if each.partitions]

    def close(self) -> None:
        """Close the connections. The next call opens new ones."""
        for client in (self._consumer, self._admin):
            if client is not None:
                with contextlib.suppress(KafkaError, OSError):
                    client.close()
        self._consumer = self._admin = None
