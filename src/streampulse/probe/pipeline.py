"""The pipeline's lag: Kafka's end offsets against the ledger's committed ones."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from streampulse.core.kafka import Log, OpenTransaction
from streampulse.probe import ledger, topic
from streampulse.probe.part import Unreadable, Voice

_PREFIX: Final = "streampulse_pipeline_"
# A reading older than this many intervals counts as none: its reader hangs.
_STALE_INTERVALS: Final = 4


class Lag(NamedTuple):
    """Records in Kafka that are not committed: their number, and the age of the oldest in seconds (None: unknown)."""

    records: int
    seconds: float | None


class Found(NamedTuple):
    """One reading of the topic: its start on the monotonic clock, the log, and the lag.

    ``log`` is None if Kafka could not be read; ``lag`` is None if Kafka or the ledger could not. ``transactions``
    are the open ones.
    """

    at: float
    log: Log | None
    lag: Lag | None
    transactions: Sequence[OpenTransaction] = ()


def waiting(log: Log, entry: ledger.Entry | None) -> dict[int, tuple[int, int]]:
    """Return the uncommitted span (first offset, end) of each partition that has one.

    Offsets of another topic of the same name do not apply, and neither do those past its end: such a log was lost.
    Records that retention has removed do not count.

    :param entry: the newest ledger row, None while the ledger is empty.
    """
    committed: Mapping[int, int] = {}
    if entry is not None and entry.topic_id in (None, log.topic_id):
        committed = entry.offsets
    found = {number: (max(committed.get(number, 0), log.starts[number]), end) for number, end in log.ends.items()}
    return {number: (first, end) for number, (first, end) in found.items() if first < end}


class LedgerReader:
    """Reads the ledger every few seconds, and at once on request.

    :param source: the ledger.
    :param interval: seconds between the starts of two readings.
    """

    def __init__(self, source: ledger.Ledger, interval: float) -> None:
        self._source = source
        self._interval = interval
        self._voice = Voice("PostgreSQL")
        self.latest = ledger.LatestReading()

    def step(self) -> float:
        """Read once; return the seconds until the next reading."""
        begun = time.monotonic()
        try:
            reading = self._source.read()
        except Unreadable as error:
            self.latest.put(begun, None)
            self._voice.wrong(str(error))
        else:
            self.latest.put(begun, reading)
            self._voice.well()
        return max(0.0, self._interval - (time.monotonic() - begun))


class TopicReader:
    """Reads the topic's end offsets and its lag every few seconds.

    The ledger is read right after Kafka, so that records committed by then do not count as waiting.

    :param source: the topic.
    :param latest: readings of the ledger.
    :param ask: requests a reading of the ledger at once.
    :param interval: seconds between the starts of two readings.
    :param patience: limit of the wait for the ledger, in seconds.
    """

    def __init__(
        self,
        source: topic.Topic,
        latest: ledger.LatestReading,
        ask: Callable[[], None],
        interval: float,
        patience: float,
    ) -> None:
        self._source = source
        self._latest = latest
        self._ask = ask
        self._interval = interval
        self._patience = patience
        self._voice = Voice("Kafka")
        self._found: Found | None = None

    def step(self) -> float:
        """Read once; return the seconds until the next reading."""
        begun = time.monotonic()
        log, lag, transactions = None, None, list[OpenTransaction]()
        try:
            log = self._source.read()
            asked = time.monotonic()
            self._ask()
            reading = self._latest.since(asked, self._patience)
            if reading is not None:
                found = waiting(log, reading.entry)
                # The known part if the records themselves cannot be read.
                lag = Lag(sum(end - first for first, end in found.values()), None)
                lag = self._aged(log, found)
            transactions = self._source.transactions()
        except Unreadable as error:
            self._voice.wrong(str(error))
        else:
            self._voice.well()
        self._found = Found(begun, log, lag, transactions)
        return max(0.0, self._interval - (time.monotonic() - begun))

    def get(self, max_age: float) -> Found | None:
        """Return the last result, None if it is older than ``seconds``."""
        found = self._found
        return found if found is not None and time.monotonic() - found.at <= max_age else None

    def _aged(self, log: Log, found: Mapping[int, tuple[int, int]]) -> Lag:
        if not found:
            return Lag(0, 0.0)
        arrived = self._source.arrivals({number: first for number, (first, _) in found.items()}, log.ends)
        now = time.time()
        return Lag(
            # In a partition without a record before its end, the offsets are transaction markers.
            sum(end - first for number, (first, end) in found.items() if number in arrived),
            # Stamps are by the broker's clock, which may be a little ahead of this host's.
            max((max(0.0, now - each) for each in arrived.values()), default=0.0),
        )


class Figures(Collector):
    """The pipeline's metrics. Those of a part that cannot be read are left out.

    :param entries: readings of the ledger.
    :param topics: readings of the topic.
    :param interval: seconds between two of them.
    """

    def __init__(self, entries: ledger.LatestReading, topics: TopicReader, interval: float) -> None:
        self._entries = entries
        self._topics = topics
        self._max_age = interval * _STALE_INTERVALS

    def collect(self) -> list[Metric]:
        """Return all metrics; unknown ones have no samples."""
        reading = self._entries.get(self._max_age)
        found = self._topics.get(self._max_age)
        log = found.log if found is not None else None
        # Neither is known without the other.
        lag = found.lag if found is not None and reading is not None else None
        entry = reading.entry if reading is not None else None
        readable = GaugeMetricFamily(
            f"{_PREFIX}readable",
            "Whether the last look could read it: kafka or postgres. What depends on it is absent while it is 0.",
            labels=["part"],
        )
        readable.add_metric(["kafka"], log is not None)
        readable.add_metric(["postgres"], reading is not None)
        return [
            _by_partition("end_offset", "Offset after the newest record of the events' topic.", log and log.ends),
            _by_partition(
                "committed_offset",
                "Offset after the newest record that was committed, by the newest entry of the ledger.",
                entry and entry.offsets,
            ),
            GaugeMetricFamily(
                f"{_PREFIX}lag_records",
                "Records in the topic of the events that are not committed, over all partitions.",
                lag and lag.records,
            ),
            GaugeMetricFamily(
                f"{_PREFIX}lag_seconds",
                "Time since the arrival of the oldest record that is not committed; 0 when there is none.",
                lag and lag.seconds,
            ),
            CounterMetricFamily(
                f"{_PREFIX}dead_letters",
                "Dead letters that were written, by the ledger's entries.",
                reading and reading.dead_letters,
            ),
            GaugeMetricFamily(
                f"{_PREFIX}last_commit_timestamp_seconds",
                "When the newest batch was committed, by the database's clock, in seconds since the epoch.",
                entry and entry.committed_at,
            ),
            _open_transactions(found.transactions if found is not None else ()),
            readable,
        ]


def _open_transactions(transactions: Iterable[OpenTransaction]) -> Metric:
    family = GaugeMetricFamily(
        f"{_PREFIX}open_transaction_seconds",
        "Time since the begin of an open transaction that holds back a partition of the events' topic.",
        labels=["partition", "producer"],
    )
    for each in transactions:
        for number in each.partitions:
            family.add_metric([str(number), each.producer], each.seconds)
    return family


def _by_partition(name: str, documentation: str, offsets: Mapping[int, int] | None) -> Metric:
    family = GaugeMetricFamily(f"{_PREFIX}{name}", documentation, labels=["partition"])
    for number, offset in sorted((offsets or {}).items()):
        family.add_metric([str(number)], offset)
    return family
