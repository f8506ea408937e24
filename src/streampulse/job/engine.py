"""The counting: from accepted events to the rows of the tables, incrementally.

Pure: events in, changed rows out, no clock but the events' own, no I/O. What it computes is defined in
``docs/semantics.md``; ``streampulse.oracle`` computes the same from scratch.

How it keeps the cost of a batch proportional to the batch:

- Time is cut into minute *windows*, numbered by minutes since the epoch. For each Kafka partition everything before
  the *fold* (the window of the partition's clock minus the allowed lateness) is settled: no event can arrive there any
  more, so each viewer's past is folded into one number, the time of their last event while present.
- A stream's ``active_viewers`` over time is kept as differences: +1 in the window in which a presence begins, -1 in the
  window in which it no longer counts. An event changes at most two entries; the rows are prefix sums.
- Of a viewer's events in one window only a few numbers can matter (see :class:`_Viewer`), and of a stream's stops in
  one window only the newest. An event that is newer than all of its viewer's (nearly every one) is applied to the tail.
  Where one is not, the presences of that viewer, or of the stream's viewers for a stop, are computed anew: once for a
  batch, from those few numbers, however many events there were.

State is bounded by the events of the last ten minutes of event time, the viewers present, and the streams they watch.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from struct import iter_unpack
from typing import Final, NamedTuple

from streampulse.events import ALLOWED_LATENESS_US, is_internal
from streampulse.job.rows import (
    CHAT_MESSAGE,
    DONATION,
    EVENT_ID_BYTES,
    STREAM_START,
    STREAM_STOP,
    TYPE_CODES,
    VIEWER_JOIN,
    VIEWER_LEAVE,
    Rows,
)

#: Length of a window in microseconds.
WINDOW_US: Final = 60 * 1_000_000
#: How long the state of our own streams is kept up, in microseconds of event time: see ``Engine``.
INTERNAL_HORIZON_US: Final = 86_400 * 1_000_000
#: How far behind ``Presence.last_event_us`` may be in the table, in microseconds.
LAST_EVENT_RESOLUTION_US: Final = 3_600 * 1_000_000


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


class Presence(NamedTuple):
    """One row of ``stream_presence``; times in microseconds since the epoch, ``own_clock_us`` for our own streams."""

    stream_id: str
    active_viewers: int
    own_clock_us: int | None
    last_event_us: int


@dataclass(slots=True)
class Changes:
    """What a batch changes in the tables. Rows are absolute values, so writing them twice does no harm."""

    event_clock_us: int | None
    rows: list[MetricRow] = field(default_factory=list)
    cleared: list[WindowRange] = field(default_factory=list)
    presences: list[Presence] = field(default_factory=list)
    accepted: int = 0
    duplicates: int = 0


# A join, leave or stop in the order of the contract: (ts, event_id).
_Mark = tuple[int, bytes]
_NEVER: Final[_Mark] = (-1, b"")
# A presence as windows [start, end); start None: since before the fold.
_Span = tuple[int | None, int]


class _Viewer:
    """A user on a stream: the settled past, what matters of the unsettled events, and how it stands after all of them.

    The viewer time-out is never shorter than a window, so it cannot pass between two events of one window. Whether the
    viewer is present when a window ends then follows from the window's newest join, leave and stop: the newest of them
    decides; without any, the first event tells whether the time-out had passed before it. While present, the newest
    event is the one that the time-out runs from. All other events of the window can be forgotten.
    """

    __slots__ = ("before", "due", "expires", "joins", "last", "leaves", "settled", "starts", "stream", "times", "user")

    def __init__(self, stream: _Stream, user: str) -> None:
        self.stream = stream
        self.user = user
        # Time of the last event before the fold, while present there; None: absent.
        self.settled: int | None = None
        # For each unsettled window with events of this viewer the times of the first and of the newest, in order.
        self.times: list[int] = []
        # For each unsettled window that has one the newest join, and the newest leave, in order.
        self.joins: list[_Mark] = []
        self.leaves: list[_Mark] = []
        # Windows that hold nothing but starts of the stream: there the viewer does not count as unique.
        self.starts: set[int] | None = None
        # Time of the last event while present after all events; None: absent.
        self.last: int | None = None
        # The presences before the batch while they have to be computed anew after it, otherwise None.
        self.before: list[_Span] | None = None
        # Minute in which it is looked at whether the time-out has passed, while counted as present; None: not counted.
        self.due: int | None = None
        # Window in which the settled past runs out, None: nothing settled.
        self.expires: int | None = None

    def knows(self, start: int) -> bool:
        """Tell whether there are events in the window that begins at this time."""
        position = bisect_left(self.times, start)
        return position < len(self.times) and self.times[position] < start + WINDOW_US


class _Counters:
    """The counts of one unsettled window of a stream, and what is to be settled with it."""

    __slots__ = ("_exact", "by_type", "cents", "changed", "events", "ids", "times", "unique", "viewers", "window")

    def __init__(self, window: int) -> None:
        self.window = window
        # How many events there are of each type, by its code.
        self.by_type = [0] * len(TYPE_CODES)
        self.cents = self.unique = 0
        self.changed = False
        # The accepted ids, and the time of each.
        self.ids: list[bytes] = []
        self.times = array("q")
        self._exact: dict[bytes, int] = {}
        # Of our own streams only: what a snapshot needs of each event: user, time, id, code, cents.
        self.events: list[tuple[str, int, bytes, int, int]] = []
        self.viewers: list[_Viewer] = []

    def time_of(self, event_id: bytes) -> int:
        """Return the time of an accepted id. The first question costs a look at each, the following ones do not."""
        known = len(self._exact)
        if known < len(self.ids):
            self._exact.update(zip(self.ids[known:], self.times[known:], strict=True))
        return self._exact[event_id]


class _Stream:
    __slots__ = (
        "active_before_fold",
        "differences",
        "dirty_from",
        "dirty_windows",
        "disturbed",
        "emitted",
        "internal",
        "last_event",
        "now",
        "own_clock",
        "present",
        "seen",
        "shelf",
        "stops",
        "stream_id",
        "viewers",
        "windows",
        "written",
    )

    def __init__(self, stream_id: str, shelf: _Shelf, emitted: int | None) -> None:
        self.stream_id = stream_id
        self.shelf = shelf
        self.internal = is_internal(stream_id)
        self.viewers: dict[str, _Viewer] = {}
        # Those of them who are present after all events, but for those whose presences are to be computed anew.
        self.present: dict[_Viewer, None] = {}
        # Whether all viewers' presences are to be computed anew after the batch.
        self.disturbed = False
        # The ids of the accepted events that a duplicate could still meet, with their window: one number, shared by all
        # ids of a window, where the time would be an object for each.
        self.seen: dict[bytes, int] = {}
        # The newest stop of each unsettled window that has one, in order.
        self.stops: list[_Mark] = []
        self.windows: dict[int, _Counters] = {}
        self.differences: dict[int, int] = {}
        self.active_before_fold = 0
        # The newest window that the tables hold everything up to; None: nothing was ever written.
        self.emitted = emitted
        self.dirty_windows: set[int] = set()
        self.dirty_from: int | None = None
        self.now = 0
        self.written: tuple[int, int | None, int] | None = None
        self.own_clock: int | None = None
        self.last_event = 0

    def change(self, window: int, by: int) -> None:
        differences = self.differences
        total = differences.get(window, 0) + by
        if total:
            differences[window] = total
        else:
            differences.pop(window, None)

    def clean_windows(self) -> None:
        for window in self.dirty_windows:
            self.windows[window].changed = False
        self.dirty_windows.clear()

    def dirty_at(self, window: int) -> None:
        if self.dirty_from is None or window < self.dirty_from:
            self.dirty_from = window


class _Shelf:
    """Streams of one partition that are settled up to the same window, the fold."""

    __slots__ = ("expiry", "fold", "streams")

    def __init__(self) -> None:
        self.fold: int | None = None
        self.streams: dict[str, _Stream] = {}
        self.expiry: dict[int, dict[_Viewer, None]] = {}


class _Partition:
    __slots__ = ("clock", "internal", "next_offset", "number", "ordinary")

    def __init__(self, number: int) -> None:
        self.number = number
        self.next_offset = 0
        self.clock: int | None = None
        self.ordinary = _Shelf()
        # Our own streams, which may go on where the partition's clock does not, or never had one.
        self.internal = _Shelf()

    def streams(self) -> Iterator[_Stream]:
        yield from self.ordinary.streams.values()
        yield from self.internal.streams.values()

    def shelf_of(self, stream_id: str) -> _Shelf:
        return self.internal if is_internal(stream_id) else self.ordinary


@dataclass(slots=True)
class PartitionSnapshot:
    """A partition's settled state: who is present at the fold, by stream and user, with the time of the last event.

    Our own streams have a fold of their own, and their unsettled events are part of the snapshot, as encoded rows.
    """

    number: int
    next_offset: int
    clock_us: int | None
    fold: int | None
    present: dict[str, dict[str, int]]
    internal_fold: int | None = None
    internal: bytes | None = None


@dataclass(slots=True)
class Snapshot:
    """The settled state of all partitions, and the clocks of our own streams, in microseconds since the epoch."""

    event_clock_us: int | None
    own_clocks_us: dict[str, int]
    partitions: list[PartitionSnapshot]


class Engine:
    """The working state of the counting, and the one way to change it: :meth:`apply`.

    Our own streams (``__``) are kept up for a day of event time, :data:`INTERNAL_HORIZON_US`, before the newest time
    of all: that of the event clock and of their own clocks. They move no clock that would settle them, so what is older
    is settled by this. An event of theirs from before is accepted and changes nothing, its id is not remembered, and a
    stream of theirs without any event since is dropped, with nobody present.

    :param viewer_timeout_us: after this long without an event a viewer is no longer present, in microseconds; a minute
        at least.
    :raises ValueError: the time-out is shorter.
    """

    def __init__(self, viewer_timeout_us: int) -> None:
        if viewer_timeout_us < WINDOW_US:
            raise ValueError("the viewer time-out is shorter than a window")
        self._timeout = viewer_timeout_us
        self._partitions: dict[int, _Partition] = {}
        self._event_clock: int | None = None
        self._own_clocks: dict[str, int] = {}
        # The newest time of all clocks, and the window of the horizon of our own streams that was last looked at.
        self._newest = 0
        self._horizon = 0
        # By minute, the viewers whose time may run out in it: checked against the viewer's own last event.
        self._due: dict[int, dict[_Viewer, None]] = {}
        self._touched: set[_Stream] = set()
        self._disturbed: list[_Viewer] = []

    # -- what the driver asks -----------------------------------------------------------------------------------

    @property
    def event_clock_us(self) -> int | None:
        """The newest clock of all partitions in microseconds since the epoch; None before the first ordinary event."""
        return self._event_clock

    def clocks(self) -> dict[int, int]:
        """Return each partition's clock in microseconds since the epoch; a partition without one is absent."""
        return {p.number: p.clock for p in self._partitions.values() if p.clock is not None}

    def next_offsets(self) -> dict[int, int]:
        """Return, for each partition seen, the offset after the last record that was applied."""
        return {p.number: p.next_offset for p in self._partitions.values()}

    def size(self) -> dict[str, int]:
        """Return how much is held: streams, viewers, and ids kept to know duplicates."""
        streams = list(self._streams())
        return {
            "streams": len(streams),
            "viewers": sum(len(stream.viewers) for stream in streams),
            "event_ids": sum(len(stream.seen) for stream in streams),
        }

    def go_back(self, number: int, offset: int) -> None:
        """Take a partition's records from an offset again: its log lost what stood there. What was counted stays."""
        self._partition(number).next_offset = offset

    # -- a batch ------------------------------------------------------------------------------------------------

    def apply(self, slices: Iterable[tuple[Rows, int]]) -> tuple[Changes, list[Rows]]:
        """Take a batch's events and return what changes in the tables, and the accepted events as columns.

        :param slices: for each partition its events in offset order, none of them late, with the offset after the
            slice's last record. Events below the partition's next offset were applied before and are passed over.
        """
        changes = Changes(None)
        accepted = []
        for rows, next_offset in slices:
            accepted.append(self._accept(rows, changes))
            partition = self._partition(rows.partition)
            partition.next_offset = max(partition.next_offset, next_offset)
        changes.event_clock_us = self._event_clock
        self._calm()
        self._expire_now()
        self._emit(changes)
        self._drop_idle(changes)
        for partition in self._partitions.values():
            self._fold(partition)
        return changes, accepted

    def _partition(self, number: int) -> _Partition:
        partition = self._partitions.get(number)
        if partition is None:
            partition = self._partitions[number] = _Partition(number)
        return partition

    def _streams(self) -> Iterator[_Stream]:
        for partition in self._partitions.values():
            yield from partition.streams()

    def _stream(self, partition: _Partition, stream_id: str) -> _Stream:
        shelf = partition.shelf_of(stream_id)
        stream = shelf.streams.get(stream_id)
        if stream is None:
            stream = shelf.streams[stream_id] = _Stream(stream_id, shelf, self._emitted_window(stream_id))
            stream.own_clock = self._own_clocks.get(stream_id)
        return stream

    def _emitted_window(self, stream_id: str) -> int | None:
        clock = self._clock_for(stream_id)
        return None if clock is None else clock // WINDOW_US

    def _clock_for(self, stream_id: str) -> int | None:
        own = self._own_clocks.get(stream_id)
        if own is None or (self._event_clock is not None and self._event_clock > own):
            return self._event_clock
        return own

    def _accept(self, rows: Rows, changes: Changes) -> Rows:
        partition = self._partition(rows.partition)
        streams = [self._stream(partition, stream_id) for stream_id in rows.streams]
        viewers = [self._viewer(streams[stream], user) for stream, user in rows.viewers]
        clock = partition.clock
        kept_up = (partition.internal.fold or 0) * WINDOW_US
        # Their offsets ascend: what was applied before is at the beginning.
        applied = bisect_left(rows.offset, partition.next_offset)
        refused = list(range(applied))
        own_clocks: dict[str, int] = {}
        # This loop and what it calls is where the driver's time goes.
        count = self._count
        columns = (rows.ts_us, rows.viewer, rows.code, rows.cents)
        event_ids = iter_unpack(f"{EVENT_ID_BYTES}s", rows.event_ids)
        for row, (ts, viewer_index, code, cents, (event_id,)) in islice(
            enumerate(zip(*columns, event_ids, strict=True)), applied, None
        ):
            viewer = viewers[viewer_index]
            stream = viewer.stream
            duplicate = event_id in stream.seen and _meets(stream, event_id, clock)
            # The clock moves for a duplicate too: it passed the tests of validity and arrival.
            if stream.internal:
                if ts >= kept_up and self._move_own_clock(stream.stream_id, ts, stream) and duplicate:
                    own_clocks[stream.stream_id] = ts
            elif clock is None or ts > clock:
                clock = ts
            if duplicate:
                refused.append(row)
                changes.duplicates += 1
            elif ts < kept_up and stream.internal:
                refused.append(row)
                changes.accepted += 1
            else:
                count(viewer, ts, event_id, code, cents)
        changes.accepted += len(rows) - len(refused)
        if clock is not None:
            partition.clock = clock
            self._newest = max(self._newest, clock)
            if self._event_clock is None or clock > self._event_clock:
                self._event_clock = clock
        self._forget_unused(streams, viewers)
        return _without(rows, refused, own_clocks) if refused else rows

    def _move_own_clock(self, stream_id: str, ts: int, stream: _Stream | None) -> bool:
        """Move the clock of one of our own streams if the time is newer, and tell whether it was."""
        if ts <= self._own_clocks.get(stream_id, -1):
            return False
        self._own_clocks[stream_id] = ts
        self._newest = max(self._newest, ts)
        if stream is not None:
            stream.own_clock = ts
            self._touched.add(stream)
        return True

    def _viewer(self, stream: _Stream, user: str) -> _Viewer:
        viewer = stream.viewers.get(user)
        if viewer is None:
            viewer = stream.viewers[user] = _Viewer(stream, user)
            if stream.disturbed:
                self._disturb(viewer)
        return viewer

    def _forget_unused(self, streams: list[_Stream], viewers: list[_Viewer]) -> None:
        # A viewer all of whose events were duplicates of settled ones has nothing to remember.
        for viewer in viewers:
            if viewer.settled is None and not viewer.times and viewer.stream.viewers.get(viewer.user) is viewer:
                del viewer.stream.viewers[viewer.user]
        for stream in streams:
            self._drop_if_empty(stream)

    def _drop_if_empty(self, stream: _Stream) -> None:
        if (
            not stream.viewers
            and not stream.windows
            and not stream.differences
            and not stream.stops
            and stream not in self._touched
        ):
            stream.shelf.streams.pop(stream.stream_id, None)

    # -- one event ----------------------------------------------------------------------------------------------

    def _count(self, viewer: _Viewer, ts: int, event_id: bytes, code: int, cents: int) -> None:
        stream = viewer.stream
        window = ts // WINDOW_US
        counters = stream.windows.get(window)
        if counters is None:
            counters = stream.windows[window] = _Counters(window)
        stream.seen[event_id] = counters.window
        counters.ids.append(event_id)
        counters.times.append(ts)
        if not counters.changed:
            counters.changed = True
            stream.dirty_windows.add(window)
            self._touched.add(stream)
        if stream.internal:
            counters.events.append((viewer.user, ts, event_id, code, cents))
        counters.by_type[code] += 1
        counters.cents += cents
        if code == STREAM_STOP:
            self._stop(stream, window, (ts, event_id))
            return
        times = viewer.times
        newest = times[-1] if times else -1
        if ts > newest:
            self._append(viewer, counters, window, newest, ts, event_id, code)
        else:
            self._notice(viewer, counters, window, viewer.knows(window * WINDOW_US), code)
            self._place(viewer, window * WINDOW_US, ts, event_id, code)

    def _append(
        self, viewer: _Viewer, counters: _Counters, window: int, newest: int, ts: int, event_id: bytes, code: int
    ) -> None:
        """Take note of an event that is newer than all of its viewer's, the newest of which was at ``newest``."""
        stream, times, start = viewer.stream, viewer.times, window * WINDOW_US
        if ts > stream.last_event:
            stream.last_event = ts
        if newest < start or viewer.starts is not None or code == STREAM_START:
            self._notice(viewer, counters, window, newest >= start, code)
        if viewer.before is None:
            stops = stream.stops
            if not stops or ts > stops[-1][0]:
                self._go_on(viewer, ts, code)
            else:
                self._disturb(viewer)
        if newest >= start and len(times) > 1 and times[-2] >= start:
            times[-1] = ts
        else:
            times.append(ts)
        if code == VIEWER_JOIN:
            _insert_mark(viewer.joins, start, (ts, event_id))
        elif code == VIEWER_LEAVE:
            _insert_mark(viewer.leaves, start, (ts, event_id))

    def _notice(self, viewer: _Viewer, counters: _Counters, window: int, known: bool, code: int) -> None:
        """Count the viewer as unique, once in a window, and have them settled with it.

        :param known: whether the viewer has events in the window already.
        """
        if known:
            if code == STREAM_START or viewer.starts is None or window not in viewer.starts:
                return
            viewer.starts.remove(window)
        else:
            counters.viewers.append(viewer)
            if code == STREAM_START:
                viewer.starts = viewer.starts or set()
                viewer.starts.add(window)
                return
        counters.unique += 1

    def _place(self, viewer: _Viewer, start: int, ts: int, event_id: bytes, code: int) -> None:
        """Take note of an event that is not newer than all of its viewer's.

        :param start: when the event's window begins.
        """
        if viewer.before is None and self._matters(viewer, start, ts, event_id, code):
            self._disturb(viewer)
        _insert_time(viewer.times, start, ts)
        if code == VIEWER_JOIN:
            _insert_mark(viewer.joins, start, (ts, event_id))
        elif code == VIEWER_LEAVE:
            _insert_mark(viewer.leaves, start, (ts, event_id))

    def _matters(self, viewer: _Viewer, start: int, ts: int, event_id: bytes, code: int) -> bool:
        """Tell whether an event that is not the viewer's newest may change what is known of its window."""
        first, end = _within(viewer.times, start)
        if first == end or ts < viewer.times[first] or ts > viewer.times[end - 1]:
            return True
        if code in (VIEWER_JOIN, VIEWER_LEAVE):
            mark = _mark_within(viewer.joins if code == VIEWER_JOIN else viewer.leaves, start)
            return mark is None or mark < (ts, event_id)
        return False

    def _go_on(self, viewer: _Viewer, ts: int, code: int) -> None:
        """Apply an event that comes after everything else of its viewer and after all stops."""
        stream, timeout, last = viewer.stream, self._timeout, viewer.last
        if last is None or ts - last >= timeout:
            if code != VIEWER_JOIN:
                if last is not None:
                    self._stand(viewer, None)
                return
            self._shift(stream, ts // WINDOW_US, 1)
            self._shift(stream, (ts + timeout - 1) // WINDOW_US, -1)
            last = ts
        elif code == VIEWER_LEAVE:
            self._shift(stream, (last + timeout - 1) // WINDOW_US, 1)
            self._shift(stream, ts // WINDOW_US, -1)
            last = None
        else:
            ended, ends = (last + timeout - 1) // WINDOW_US, (ts + timeout - 1) // WINDOW_US
            if ended != ends:
                self._shift(stream, ended, 1)
                self._shift(stream, ends, -1)
            last = ts
            if viewer.due is not None:
                viewer.last = ts
                return
        self._stand(viewer, last)

    def _shift(self, stream: _Stream, window: int, by: int) -> None:
        stream.change(window, by)
        if stream.emitted is None or window <= stream.emitted:
            stream.dirty_at(window)

    def _stop(self, stream: _Stream, window: int, stop: _Mark) -> None:
        ts, newest = stop[0], stream.last_event
        stream.last_event = max(newest, ts)
        held = _mark_within(stream.stops, window * WINDOW_US)
        if held is not None and held > stop:
            return
        if ts > newest:
            for viewer in list(stream.present):
                last = viewer.last
                if last is not None and ts - last < self._timeout:
                    self._shift(stream, (last + self._timeout - 1) // WINDOW_US, 1)
                    self._shift(stream, window, -1)
                self._stand(viewer, None)
        elif not stream.disturbed:
            stream.disturbed = True
            for viewer in stream.viewers.values():
                self._disturb(viewer)
        _insert_mark(stream.stops, window * WINDOW_US, stop)

    # -- presences that are computed anew ---------------------------------------------------------------------------

    def _disturb(self, viewer: _Viewer) -> None:
        """Have the viewer's presences computed anew after the batch, and keep what they were until now."""
        if viewer.before is None:
            viewer.before = []
            self._walk(viewer, None, viewer.before)
            self._disturbed.append(viewer)
            viewer.stream.present.pop(viewer, None)

    def _calm(self) -> None:
        """Put the presences as they are now in the place of those before, as differences."""
        for viewer in self._disturbed:
            stream, before, after = viewer.stream, viewer.before or [], list[_Span]()
            last = self._walk(viewer, None, after)
            viewer.before = None
            stream.disturbed = False
            if before != after:
                for sign, spans in ((-1, before), (1, after)):
                    for start, end in spans:
                        if start is not None:
                            self._shift(stream, start, sign)
                        self._shift(stream, end, -sign)
            self._stand(viewer, last)
        self._disturbed.clear()

    def _walk(self, viewer: _Viewer, until: int | None, spans: list[_Span] | None) -> int | None:
        """Go through the windows in which the viewer has events, and the stops between them, in order.

        :param until: only what is before this time, the beginning of a window; None: everything.
        :param spans: the presences are appended here.
        :returns: the time of the last event while present after them all (the time-out may have passed since), or None.
        """
        timeout, stops = self._timeout, viewer.stream.stops
        spans = [] if spans is None else spans
        last, start, passed = viewer.settled, None, 0
        for window, first, newest, joined, ended in _windows(viewer, until):
            begins = window * WINDOW_US
            if last is not None and (stop := _stop_between(stops, passed, begins)) is not None:
                spans.append((start, self._end(last, stop)))
                last = None
            passed = begins + WINDOW_US
            timed_out = last is not None and first - last >= timeout
            if last is not None and (timed_out or (joined is None and ended is not None)):
                spans.append((start, self._end(last, first if timed_out or ended is None else ended)))
                last = None
            if joined is not None:
                start = window if last is None else start
                last = newest
            elif last is not None:
                last = newest
        if last is not None and (stop := _stop_between(stops, passed, until)) is not None:
            spans.append((start, self._end(last, stop)))
            last = None
        if last is not None:
            spans.append((start, (last + timeout - 1) // WINDOW_US))
        return last

    def _end(self, last: int, ts: int) -> int:
        """Return the first window at whose end a presence no longer counts that the time-out or an event ended."""
        return min(ts, last + self._timeout - 1) // WINDOW_US

    # -- who is present just after the clock ----------------------------------------------------------------------

    def _stand(self, viewer: _Viewer, last: int | None) -> None:
        viewer.last = last
        if last is None:
            viewer.stream.present.pop(viewer, None)
        else:
            viewer.stream.present[viewer] = None
        if last is not None and viewer.due is None:
            viewer.stream.now += 1
            self._schedule(viewer, last)
        elif last is None:
            self._uncount(viewer)

    def _schedule(self, viewer: _Viewer, last: int) -> None:
        viewer.due = (last + self._timeout) // WINDOW_US
        self._due.setdefault(viewer.due, {})[viewer] = None

    def _unschedule(self, viewer: _Viewer) -> None:
        if viewer.due is not None:
            bucket = self._due[viewer.due]
            del bucket[viewer]
            if not bucket:
                del self._due[viewer.due]
            viewer.due = None

    def _uncount(self, viewer: _Viewer) -> None:
        if viewer.due is not None:
            viewer.stream.now -= 1
            self._unschedule(viewer)

    def _expire_now(self) -> None:
        """Stop counting the viewers whose time has run out at the event clock."""
        clock = self._event_clock
        if clock is None:
            return
        for minute in [minute for minute in self._due if minute <= clock // WINDOW_US]:
            for viewer in list(self._due[minute]):
                if viewer.last is None or viewer.last + self._timeout <= clock:
                    self._uncount(viewer)
                    self._touched.add(viewer.stream)
                elif (viewer.last + self._timeout) // WINDOW_US != minute:
                    self._unschedule(viewer)
                    self._schedule(viewer, viewer.last)

    def _now(self, stream: _Stream) -> int:
        clock = stream.own_clock
        if clock is None or (self._event_clock is not None and clock <= self._event_clock):
            return stream.now
        # One of our own, ahead of the event clock. Their viewers are few.
        return sum(1 for v in stream.viewers.values() if v.last is not None and clock - v.last < self._timeout)

    # -- rows -----------------------------------------------------------------------------------------------------

    def _emit(self, changes: Changes) -> None:
        window = None if self._event_clock is None else self._event_clock // WINDOW_US
        for stream in self._streams_to_look_at(window):
            self._emit_stream(stream, changes)
            standing = self._standing(stream)
            if standing != stream.written:
                stream.written = standing
                changes.presences.append(Presence(stream.stream_id, standing[0], stream.own_clock, stream.last_event))
        self._touched.clear()

    def _standing(self, stream: _Stream) -> tuple[int, int | None, int]:
        # The time of the last event only serves to drop old streams: it is not written anew for each event.
        return self._now(stream), stream.own_clock, stream.last_event // LAST_EVENT_RESOLUTION_US

    def _streams_to_look_at(self, window: int | None) -> Iterator[_Stream]:
        for stream in self._streams():
            behind = window is not None and (stream.emitted is None or stream.emitted < window)
            if behind or stream in self._touched:
                yield stream

    def _emit_stream(self, stream: _Stream, changes: Changes) -> None:
        clock = self._clock_for(stream.stream_id)
        if clock is None:
            return
        newest = clock // WINDOW_US
        emitted, dirty_from = stream.emitted, stream.dirty_from
        starts = [] if dirty_from is None else [dirty_from]
        if stream.dirty_windows:
            starts.append(min(stream.dirty_windows))
        if emitted is not None and emitted < newest:
            starts.append(emitted + 1)
        if not starts:
            return
        first = min(starts)
        active = stream.active_before_fold + sum(by for window, by in stream.differences.items() if window < first)
        # Between two windows in which something happens the number of viewers does not change.
        marks = sorted(
            {first, newest + 1}
            | {w for w in stream.differences if first <= w <= newest}
            | {w for w in stream.windows if first <= w <= newest}
            | {w + 1 for w in stream.windows if first <= w < newest}
            | ({emitted + 1} if emitted is not None and first <= emitted < newest else set())
        )
        for position, window in enumerate(marks[:-1]):
            active += stream.differences.get(window, 0)
            until = marks[position + 1] - 1
            if active or window in stream.windows:
                self._emit_rows(stream, window, until, active, changes)
            elif (
                emitted is not None
                and window <= emitted
                and stream.dirty_from is not None
                and until >= stream.dirty_from
            ):
                changes.cleared.append(WindowRange(stream.stream_id, max(window, stream.dirty_from), until))
        stream.emitted = newest
        stream.dirty_from = None
        stream.clean_windows()

    def _emit_rows(self, stream: _Stream, first: int, last: int, active: int, changes: Changes) -> None:
        emitted, dirty_from = stream.emitted, stream.dirty_from
        for window in range(first, last + 1):
            counters = stream.windows.get(window)
            if (
                window in stream.dirty_windows
                or (dirty_from is not None and window >= dirty_from)
                or emitted is None
                or window > emitted
            ):
                if counters is None:
                    changes.rows.append(MetricRow(window, stream.stream_id, 0, 0, 0, 0, 0, 0, active))
                else:
                    changes.rows.append(
                        MetricRow(
                            window,
                            stream.stream_id,
                            counters.by_type[CHAT_MESSAGE],
                            counters.by_type[DONATION],
                            counters.cents,
                            counters.by_type[VIEWER_JOIN],
                            counters.by_type[VIEWER_LEAVE],
                            counters.unique,
                            active,
                        )
                    )

    # -- folding --------------------------------------------------------------------------------------------------

    def _fold(self, partition: _Partition) -> None:
        """Settle what no accepted event can reach any more, and of our own streams what is not kept up."""
        fold = 0 if partition.clock is None else (partition.clock - ALLOWED_LATENESS_US) // WINDOW_US
        if partition.clock is not None:
            self._fold_shelf(partition.ordinary, fold)
        fold = max(fold, (self._newest - INTERNAL_HORIZON_US) // WINDOW_US)
        if fold > 0:
            self._fold_shelf(partition.internal, fold)

    def _fold_shelf(self, shelf: _Shelf, fold: int) -> None:
        if shelf.fold is not None and fold <= shelf.fold:
            return
        shelf.fold = fold
        # First, so that no viewer is settled twice with the same stops.
        for stream in shelf.streams.values():
            self._fold_stops(stream, fold)
        for window in [w for w in shelf.expiry if w < fold]:
            for viewer in shelf.expiry.pop(window):
                viewer.expires = None
                self._settle(viewer, fold)
        for stream in list(shelf.streams.values()):
            self._fold_stream(stream, fold)

    def _fold_stops(self, stream: _Stream, fold: int) -> None:
        boundary = fold * WINDOW_US
        if stream.stops and stream.stops[0][0] < boundary:
            for viewer in list(stream.viewers.values()):
                self._settle(viewer, fold)
            del stream.stops[: bisect_left(stream.stops, (boundary,))]

    def _fold_stream(self, stream: _Stream, fold: int) -> None:
        for window in [w for w in stream.windows if w < fold]:
            counters = stream.windows.pop(window)
            for viewer in counters.viewers:
                self._settle(viewer, fold)
            for event_id in counters.ids:
                # The same id may have been accepted again since, with a newer time.
                if stream.seen.get(event_id) == window:
                    del stream.seen[event_id]
        for window in [w for w in stream.differences if w < fold]:
            stream.active_before_fold += stream.differences.pop(window)
        self._drop_if_empty(stream)

    def _settle(self, viewer: _Viewer, fold: int) -> None:
        boundary, stops = fold * WINDOW_US, viewer.stream.stops
        settled = viewer.settled
        if (viewer.times and viewer.times[0] < boundary) or (stops and stops[0][0] < boundary):
            settled = self._walk(viewer, boundary, None)
            del viewer.times[: bisect_left(viewer.times, boundary)]
            for marks in (viewer.joins, viewer.leaves):
                del marks[: bisect_left(marks, (boundary,))]
            if viewer.starts is not None:
                viewer.starts = {window for window in viewer.starts if window >= fold} or None
        if settled is not None and (settled + self._timeout - 1) // WINDOW_US < fold:
            settled = None
        viewer.settled = settled
        if settled is not None:
            self._watch_expiry(viewer, settled)
            return
        if viewer.expires is not None:
            del viewer.stream.shelf.expiry[viewer.expires][viewer]
            viewer.expires = None
        if not viewer.times and viewer.stream.viewers.get(viewer.user) is viewer:
            self._stand(viewer, None)
            del viewer.stream.viewers[viewer.user]

    def _watch_expiry(self, viewer: _Viewer, settled: int) -> None:
        # One entry for each viewer, looked at again when it comes up: events since may have moved the time on.
        if viewer.expires is None:
            viewer.expires = (settled + self._timeout - 1) // WINDOW_US
            viewer.stream.shelf.expiry.setdefault(viewer.expires, {})[viewer] = None

    def _drop_idle(self, changes: Changes) -> None:
        """Forget those of our own streams that had no event for as long as they are kept up."""
        horizon = (self._newest - INTERNAL_HORIZON_US) // WINDOW_US
        if horizon <= self._horizon:
            return
        self._horizon = horizon
        # A stream that has its row in this batch already waits for the next time.
        idle = {stream_id for stream_id, clock in self._own_clocks.items() if clock // WINDOW_US < horizon}
        idle.difference_update([presence.stream_id for presence in changes.presences])
        for partition in self._partitions.values():
            for stream_id in idle.intersection(partition.internal.streams):
                stream = partition.internal.streams.pop(stream_id)
                for viewer in stream.viewers.values():
                    self._stand(viewer, None)
                    if viewer.expires is not None:
                        del partition.internal.expiry[viewer.expires][viewer]
                        viewer.expires = None
                if stream.written is not None and stream.written[0]:
                    changes.presences.append(Presence(stream_id, 0, stream.own_clock, stream.last_event))
        for stream_id in idle:
            del self._own_clocks[stream_id]

    # -- to disk and back -----------------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """Return the settled state. With the accepted events at or after each partition's fold it is all there is.

        Of our own streams no events are needed but those after the snapshot.
        """
        return Snapshot(
            self._event_clock,
            dict(self._own_clocks),
            [
                PartitionSnapshot(
                    p.number,
                    p.next_offset,
                    p.clock,
                    p.ordinary.fold,
                    {
                        stream.stream_id: present
                        for stream in p.streams()
                        if (present := {v.user: v.settled for v in stream.viewers.values() if v.settled is not None})
                    },
                    p.internal.fold,
                    _internal_rows(p).encode(),
                )
                for p in self._partitions.values()
            ],
        )

    @classmethod
    def restore(
        cls,
        viewer_timeout_us: int,
        snapshot: Snapshot,
        before: Iterable[Rows],
        since: Iterable[Rows],
        clocks_us: dict[int, int],
        next_offsets: dict[int, int],
        event_clock_us: int | None,
    ) -> Engine:
        """Rebuild the state from a snapshot and the accepted events kept since.

        :param before: accepted events committed before the snapshot, beginning no later than the first that is at or
            after its partition's fold in it; earlier ones are used to know duplicates, where still needed. Those of our
            own streams are passed over: the snapshot has them.
        :param since: all accepted events committed after the snapshot. Both are in the order of their commits.
        :param clocks_us: each partition's clock now; :param next_offsets: each partition's next offset now;
        :param event_clock_us: the event clock now.
        """
        engine = cls(viewer_timeout_us)
        engine._event_clock = event_clock_us
        engine._own_clocks = dict(snapshot.own_clocks_us)
        engine._newest = max(event_clock_us or 0, *snapshot.own_clocks_us.values(), 0)
        for saved in snapshot.partitions:
            engine._restore_partition(saved)
        for rows in before:
            engine._replay(rows, with_internal=False)
        for rows in since:
            engine._replay(rows)
        for number, offset in next_offsets.items():
            partition = engine._partition(number)
            partition.next_offset = offset
            partition.clock = clocks_us.get(number)
        engine._calm()
        for stream in engine._streams():
            stream.emitted = engine._emitted_window(stream.stream_id)
            stream.dirty_from = None
            stream.clean_windows()
        engine._expire_now()
        engine._touched.clear()
        for partition in engine._partitions.values():
            engine._fold(partition)
        for stream in engine._streams():
            stream.written = engine._standing(stream)
        return engine

    def _restore_partition(self, saved: PartitionSnapshot) -> None:
        partition = self._partition(saved.number)
        partition.clock, partition.next_offset = saved.clock_us, saved.next_offset
        partition.ordinary.fold, partition.internal.fold = saved.fold, saved.internal_fold
        for stream_id, present in saved.present.items():
            stream = self._stream(partition, stream_id)
            for user, last in present.items():
                viewer = self._viewer(stream, user)
                viewer.settled = last
                stream.active_before_fold += 1
                stream.last_event = max(stream.last_event, last)
                stream.change((last + self._timeout - 1) // WINDOW_US, -1)
                self._watch_expiry(viewer, last)
                self._stand(viewer, last)
        if saved.internal is not None:
            self._replay(Rows.decode(saved.internal))

    def _replay(self, rows: Rows, *, with_internal: bool = True) -> None:
        partition = self._partition(rows.partition)
        if with_internal:
            for stream_id, ts in rows.own_clocks.items():
                self._move_own_clock(stream_id, ts, partition.internal.streams.get(stream_id))
        streams = [self._stream(partition, stream_id) for stream_id in rows.streams]
        viewers = [self._viewer(streams[stream], user) for stream, user in rows.viewers]
        for row in range(len(rows)):
            viewer, ts, event_id = viewers[rows.viewer[row]], rows.ts_us[row], rows.event_id(row)
            stream = viewer.stream
            if stream.internal:
                if not with_internal:
                    continue
                self._move_own_clock(stream.stream_id, ts, stream)
            if ts >= (stream.shelf.fold or 0) * WINDOW_US:
                # The same id may be there with a newer time: what a snapshot has of our own streams is in no order.
                newer = stream.seen.get(event_id, -1)
                self._count(viewer, ts, event_id, rows.code[row], rows.cents[row])
                if newer > ts // WINDOW_US:
                    stream.seen[event_id] = newer
        self._forget_unused(streams, viewers)


def _meets(stream: _Stream, event_id: bytes, clock: int | None) -> bool:
    """Tell whether an id was accepted in an event that is not more than ten minutes before the partition's clock."""
    if clock is None:
        return True
    window, oldest = stream.seen[event_id], clock - ALLOWED_LATENESS_US
    if window != oldest // WINDOW_US:
        return window > oldest // WINDOW_US
    return stream.windows[window].time_of(event_id) >= oldest


def _internal_rows(partition: _Partition) -> Rows:
    """Return the unsettled events of our own streams in a partition. Their offsets do not matter any more: 0."""
    rows = Rows(partition.number)
    viewers: dict[tuple[int, str], int] = {}
    for number, stream in enumerate(partition.internal.streams.values()):
        rows.streams.append(stream.stream_id)
        for counters in stream.windows.values():
            for user, ts, event_id, code, cents in counters.events:
                rows.offset.append(0)
                rows.ts_us.append(ts)
                rows.viewer.append(viewers.setdefault((number, user), len(viewers)))
                rows.code.append(code)
                rows.cents.append(cents)
                rows.event_ids += event_id
    rows.viewers.extend(viewers)
    return rows


def _windows(viewer: _Viewer, until: int | None) -> Iterator[tuple[int, int, int, int | None, int | None]]:
    """Yield what decides a viewer's presence for each unsettled window with events of the viewer, in order.

    :param until: only windows before this time.
    :returns: the window, the times of the first and of the newest event, and either the time of a join that nothing
        ended in the window, or of the leave or stop that no join followed in it.
    """
    times, stops = viewer.times, viewer.stream.stops
    joins, leaves = iter(viewer.joins), iter(viewer.leaves)
    join, leave = next(joins, None), next(leaves, None)
    position, count = 0, len(times) if until is None else bisect_left(times, until)
    while position < count:
        first = newest = times[position]
        window = first // WINDOW_US
        ends = (window + 1) * WINDOW_US
        position += 1
        if position < count and times[position] < ends:
            newest = times[position]
            position += 1
        joined, ended = _NEVER, _mark_within(stops, ends - WINDOW_US) or _NEVER
        if join is not None and join[0] < ends:
            joined, join = join, next(joins, None)
        if leave is not None and leave[0] < ends:
            ended, leave = max(leave, ended), next(leaves, None)
        stays = joined > ended
        yield window, first, newest, joined[0] if stays else None, None if stays or ended is _NEVER else ended[0]


def _stop_between(stops: list[_Mark], start: int, end: int | None) -> int | None:
    """Return the time of the first stop at or after ``start`` and before ``end``, None where there is none."""
    position = bisect_left(stops, (start,))
    if position == len(stops) or (end is not None and stops[position][0] >= end):
        return None
    return stops[position][0]


def _within(times: list[int], start: int) -> tuple[int, int]:
    """Return where the times of the window that begins at ``start`` are in the list."""
    first = end = bisect_left(times, start)
    while end < len(times) and times[end] < start + WINDOW_US:
        end += 1
    return first, end


def _insert_time(times: list[int], start: int, ts: int) -> None:
    """Keep a time if it is the first or the newest of its window."""
    first, end = _within(times, start)
    if first == end or ts < times[first]:
        if end - first == 2:
            times[first] = ts
        else:
            times.insert(first, ts)
    elif ts > times[end - 1]:
        if end - first == 2:
            times[first + 1] = ts
        else:
            times.insert(end, ts)


def _mark_within(marks: list[_Mark], start: int) -> _Mark | None:
    """Return the mark of the window that begins at ``start``, None where there is none."""
    position = bisect_left(marks, (start,))
    return marks[position] if position < len(marks) and marks[position][0] < start + WINDOW_US else None


def _insert_mark(marks: list[_Mark], start: int, mark: _Mark) -> None:
    """Keep a mark if it is the newest of its window."""
    position = bisect_left(marks, (start,))
    if position == len(marks) or marks[position][0] >= start + WINDOW_US:
        marks.insert(position, mark)
    elif marks[position] < mark:
        marks[position] = mark


def _without(rows: Rows, refused: list[int], own_clocks: dict[str, int]) -> Rows:
    """Return the rows but for some of them (indexes in ascending order), which moved these clocks nonetheless."""
    kept = Rows(rows.partition, rows.streams, rows.viewers, own_clocks=own_clocks)
    first = 0
    for row in [*refused, len(rows)]:
        kept.offset += rows.offset[first:row]
        kept.ts_us += rows.ts_us[first:row]
        kept.viewer += rows.viewer[first:row]
        kept.code += rows.code[first:row]
        kept.cents += rows.cents[first:row]
        kept.event_ids += rows.event_ids[first * EVENT_ID_BYTES : row * EVENT_ID_BYTES]
        first = row + 1
    return kept
