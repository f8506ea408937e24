"""What records that a partition's log no longer has can have changed. The oracle bounds it in the same way."""

from dataclasses import dataclass, field

from streampulse.events import ALLOWED_LATENESS_US, is_internal
from streampulse.job.counting.changes import WINDOW_US
from streampulse.job.rows import Slice


@dataclass
class Gap:
    """The missing records of one partition. Times are microseconds since the epoch.

    ``bound_us`` is an upper bound of their times, None where nothing tells. ``complete_before_us``: no record from
    before this time is missing; None where the log's beginning is. ``newest_us`` is the newest time of an event whose
    outcome may depend on them. ``uncertain`` has the offsets of such events: the first, and the one after the last.
    """

    bound_us: int | None
    complete_before_us: int | None
    newest_us: int = 0
    uncertain: list[tuple[int, int | None]] = field(default_factory=list)

    def note(self, piece: Slice, clock_us: int | None) -> None:
        """Take note of a slice.

        :param clock_us: the partition's clock before it.
        """
        if self.bound_us is None or not self.uncertain or self.uncertain[-1][1] is not None:
            return
        rows = piece.rows
        internal = [is_internal(rows.streams[stream]) for stream, _ in rows.viewers]
        for row, (ts, viewer) in enumerate(zip(rows.ts_us, rows.viewer, strict=True)):
            if clock_us is not None and clock_us - self.bound_us > ALLOWED_LATENESS_US:
                self.uncertain[-1] = (self.uncertain[-1][0], rows.offset[row])
                return
            self.newest_us = max(self.newest_us, ts)
            if not internal[viewer] and (clock_us is None or ts > clock_us):
                clock_us = ts

    def begin(self, offset: int, bound_us: int | None) -> None:
        """Take note of records that are missing before an offset."""
        known = [each for each in (self.bound_us, bound_us) if each is not None]
        self.bound_us = max(known, default=None)
        self.uncertain.append((offset, None))

    def is_certain(self, offset: int) -> bool:
        """Tell whether the outcome of a record does not depend on the missing ones."""
        return not any(first <= offset and (end is None or offset < end) for first, end in self.uncertain)

    def certain_from_us(self) -> int | None:
        """Return the begin of the first window whose counts do not depend on the missing records; None: no window."""
        if self.bound_us is None:
            return None
        return (max(self.bound_us, self.newest_us) // WINDOW_US + 1) * WINDOW_US

    def clock_is_certain(self, clock_us: int | None) -> bool:
        """Tell whether no missing record can have moved the clock further."""
        return self.bound_us is not None and clock_us is not None and clock_us >= self.bound_us
