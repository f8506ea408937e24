"""What a batch changes in the tables."""

from dataclasses import dataclass, field
from typing import Final, NamedTuple

#: Length of a window in microseconds.
WINDOW_US: Final = 60 * 1_000_000


class MetricRow(NamedTuple):
    """One row of ``stream_metrics_minute``; ``window`` in minutes since the epoch, ``donations_cents`` in cents."""

    window: int
    stream_id: str
    chat_messages: int
    donations: int
    donations_cents: int
    joins: int
    leaves: int
    unique_viewers: int
    active_viewers: int


class WindowRange(NamedTuple):
    """Windows ``first`` to ``last`` (both included) of one stream, in minutes since the epoch."""

    stream_id: str
    first: int
    last: int


class PresenceRow(NamedTuple):
    """One row of ``stream_presence``; times in microseconds since the epoch, ``own_clock_us`` for internal streams."""

    stream_id: str
    active_viewers: int
    own_clock_us: int | None
    last_event_us: int


@dataclass(slots=True)
class Changes:
    """The changed rows of a batch. Rows are absolute values, so writing them twice does no harm."""

    event_clock_us: int | None
    rows: list[MetricRow] = field(default_factory=list)
    cleared: list[WindowRange] = field(default_factory=list)
    presences: list[PresenceRow] = field(default_factory=list)
    accepted: int = 0
    duplicates: int = 0
