"""Faults of real producers in given shares, reproducibly: duplicates, disorder, lateness, garbage.

Each share is the fraction of good events that get the fault. With every share at 0 events pass through unchanged.
"""

import heapq
import random
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from streampulse.generator.model import MINUTE_US, Encoder, GeneratedEvent, random_uuid

# Duplicates repeat one of the newest records, so that none is late the second time. Held-back records are kept until
# they are due. Both buffers are bounded.
_REMEMBERED: Final = 1_000
_REPEATED_WITHIN_US: Final = 5 * MINUTE_US
_HELD_AT_MOST: Final = 100_000
# Disorder stays well inside the contract's ten minutes; lateness is beyond them.
_HELD_BACK_US: Final = 2 * MINUTE_US
_LATE_FROM_US, _LATE_TO_US = 11 * MINUTE_US, 60 * MINUTE_US
#: How far a record from the future is ahead of its event, in microseconds.
FUTURE_US: Final = 60 * MINUTE_US


class Record(NamedTuple):
    """A Kafka record. The key decides the partition; the value is the event's JSON or a corrupted substitute."""

    key: bytes
    value: bytes


@dataclass(frozen=True)
class Shares:
    """The share of each fault, from 0 to 1."""

    duplicates: float = 0.0
    disorder: float = 0.0
    late: float = 0.0
    garbage: float = 0.0

    def __post_init__(self) -> None:
        for name in ("duplicates", "disorder", "late", "garbage"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must be from 0 to 1")


class Faults:
    """Turns events into records and corrupts the chosen shares of them.

    :param seed: the same seed and the same events give the same records.
    :param future_us: lead of a future record over its event, in microseconds. Events that are sent long after their
        time need more than the default.
    """

    def __init__(self, shares: Shares, *, seed: int | str, future_us: int = FUTURE_US) -> None:
        self._shares = shares
        self._future_us = future_us
        self._random = random.Random(f"faults {seed}")  # noqa: S311 - no secrets
        self._encoder = Encoder()
        self._newest: deque[tuple[int, Record]] = deque(maxlen=_REMEMBERED)
        self._held: list[tuple[int, int, Record]] = []
        self._count = 0

    def records(self, events: Iterable[GeneratedEvent]) -> Iterator[Record]:
        """Yield the records to send now, in order."""
        shares, rng = self._shares, self._random
        if shares == Shares():
            for event in events:
                yield Record(event.stream_id.encode("ascii"), self._encoder.encode(event))
            return
        for event in events:
            yield from self._due(event.ts_us)
            record = Record(event.stream_id.encode("ascii"), self._encoder.encode(event))
            if rng.random() < shares.disorder and len(self._held) < _HELD_AT_MOST:
                self._count += 1
                release = event.ts_us + int(rng.random() * _HELD_BACK_US)
                heapq.heappush(self._held, (release, self._count, record))
                continue
            yield record
            self._newest.append((event.ts_us, record))
            yield from self._spoiled(event)

    def rest(self) -> Iterator[Record]:
        """Yield the records that are still held back, at the end."""
        while self._held:
            yield heapq.heappop(self._held)[2]

    def _due(self, now_us: int) -> Iterator[Record]:
        while self._held and self._held[0][0] <= now_us:
            yield heapq.heappop(self._held)[2]

    def _spoiled(self, event: GeneratedEvent) -> Iterator[Record]:
        """Yield the additional records that follow a good one."""
        shares, rng = self._shares, self._random
        if rng.random() < shares.duplicates:
            while self._newest[0][0] < event.ts_us - _REPEATED_WITHIN_US:
                self._newest.popleft()
            yield self._newest[int(rng.random() * len(self._newest))][1]
        if rng.random() < shares.late:
            ago = _LATE_FROM_US + int(rng.random() * (_LATE_TO_US - _LATE_FROM_US))
            late = event._replace(event_id=random_uuid(rng), ts_us=event.ts_us - ago)
            yield Record(event.stream_id.encode("ascii"), self._encoder.encode(late))
        if rng.random() < shares.garbage:
            yield self._garbage(event._replace(event_id=random_uuid(rng)))

    def _garbage(self, event: GeneratedEvent) -> Record:
        """Return a record that the contract rejects: invalid in one of many ways, or from the future."""
        key = event.stream_id.encode("ascii")
        value = self._encoder.encode(event)
        future = self._encoder.encode(event._replace(ts_us=event.ts_us + self._future_us))
        forms = (
            Record(key, b""),
            Record(key, b"not json"),
            Record(key, value[: len(value) // 2]),
            Record(key, b"\xff\xfe" + value),
            Record(key, b"\xef\xbb\xbf" + value),
            Record(key, b"[" * 150 + b"]" * 150),
            Record(key, value + b"{}"),
            Record(key, value.replace(b'"event_id"', b'"event"')),
            Record(key, value.replace(event.event_id.encode("ascii"), b"not-a-uuid")),
            Record(key, value.replace(event.event_type.encode("ascii"), b"raid")),
            Record(key, value.replace(b'Z","event_type"', b'","event_type"')),
            Record(key, value.replace(f'"{event.user_id}"'.encode("ascii"), b"NaN")),
            Record(key, value.replace(f'"{event.user_id}"'.encode("ascii"), b'""')),
            Record(b"another-" + key, value),
            Record(key, future),
        )
        return forms[int(self._random.random() * len(forms))]
