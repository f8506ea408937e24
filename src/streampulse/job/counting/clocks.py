"""The clocks that decide which windows have rows: the event clock, and the own clock of each internal stream."""

from typing import Final

from streampulse.job.counting.changes import WINDOW_US

#: For how much event time the state of internal streams is kept, in microseconds.
INTERNAL_HORIZON_US: Final = 86_400 * 1_000_000


class Clocks:
    """All times in microseconds since the epoch.

    ``event`` is the newest clock of all partitions, None before the first ordinary event. ``own`` has the newest time
    of each internal stream. ``newest`` is the newest of all of them, 0 before the first event.
    """

    __slots__ = ("event", "newest", "own")

    def __init__(self, event_us: int | None = None, own_us: dict[str, int] | None = None) -> None:
        self.event = event_us
        self.own = dict(own_us or {})
        self.newest = max(event_us or 0, *self.own.values(), 0)

    def move_event(self, ts: int) -> None:
        """Move the event clock to a partition's clock, if that is newer."""
        self.newest = max(self.newest, ts)
        if self.event is None or ts > self.event:
            self.event = ts

    def move_own(self, stream_id: str, ts: int) -> bool:
        """Move the clock of an internal stream if the time is newer, and tell whether it was."""
        if ts <= self.own.get(stream_id, -1):
            return False
        self.own[stream_id] = ts
        self.newest = max(self.newest, ts)
        return True

    def window_of(self, stream_id: str) -> int | None:
        """Return the newest window that has rows of a stream, None where no clock says so."""
        own = self.own.get(stream_id)
        clock = self.event if own is None or (self.event is not None and self.event > own) else own
        return None if clock is None else clock // WINDOW_US

    def horizon(self) -> int:
        """Return the first window for which the state of internal streams is kept."""
        return (self.newest - INTERNAL_HORIZON_US) // WINDOW_US
