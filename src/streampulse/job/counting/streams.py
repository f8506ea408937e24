"""The working state of one stream and of its viewers, and the rows that follow from it."""

from bisect import bisect_left

from streampulse.events import is_internal
from streampulse.job.counting.changes import WINDOW_US, Changes, WindowRange
from streampulse.job.counting.presence import Mark, Span
from streampulse.job.counting.windows import WindowCounts, metric_row


class Viewer:
    """A user on a stream: the settled past, the unsettled events that matter (:mod:`.presence`), and the present."""

    __slots__ = (
        "before", "expires_minute", "joins", "last", "leaves", "settled", "settled_until", "starts", "stream", "times",
        "user",
    )  # fmt: skip

    def __init__(self, stream: "Stream", user: str) -> None:
        self.stream = stream
        self.user = user
        # Time of the last event before the fold, while present there; None: absent.
        self.settled: int | None = None
        # The window in which the settled past is looked at next; None: nothing is settled.
        self.settled_until: int | None = None
        self.times: list[int] = []
        self.joins: list[Mark] = []
        self.leaves: list[Mark] = []
        # Windows that hold nothing but starts of the stream: there the viewer does not count as unique.
        self.starts: set[int] | None = None
        # Time of the last event while present after all events; None: absent.
        self.last: int | None = None
        # The presences before the batch, while they are marked to be recomputed after it; otherwise None.
        self.before: list[Span] | None = None
        # Minute in which the time-out is looked at, while the stream counts the viewer as present; None: not counted.
        self.expires_minute: int | None = None

    def has_events_in(self, start: int) -> bool:
        """Tell whether there are events in the window that begins at this time."""
        position = bisect_left(self.times, start)
        return position < len(self.times) and self.times[position] < start + WINDOW_US


class Stream:
    """A stream: its viewers, its unsettled windows, and what the tables hold of it."""

    __slots__ = (
        "active_before_fold", "differences", "dirty_from", "dirty_windows", "emitted", "group", "internal",
        "last_event", "now", "own_clock", "present", "recount_all", "seen", "stops", "stream_id", "viewers", "windows",
        "written",
    )  # fmt: skip

    def __init__(self, stream_id: str, group: "SettledGroup", emitted: int | None) -> None:
        self.stream_id = stream_id
        self.group = group
        self.internal = is_internal(stream_id)
        self.viewers: dict[str, Viewer] = {}
        # The viewers who are present after all events, without those that are marked to be recounted.
        self.present: dict[Viewer, None] = {}
        # Whether all viewers are marked to be recounted after the batch.
        self.recount_all = False
        # The accepted ids that a duplicate could still meet, with their window: one number that all ids of a window
        # share. Their times would be an object for each.
        self.seen: dict[bytes, int] = {}
        # The newest stop of each unsettled window that has one, in order.
        self.stops: list[Mark] = []
        self.windows: dict[int, WindowCounts] = {}
        # Change of the number of active viewers, by window from the fold on; windows without a change are absent.
        self.differences: dict[int, int] = {}
        self.active_before_fold = 0
        # The tables hold everything up to this window, and it has no later row that they hold; None: nothing was ever
        # written.
        self.emitted = emitted
        self.dirty_windows: set[int] = set()
        # All windows from this one on have to be written again.
        self.dirty_from: int | None = None
        # Viewers present just after the event clock.
        self.now = 0
        # What the tables hold of the stream's state, see Engine.state_row; None: nothing.
        self.written: tuple[int, int | None, int] | None = None
        self.own_clock: int | None = None
        self.last_event = 0

    def shift(self, window: int, by: int) -> None:
        """Change the number of active viewers from a window on."""
        differences = self.differences
        held = differences.get(window)
        if held is None:
            differences[window] = by
            self.group.unsettled.setdefault(window, {})[self] = None
            self.group.watched[self] = None
        elif held + by:
            differences[window] = held + by
        else:
            del differences[window]
            if window not in self.windows:
                self.group.unsettled[window].pop(self, None)
        if (self.emitted is None or window <= self.emitted) and (self.dirty_from is None or window < self.dirty_from):
            self.dirty_from = window

    def counts(self, window: int) -> WindowCounts:
        """Return the counts of an unsettled window, new ones where it had no event."""
        counts = self.windows.get(window)
        if counts is None:
            counts = self.windows[window] = WindowCounts(window)
            self.group.unsettled.setdefault(window, {})[self] = None
        return counts

    def is_empty(self) -> bool:
        """Tell whether nothing of the stream has to be kept."""
        return not self.viewers and not self.windows and not self.differences and not self.stops

    def mark_clean(self) -> None:
        """Take note that the tables hold all counts."""
        for window in self.dirty_windows:
            self.windows[window].changed = False
        self.dirty_windows.clear()
        self.dirty_from = None

    def write_rows(self, newest: int, changes: Changes) -> None:
        """Add the rows that differ from the tables, up to the window ``newest``."""
        emitted, dirty_from = self.emitted, self.dirty_from
        starts = [] if dirty_from is None else [dirty_from]
        if self.dirty_windows:
            starts.append(min(self.dirty_windows))
        if emitted is not None and emitted < newest:
            starts.append(emitted + 1)
        if not starts:
            return
        first = min(starts)
        active = self.active_before_fold + sum(by for window, by in self.differences.items() if window < first)
        # Between two windows in which something happens the number of viewers does not change.
        marks = sorted(
            {first, newest + 1}
            | {w for w in self.differences if first <= w <= newest}
            | {w for w in self.windows if first <= w <= newest}
            | {w + 1 for w in self.windows if first <= w < newest}
            | ({emitted + 1} if emitted is not None and first <= emitted < newest else set())
        )
        for position, window in enumerate(marks[:-1]):
            active += self.differences.get(window, 0)
            until = marks[position + 1] - 1
            if active or window in self.windows:
                self._write_range(window, until, active, changes)
            elif emitted is not None and window <= emitted and dirty_from is not None and until >= dirty_from:
                changes.cleared.append(WindowRange(self.stream_id, max(window, dirty_from), until))
        self.emitted = newest
        self.mark_clean()

    def _write_range(self, first: int, last: int, active: int, changes: Changes) -> None:
        emitted, dirty_from = self.emitted, self.dirty_from
        for window in range(first, last + 1):
            if (
                window in self.dirty_windows
                or (dirty_from is not None and window >= dirty_from)
                or emitted is None
                or window > emitted
            ):
                changes.rows.append(metric_row(window, self.stream_id, self.windows.get(window), active))


class SettledGroup:
    """Streams of one partition that are settled up to the same window, the fold."""

    __slots__ = ("expiry", "fold", "streams", "unsettled", "watched")

    def __init__(self) -> None:
        self.fold: int | None = None
        self.streams: dict[str, Stream] = {}
        # By window the streams with counts or a difference in it: a move of the fold visits only these.
        self.unsettled: dict[int, dict[Stream, None]] = {}
        # All streams with differences, and some that had them. Without differences nobody is present at the end of any
        # unsettled window, so a move of the event clock to another minute visits only these.
        self.watched: dict[Stream, None] = {}
        # By window the viewers whose settled past may run out in it.
        self.expiry: dict[int, dict[Viewer, None]] = {}

    def remove(self, stream: Stream) -> None:
        """Forget a stream and everything that was kept of it."""
        del self.streams[stream.stream_id]
        self.watched.pop(stream, None)
        for window in stream.windows.keys() | stream.differences.keys():
            self.unsettled[window].pop(stream, None)


class Partition:
    """A Kafka partition: its position, its clock in microseconds since the epoch, and its streams."""

    __slots__ = ("clock", "internal", "next_offset", "number", "ordinary")

    def __init__(self, number: int) -> None:
        self.number = number
        self.next_offset = 0
        self.clock: int | None = None
        self.ordinary = SettledGroup()
        # Internal streams go on where the partition's clock stands still, or where it never had one.
        self.internal = SettledGroup()

    def groups(self) -> tuple[SettledGroup, SettledGroup]:
        """Return the ordinary and the internal streams."""
        return self.ordinary, self.internal
