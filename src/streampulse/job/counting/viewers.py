"""Which viewers are present: each event applied, presences recomputed, time-outs, and the settled past."""

from bisect import bisect_left
from heapq import heappop, heappush
from itertools import count

from streampulse.job.counting.changes import WINDOW_US
from streampulse.job.counting.presence import Mark, insert_mark, insert_time, mark_within, presences, times_within
from streampulse.job.counting.streams import Stream, Viewer
from streampulse.job.counting.windows import WindowCounts
from streampulse.job.rows import STREAM_START, VIEWER_JOIN, VIEWER_LEAVE


class Viewers:
    """Keeps the presences of all streams' viewers.

    :param timeout_us: after this long without an event a viewer is no longer present, in microseconds; a window at
        least.
    :param touched: streams whose number of present viewers changes are added here.
    :raises ValueError: the time-out is shorter.
    """

    def __init__(self, timeout_us: int, touched: set[Stream]) -> None:
        if timeout_us < WINDOW_US:
            raise ValueError("the viewer time-out is shorter than a window")
        self._timeout = timeout_us
        # With the last event at t, the viewer is present at x while x <= t + reach.
        self._reach = timeout_us - 1
        self._touched = touched
        # By minute the viewers whose time may run out in it: compared then with the viewer's own last event.
        self._expiring: dict[int, dict[Viewer, None]] = {}
        # The minute that the event clock has reached, and the viewers whose time may run out in it: a heap by time.
        # Entries of viewers who left or moved on since stay until their time comes.
        self._reached = -1
        self._expiring_now: list[tuple[int, int, Viewer]] = []
        self._entries = count()
        self._marked: list[Viewer] = []

    # -- one event ----------------------------------------------------------------------------------------------

    def take(self, viewer: Viewer, counts: WindowCounts, window: int, ts: int, event_id: bytes, code: int) -> None:
        """Take an accepted event of a viewer, of any type but a stop."""
        times, start = viewer.times, window * WINDOW_US
        newest = times[-1] if times else -1
        if ts <= newest:
            counts.count_unique(viewer, viewer.has_events_in(start), code)
            self._apply_out_of_order(viewer, start, ts, event_id, code)
            return
        stream = viewer.stream
        if ts > stream.last_event:
            stream.last_event = ts
        if newest < start or viewer.starts is not None or code == STREAM_START:
            counts.count_unique(viewer, newest >= start, code)
        if viewer.before is None:
            stops = stream.stops
            if not stops or ts > stops[-1][0]:
                self._apply_in_order(viewer, ts, code)
            else:
                self.mark_for_recount(viewer)
        if newest >= start and len(times) > 1 and times[-2] >= start:
            times[-1] = ts
        else:
            times.append(ts)
        if code == VIEWER_JOIN:
            insert_mark(viewer.joins, start, (ts, event_id))
        elif code == VIEWER_LEAVE:
            insert_mark(viewer.leaves, start, (ts, event_id))

    def _apply_in_order(self, viewer: Viewer, ts: int, code: int) -> None:
        """Apply an event that comes after everything else of its viewer and after all stops."""
        stream, reach, last = viewer.stream, self._reach, viewer.last
        if last is None or ts - last > reach:
            if code != VIEWER_JOIN:
                if last is not None:
                    self.set_last(viewer, None)
                return
            stream.shift(ts // WINDOW_US, 1)
            stream.shift((ts + reach) // WINDOW_US, -1)
            last = ts
        elif code == VIEWER_LEAVE:
            stream.shift((last + reach) // WINDOW_US, 1)
            stream.shift(ts // WINDOW_US, -1)
            last = None
        else:
            ended, ends = (last + reach) // WINDOW_US, (ts + reach) // WINDOW_US
            if ended != ends:
                stream.shift(ended, 1)
                stream.shift(ends, -1)
            last = ts
            if viewer.expires_minute is not None:
                viewer.last = ts
                return
        self.set_last(viewer, last)

    def _apply_out_of_order(self, viewer: Viewer, start: int, ts: int, event_id: bytes, code: int) -> None:
        """Take an event that is not newer than all others of its viewer.

        :param start: when the event's window begins.
        """
        if viewer.before is None and _can_matter(viewer, start, ts, event_id, code):
            self.mark_for_recount(viewer)
        insert_time(viewer.times, start, ts)
        if code == VIEWER_JOIN:
            insert_mark(viewer.joins, start, (ts, event_id))
        elif code == VIEWER_LEAVE:
            insert_mark(viewer.leaves, start, (ts, event_id))

    def stop(self, stream: Stream, window: int, stop: Mark) -> None:
        """Take an accepted stop of a stream: it ends all presences at its time."""
        ts, newest = stop[0], stream.last_event
        stream.last_event = max(newest, ts)
        held = mark_within(stream.stops, window * WINDOW_US)
        if held is not None and held > stop:
            return
        if ts > newest:
            for viewer in list(stream.present):
                last = viewer.last
                if last is not None and ts - last <= self._reach:
                    stream.shift((last + self._reach) // WINDOW_US, 1)
                    stream.shift(window, -1)
                self.set_last(viewer, None)
        elif not stream.recount_all:
            stream.recount_all = True
            for viewer in stream.viewers.values():
                self.mark_for_recount(viewer)
        insert_mark(stream.stops, window * WINDOW_US, stop)

    # -- presences that are recomputed ----------------------------------------------------------------------------

    def mark_for_recount(self, viewer: Viewer) -> None:
        """Have the viewer's presences recomputed after the batch, and keep the present ones until then."""
        if viewer.before is None:
            viewer.before, _ = self._presences(viewer)
            self._marked.append(viewer)
            viewer.stream.present.pop(viewer, None)

    def recount_marked(self) -> None:
        """Put the new presences of all marked viewers in the place of those before, as differences."""
        for viewer in self._marked:
            stream, before = viewer.stream, viewer.before or []
            after, last = self._presences(viewer)
            viewer.before = None
            stream.recount_all = False
            if before != after:
                for sign, spans in ((-1, before), (1, after)):
                    for start, end in spans:
                        if start is not None:
                            stream.shift(start, sign)
                        stream.shift(end, -sign)
            self.set_last(viewer, last)
        self._marked.clear()

    def _presences(self, viewer: Viewer, until: int | None = None) -> tuple[list[tuple[int | None, int]], int | None]:
        stops = viewer.stream.stops
        return presences(viewer.settled, viewer.times, viewer.joins, viewer.leaves, stops, self._timeout, until)

    # -- the number of viewers just after the clock -----------------------------------------------------------------

    def set_last(self, viewer: Viewer, last: int | None) -> None:
        """Set the time of the viewer's last event while present (None: absent), and count the viewer accordingly."""
        viewer.last = last
        if last is None:
            viewer.stream.present.pop(viewer, None)
            self._uncount(viewer)
            return
        viewer.stream.present[viewer] = None
        if viewer.expires_minute is None:
            viewer.stream.now += 1
            self._schedule(viewer)

    def expire(self, clock: int) -> None:
        """Stop counting the viewers whose time has run out at the event clock, in microseconds since the epoch."""
        if clock // WINDOW_US > self._reached:
            self._reached = clock // WINDOW_US
            for minute in [minute for minute in self._expiring if minute <= self._reached]:
                for viewer in self._expiring.pop(minute):
                    self._schedule(viewer)
        while self._expiring_now and self._expiring_now[0][0] <= clock:
            _, _, viewer = heappop(self._expiring_now)
            if viewer.expires_minute is None or viewer.expires_minute > self._reached:
                continue
            if viewer.last is None or viewer.last + self._timeout <= clock:
                self._uncount(viewer)
            else:
                self._schedule(viewer)

    def active_at(self, stream: Stream, event_clock: int | None) -> int:
        """Return the number of viewers present just after the stream's clock."""
        clock = stream.own_clock
        if clock is None or (event_clock is not None and clock <= event_clock):
            return stream.now
        # An internal stream ahead of the event clock has few viewers.
        return sum(1 for v in stream.viewers.values() if v.last is not None and clock - v.last <= self._reach)

    def _schedule(self, viewer: Viewer) -> None:
        expires = (viewer.last or 0) + self._timeout
        viewer.expires_minute = minute = expires // WINDOW_US
        if minute > self._reached:
            self._expiring.setdefault(minute, {})[viewer] = None
        else:
            heappush(self._expiring_now, (expires, next(self._entries), viewer))

    def _uncount(self, viewer: Viewer) -> None:
        minute = viewer.expires_minute
        if minute is None:
            return
        viewer.expires_minute = None
        viewer.stream.now -= 1
        self._touched.add(viewer.stream)
        if minute > self._reached:
            bucket = self._expiring[minute]
            del bucket[viewer]
            if not bucket:
                del self._expiring[minute]

    # -- the settled past -----------------------------------------------------------------------------------------

    def settle(self, viewer: Viewer, fold: int) -> None:
        """Reduce what is before the fold to one number, and forget the viewer if nothing is left."""
        boundary, stops = fold * WINDOW_US, viewer.stream.stops
        settled = viewer.settled
        if (viewer.times and viewer.times[0] < boundary) or (stops and stops[0][0] < boundary):
            _, settled = self._presences(viewer, boundary)
            del viewer.times[: bisect_left(viewer.times, boundary)]
            for marks in (viewer.joins, viewer.leaves):
                del marks[: bisect_left(marks, (boundary,))]
            if viewer.starts is not None:
                viewer.starts = {window for window in viewer.starts if window >= fold} or None
        if settled is not None and (settled + self._reach) // WINDOW_US < fold:
            settled = None
        viewer.settled = settled
        if settled is not None:
            self.watch_settled(viewer, settled)
            return
        self.unwatch_settled(viewer)
        if not viewer.times and viewer.stream.viewers.get(viewer.user) is viewer:
            self.set_last(viewer, None)
            del viewer.stream.viewers[viewer.user]

    def settle_stops(self, stream: Stream, fold: int) -> None:
        """Settle the stops before the fold, and with them all viewers: none may be settled twice with the same stop."""
        boundary = fold * WINDOW_US
        if stream.stops and stream.stops[0][0] < boundary:
            for viewer in list(stream.viewers.values()):
                self.settle(viewer, fold)
            del stream.stops[: bisect_left(stream.stops, (boundary,))]

    def restore_settled(self, viewer: Viewer, last: int) -> None:
        """Give a viewer without events the settled past of a snapshot."""
        stream = viewer.stream
        viewer.settled = last
        stream.active_before_fold += 1
        stream.last_event = max(stream.last_event, last)
        stream.shift((last + self._reach) // WINDOW_US, -1)
        self.watch_settled(viewer, last)
        self.set_last(viewer, last)

    def watch_settled(self, viewer: Viewer, settled: int) -> None:
        """Have the settled past looked at when it may run out, once: later events may have moved that time on."""
        if viewer.settled_until is None:
            viewer.settled_until = (settled + self._reach) // WINDOW_US
            viewer.stream.group.expiry.setdefault(viewer.settled_until, {})[viewer] = None

    @staticmethod
    def unwatch_settled(viewer: Viewer) -> None:
        """Undo :meth:`watch_settled`."""
        if viewer.settled_until is not None:
            del viewer.stream.group.expiry[viewer.settled_until][viewer]
            viewer.settled_until = None


def _can_matter(viewer: Viewer, start: int, ts: int, event_id: bytes, code: int) -> bool:
    """Tell whether an event that is not the viewer's newest may change what is known of its window."""
    first, end = times_within(viewer.times, start)
    if first == end or ts < viewer.times[first] or ts > viewer.times[end - 1]:
        return True
    if code in (VIEWER_JOIN, VIEWER_LEAVE):
        mark = mark_within(viewer.joins if code == VIEWER_JOIN else viewer.leaves, start)
        return mark is None or mark < (ts, event_id)
    return False
