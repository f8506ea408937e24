"""The outcome of each record: invalid, future, late, duplicate or accepted.

A function of one partition's log alone, in offset order. It follows the five rules of the contract literally.
"""

from typing import Final, NamedTuple

from streampulse.events import ALLOWED_FUTURE_US, ALLOWED_LATENESS_US, Event, InvalidEvent, is_internal, parse

INVALID: Final = "invalid"
FUTURE: Final = "future"
LATE: Final = "late"
DUPLICATE: Final = "duplicate"
ACCEPTED: Final = "accepted"
#: The outcomes that send a record to the dead-letter topic.
DEAD_LETTER_REASONS: Final = frozenset({INVALID, FUTURE, LATE})


class Record(NamedTuple):
    """One record of the raw topic. ``stamp_ms`` is its arrival at the broker, milliseconds since the epoch."""

    partition: int
    offset: int
    stamp_ms: int
    key: bytes | None
    value: bytes | None


class Decision(NamedTuple):
    """The outcome of one record.

    ``event`` is None only for ``invalid``; ``detail`` is set only then. ``certain`` is False if records that the log no
    longer holds may have changed the outcome.
    """

    outcome: str
    event: Event | None
    detail: str | None
    certain: bool = True


class PartitionLog:
    """The acceptance of one partition's records, fed to :meth:`decide` in offset order.

    ``clock_us`` is the partition's clock (None before the first record that moves it), ``own_clocks_us`` the newest
    time of each internal stream. Both in microseconds since the epoch.
    """

    def __init__(self, partition: int, partitions: int, missing_until_us: int | None = None) -> None:
        """Start before the first record.

        :param partition: the partition's number.
        :param partitions: how many partitions the topic has.
        :param missing_until_us: if the log is incomplete, an upper bound of the missing records' times; None for a log
            from offset 0.
        """
        self.partition = partition
        self.partitions = partitions
        self.missing_until_us = missing_until_us
        self.clock_us: int | None = None
        self.own_clocks_us: dict[str, int] = {}
        self.next_offset = 0
        # The time of the newest accepted event of each (stream, event_id). The newest suffices: an id is accepted again
        # only after the earlier one is more than ten minutes before the clock.
        self._accepted: dict[tuple[str, str], int] = {}

    def lose(self, clock_us: int | None) -> None:
        """Go on behind records that were read and then lost.

        :param clock_us: the partition's clock after them, None where they moved none. It bounds their times.
        """
        if clock_us is not None:
            self.clock_us = max(clock_us, self.clock_us or clock_us)
            self.missing_until_us = max(clock_us, self.missing_until_us or clock_us)

    def accepted_at(self, event: Event) -> int | None:
        """Return the time of the newest accepted event of the same stream and id; microseconds since the epoch."""
        return self._accepted.get((event.stream_id, event.event_id))

    def decide(self, record: Record, excluded: str | None = None) -> Decision:
        """Decide the next record's outcome.

        :param excluded: the reason of the record's entry in ``excluded_records``, None where it has none.
        :raises ValueError: the record is of another partition or not in offset order.
        """
        if record.partition != self.partition or record.offset < self.next_offset:
            raise ValueError(f"partition {record.partition} offset {record.offset} is out of order")
        self.next_offset = record.offset + 1

        # 1. Not a valid event.
        try:
            event = parse(record.key, record.value, record.partition, self.partitions)
        except InvalidEvent as error:
            return Decision(INVALID, None, error.detail)

        # An entry overrules rules 2 to 5. Like rule 2, it moves no clock.
        if excluded is not None:
            return Decision(excluded, event, "value: cannot be read" if excluded == INVALID else None)

        # 2. More than 5 minutes after its arrival.
        if event.ts_us - record.stamp_ms * 1000 > ALLOWED_FUTURE_US:
            return Decision(FUTURE, event, None)

        # The clock comes from the earlier records. This record moves it for later ones, whatever its outcome.
        clock = self.clock_us
        if is_internal(event.stream_id):
            self.own_clocks_us[event.stream_id] = max(self.own_clocks_us.get(event.stream_id, event.ts_us), event.ts_us)
        elif clock is None or event.ts_us > clock:
            self.clock_us = event.ts_us

        # 3. More than 10 minutes before the clock.
        if clock is not None and clock - event.ts_us > ALLOWED_LATENESS_US:
            return Decision(LATE, event, None)

        # Missing records no longer matter once the clock is ten minutes past all of them.
        certain = self.missing_until_us is None or (
            clock is not None and clock - self.missing_until_us > ALLOWED_LATENESS_US
        )

        # 4. Accepted before, at most 10 minutes before the clock.
        identity = (event.stream_id, event.event_id)
        before = self._accepted.get(identity)
        if before is not None and (clock is None or clock - before <= ALLOWED_LATENESS_US):
            return Decision(DUPLICATE, event, None, certain)

        # 5. Everything else.
        self._accepted[identity] = event.ts_us
        return Decision(ACCEPTED, event, None, certain)
