"""One batch: accept, count, recount, emit, settle. See the package for how the counting works."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from struct import iter_unpack
from typing import Final

from streampulse.events import ALLOWED_LATENESS_US, is_internal
from streampulse.job.counting.changes import WINDOW_US, Changes, PresenceRow
from streampulse.job.counting.clocks import Clocks
from streampulse.job.counting.duplicates import is_duplicate
from streampulse.job.counting.streams import Partition, SettledGroup, Stream, Viewer
from streampulse.job.counting.viewers import Viewers
from streampulse.job.positions import Border
from streampulse.job.rows import EVENT_ID_BYTES, STREAM_STOP, Rows

#: How far behind ``PresenceRow.last_event_us`` may be in the table, in microseconds.
LAST_EVENT_RESOLUTION_US: Final = 3_600 * 1_000_000


class Engine:
    """The working state of the counting, and the one way to change it: :meth:`apply`.

    Internal streams (``__``) are kept for a day of event time, :data:`~.clocks.INTERNAL_HORIZON_US`, before the newest
    of all clocks. They move no clock that would settle them, so this settles what is older. An event of theirs from
    before is accepted and changes nothing, its id is not remembered, and an internal stream without any event since is
    dropped, with nobody present.

    ``partitions``, ``clocks`` and ``viewers`` are public for :mod:`.state`, which saves and restores them.

    :param viewer_timeout_us: after this long without an event a viewer is no longer present, in microseconds; a minute
        at least.
    :raises ValueError: the time-out is shorter.
    """

    def __init__(self, viewer_timeout_us: int) -> None:
        # Streams with anything that the tables may not hold yet.
        self._touched: set[Stream] = set()
        self.viewers = Viewers(viewer_timeout_us, self._touched)
        self.clocks = Clocks()
        self.partitions: dict[int, Partition] = {}
        # The horizon of internal streams that was last looked at.
        self._horizon = 0
        # The window of the event clock up to which the tables have rows.
        self._emitted: int | None = None

    # -- what the driver asks -----------------------------------------------------------------------------------

    @property
    def event_clock_us(self) -> int | None:
        """The newest clock of all partitions in microseconds since the epoch; None before the first ordinary event."""
        return self.clocks.event

    def partition_clocks(self) -> dict[int, int]:
        """Return each partition's clock in microseconds since the epoch; a partition without one is absent."""
        return {p.number: p.clock for p in self.partitions.values() if p.clock is not None}

    def next_offsets(self) -> dict[int, int]:
        """Return, for each partition seen, the offset after the last record that was applied."""
        return {p.number: p.next_offset for p in self.partitions.values()}

    def size(self) -> dict[str, int]:
        """Return how much is held: streams, viewers, and ids kept to know duplicates."""
        streams = list(self.streams())
        return {
            "streams": len(streams),
            "viewers": sum(len(stream.viewers) for stream in streams),
            "event_ids": sum(len(stream.seen) for stream in streams),
        }

    def go_back(self, number: int, offset: int) -> None:
        """Read a partition from an offset again, because its log lost the records there. What was counted stays."""
        self.partition(number).next_offset = offset

    # -- a batch ------------------------------------------------------------------------------------------------

    def apply(
        self, slices: Iterable[tuple[Rows, int]], borders: Mapping[int, Sequence[Border]] | None = None
    ) -> tuple[Changes, list[Rows]]:
        """Take a batch's events and return what changes in the tables, and the accepted events as columns.

        :param slices: for each partition its events in offset order, none of them late, with the offset after the
            slice's last record. Events below the partition's next offset were applied before and are passed over.
        :param borders: by partition where spans were lost: there its clock becomes that of the span. No slice has
            records on both sides of one.
        """
        changes = Changes(None)
        accepted = []
        for number, found in (borders or {}).items():
            self._pass_borders(self.partition(number), found)
        for rows, next_offset in slices:
            accepted.append(self._accept(rows, changes))
            partition = self.partition(rows.partition)
            partition.next_offset = max(partition.next_offset, next_offset)
            self._pass_borders(partition, (borders or {}).get(rows.partition, ()))
        changes.event_clock_us = self.clocks.event
        self.recount()
        self._emit(changes)
        self._drop_idle(changes)
        self.settle()
        return changes, accepted

    def _pass_borders(self, partition: Partition, borders: Sequence[Border]) -> None:
        for offset, clock_us in borders:
            if offset <= partition.next_offset and clock_us is not None:
                partition.clock = max(clock_us, partition.clock or clock_us)
                self.clocks.move_event(partition.clock)

    def partition(self, number: int) -> Partition:
        """Return a partition, a new one where it was not seen before."""
        partition = self.partitions.get(number)
        if partition is None:
            partition = self.partitions[number] = Partition(number)
        return partition

    def streams(self) -> Iterator[Stream]:
        """Yield all streams of all partitions."""
        for group in self._groups():
            yield from group.streams.values()

    def _groups(self) -> Iterator[SettledGroup]:
        for partition in self.partitions.values():
            yield from partition.groups()

    def stream(self, partition: Partition, stream_id: str) -> Stream:
        """Return a stream of a partition, a new one where it has none of that id."""
        group = partition.internal if is_internal(stream_id) else partition.ordinary
        stream = group.streams.get(stream_id)
        if stream is None:
            stream = group.streams[stream_id] = Stream(stream_id, group, self.clocks.window_of(stream_id))
            stream.own_clock = self.clocks.own.get(stream_id)
        return stream

    def viewer(self, stream: Stream, user: str) -> Viewer:
        """Return a viewer of a stream, a new one where it has none of that name."""
        viewer = stream.viewers.get(user)
        if viewer is None:
            viewer = stream.viewers[user] = Viewer(stream, user)
            if stream.recount_all:
                self.viewers.mark_for_recount(viewer)
        return viewer

    def _accept(self, rows: Rows, changes: Changes) -> Rows:
        partition = self.partition(rows.partition)
        streams = [self.stream(partition, stream_id) for stream_id in rows.streams]
        viewers = [self.viewer(streams[stream], user) for stream, user in rows.viewers]
        clock = partition.clock
        kept_from = (partition.internal.fold or 0) * WINDOW_US
        # Offsets ascend, so the rows that were applied before are at the beginning.
        applied = bisect_left(rows.offset, partition.next_offset)
        refused = list(range(applied))
        own_clocks: dict[str, int] = {}
        # The driver spends its time in this loop and in what it calls.
        count = self.count
        columns = (rows.ts_us, rows.viewer, rows.code, rows.cents)
        event_ids = iter_unpack(f"{EVENT_ID_BYTES}s", rows.event_ids)
        for row, (ts, viewer_index, code, cents, (event_id,)) in islice(
            enumerate(zip(*columns, event_ids, strict=True)), applied, None
        ):
            viewer = viewers[viewer_index]
            stream = viewer.stream
            seen = stream.seen
            duplicate = event_id in seen and is_duplicate(event_id, seen[event_id], stream.windows, clock)
            # A duplicate moves the clock too: it passed the tests of validity and arrival.
            if stream.internal:
                if ts >= kept_from and self.move_own_clock(stream.stream_id, ts, stream) and duplicate:
                    own_clocks[stream.stream_id] = ts
            elif clock is None or ts > clock:
                clock = ts
            if duplicate:
                refused.append(row)
                changes.duplicates += 1
            elif ts < kept_from and stream.internal:
                refused.append(row)
                changes.accepted += 1
            else:
                count(viewer, ts, event_id, code, cents)
        changes.accepted += len(rows) - len(refused)
        if clock is not None:
            partition.clock = clock
            self.clocks.move_event(clock)
        self.forget_unused(streams, viewers)
        return rows.without(refused, own_clocks) if refused else rows

    def move_own_clock(self, stream_id: str, ts: int, stream: Stream | None) -> bool:
        """Move the clock of an internal stream if the time is newer, and tell whether it was."""
        moved = self.clocks.move_own(stream_id, ts)
        if moved and stream is not None:
            stream.own_clock = ts
            self._touched.add(stream)
        return moved

    def count(self, viewer: Viewer, ts: int, event_id: bytes, code: int, cents: int) -> None:
        """Count an accepted event."""
        stream = viewer.stream
        window = ts // WINDOW_US
        counts = stream.windows.get(window) or stream.counts(window)
        stream.seen[event_id] = counts.window
        counts.ids.append(event_id)
        counts.times.append(ts)
        if not counts.changed:
            counts.changed = True
            stream.dirty_windows.add(window)
            self._touched.add(stream)
        if stream.internal:
            counts.events.append((viewer.user, ts, event_id, code, cents))
        counts.by_type[code] += 1
        counts.cents += cents
        if code == STREAM_STOP:
            self.viewers.stop(stream, window, (ts, event_id))
        else:
            self.viewers.take(viewer, counts, window, ts, event_id, code)

    def forget_unused(self, streams: list[Stream], viewers: list[Viewer]) -> None:
        """Forget the viewers and streams all of whose events were duplicates of settled ones."""
        for viewer in viewers:
            if viewer.settled is None and not viewer.times and viewer.stream.viewers.get(viewer.user) is viewer:
                del viewer.stream.viewers[viewer.user]
        for stream in streams:
            self._drop_if_empty(stream)

    def _drop_if_empty(self, stream: Stream) -> None:
        if stream.is_empty() and stream not in self._touched:
            stream.group.streams.pop(stream.stream_id, None)

    def recount(self) -> None:
        """Recompute the marked presences, and stop counting viewers whose time has run out."""
        self.viewers.recount_marked()
        if self.clocks.event is not None:
            self.viewers.expire(self.clocks.event)

    # -- rows -----------------------------------------------------------------------------------------------------

    def _emit(self, changes: Changes) -> None:
        streams = self._streams_to_write()
        for stream in streams:
            newest = self.clocks.window_of(stream.stream_id)
            if newest is not None:
                stream.write_rows(newest, changes)
            written = self.state_row(stream)
            if written != stream.written:
                stream.written = written
                changes.presences.append(PresenceRow(stream.stream_id, written[0], stream.own_clock, stream.last_event))
        self._touched.clear()
        for stream in streams:
            self._drop_if_empty(stream)

    def _streams_to_write(self) -> list[Stream]:
        """Return the touched streams and, where the event clock has reached another minute, those with viewers."""
        streams = list(self._touched)
        window = self._event_window()
        if window != self._emitted:
            self._emitted = window
            for group in self._groups():
                group.watched = {stream: None for stream in group.watched if stream.differences}
                streams.extend(stream for stream in group.watched if stream not in self._touched)
        return streams

    def _event_window(self) -> int | None:
        return None if self.clocks.event is None else self.clocks.event // WINDOW_US

    def state_row(self, stream: Stream) -> tuple[int, int | None, int]:
        """Return what the row of ``stream_presence`` depends on."""
        # The time of the last event only serves to drop old streams, so not every event writes it.
        active = self.viewers.active_at(stream, self.clocks.event)
        return active, stream.own_clock, stream.last_event // LAST_EVENT_RESOLUTION_US

    def tables_hold_everything(self) -> None:
        """Take note, after a restore, that the tables hold all rows that follow from the state."""
        for stream in self.streams():
            stream.emitted = self.clocks.window_of(stream.stream_id)
            stream.mark_clean()
        self._emitted = self._event_window()
        self._touched.clear()

    # -- settling -------------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Settle what no accepted event can reach any more, and of internal streams what is not kept."""
        horizon = self.clocks.horizon()
        for partition in self.partitions.values():
            fold = 0
            if partition.clock is not None:
                fold = (partition.clock - ALLOWED_LATENESS_US) // WINDOW_US
                self._settle_group(partition.ordinary, fold)
            fold = max(fold, horizon)
            if fold > 0:
                self._settle_group(partition.internal, fold)

    def _settle_group(self, group: SettledGroup, fold: int) -> None:
        if group.fold is not None and fold <= group.fold:
            return
        group.fold = fold
        streams: dict[Stream, None] = {}
        for window in [w for w in group.unsettled if w < fold]:
            streams.update(group.unsettled.pop(window))
        for stream in streams:
            self.viewers.settle_stops(stream, fold)
        for window in [w for w in group.expiry if w < fold]:
            for viewer in group.expiry.pop(window):
                viewer.settled_until = None
                self.viewers.settle(viewer, fold)
        for stream in streams:
            for window in [w for w in stream.windows if w < fold]:
                counts = stream.windows.pop(window)
                for viewer in counts.viewers:
                    self.viewers.settle(viewer, fold)
                counts.forget(stream.seen, window)
            for window in [w for w in stream.differences if w < fold]:
                stream.active_before_fold += stream.differences.pop(window)
            self._drop_if_empty(stream)

    def _drop_idle(self, changes: Changes) -> None:
        """Forget the internal streams that had no event for as long as they are kept."""
        horizon = self.clocks.horizon()
        if horizon <= self._horizon:
            return
        self._horizon = horizon
        # A stream that has its row in this batch already waits for the next time.
        idle = {stream_id for stream_id, clock in self.clocks.own.items() if clock // WINDOW_US < horizon}
        idle.difference_update([presence.stream_id for presence in changes.presences])
        for partition in self.partitions.values():
            for stream_id in idle.intersection(partition.internal.streams):
                stream = partition.internal.streams[stream_id]
                partition.internal.remove(stream)
                for viewer in stream.viewers.values():
                    self.viewers.set_last(viewer, None)
                    self.viewers.unwatch_settled(viewer)
                self._touched.discard(stream)
                if stream.written is not None and stream.written[0]:
                    changes.presences.append(PresenceRow(stream_id, 0, stream.own_clock, stream.last_event))
        for stream_id in idle:
            del self.clocks.own[stream_id]
