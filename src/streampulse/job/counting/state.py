"""The durable form of the working state: what a snapshot holds, and how the state is restored from one."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from streampulse.job.counting.changes import WINDOW_US
from streampulse.job.counting.clocks import Clocks
from streampulse.job.counting.engine import Engine
from streampulse.job.counting.streams import Partition
from streampulse.job.rows import Rows


@dataclass(slots=True)
class PartitionSnapshot:
    """A partition's settled state: who is present at the fold, by stream and user, with the time of the last event.

    Internal streams have a fold of their own, and their unsettled events are part of the snapshot, as encoded rows.
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
    """The settled state of all partitions, and the clocks of internal streams, in microseconds since the epoch."""

    event_clock_us: int | None
    own_clocks_us: dict[str, int]
    partitions: list[PartitionSnapshot]


#: Viewers who are present, by stream and user, each with the time of the last event in microseconds since the epoch.
Presences = Mapping[tuple[str, str], int]


def present(engine: Engine) -> dict[int, Presences]:
    """Return by partition the viewers of ordinary streams who are present after all events."""
    return {
        partition.number: {
            (stream.stream_id, viewer.user): viewer.last
            for stream in partition.ordinary.streams.values()
            for viewer in stream.viewers.values()
            if viewer.last is not None
        }
        for partition in engine.partitions.values()
    }


def assume_present(engine: Engine, number: int, viewers: Presences, newest_us: int | None) -> None:
    """Have viewers be present from a partition's position on, whose joins the log no longer has.

    A viewer whose events the state knows is passed over.

    :param newest_us: no event before the position is newer, in microseconds since the epoch; None: nothing tells.
    """
    partition = engine.partition(number)
    if partition.ordinary.fold is not None:
        newest_us = min(partition.ordinary.fold * WINDOW_US - 1, newest_us or partition.ordinary.fold * WINDOW_US)
    for (stream_id, user), last in viewers.items():
        viewer = engine.viewer(engine.stream(partition, stream_id), user)
        if viewer.settled is None and not viewer.times:
            engine.viewers.restore_settled(viewer, last if newest_us is None else min(last, newest_us))


def take_snapshot(engine: Engine) -> Snapshot:
    """Return the settled state. Together with the accepted events at or after each partition's fold it is everything.

    Of internal streams only the events after the snapshot are needed.
    """
    return Snapshot(
        engine.event_clock_us,
        dict(engine.clocks.own),
        [
            PartitionSnapshot(
                p.number,
                p.next_offset,
                p.clock,
                p.ordinary.fold,
                {
                    stream.stream_id: present
                    for group in p.groups()
                    for stream in group.streams.values()
                    if (present := {v.user: v.settled for v in stream.viewers.values() if v.settled is not None})
                },
                p.internal.fold,
                _internal_rows(p).encode(),
            )
            for p in engine.partitions.values()
        ],
    )


def restore(
    viewer_timeout_us: int,
    snapshot: Snapshot,
    before: Iterable[Rows],
    since: Iterable[Rows],
    clocks_us: dict[int, int],
    next_offsets: dict[int, int],
    event_clock_us: int | None,
) -> Engine:
    """Rebuild the working state from a snapshot and the accepted events kept since.

    :param before: accepted events committed before the snapshot, beginning no later than the first that is at or
        after its partition's fold in it; earlier ones are used to know duplicates, where still needed. Those of
        internal streams are passed over: the snapshot has them.
    :param since: all accepted events committed after the snapshot. Both are in the order of their commits.
    :param clocks_us: each partition's clock now; :param next_offsets: each partition's next offset now;
    :param event_clock_us: the event clock now.
    """
    engine = Engine(viewer_timeout_us)
    engine.clocks = Clocks(event_clock_us, snapshot.own_clocks_us)
    for saved in snapshot.partitions:
        _restore_partition(engine, saved)
    for rows in before:
        _replay(engine, rows, with_internal=False)
    for rows in since:
        _replay(engine, rows)
    for number, offset in next_offsets.items():
        partition = engine.partition(number)
        partition.next_offset = offset
        partition.clock = clocks_us.get(number)
    engine.recount()
    engine.tables_hold_everything()
    engine.settle()
    for stream in engine.streams():
        stream.written = engine.state_row(stream)
    return engine


def _restore_partition(engine: Engine, saved: PartitionSnapshot) -> None:
    partition = engine.partition(saved.number)
    partition.clock, partition.next_offset = saved.clock_us, saved.next_offset
    partition.ordinary.fold, partition.internal.fold = saved.fold, saved.internal_fold
    for stream_id, present in saved.present.items():
        stream = engine.stream(partition, stream_id)
        for user, last in present.items():
            engine.viewers.restore_settled(engine.viewer(stream, user), last)
    if saved.internal is not None:
        _replay(engine, Rows.decode(saved.internal))


def _replay(engine: Engine, rows: Rows, *, with_internal: bool = True) -> None:
    partition = engine.partition(rows.partition)
    if with_internal:
        for stream_id, ts in rows.own_clocks.items():
            engine.move_own_clock(stream_id, ts, partition.internal.streams.get(stream_id))
    streams = [engine.stream(partition, stream_id) for stream_id in rows.streams]
    viewers = [engine.viewer(streams[stream], user) for stream, user in rows.viewers]
    for row in range(len(rows)):
        viewer, ts, event_id = viewers[rows.viewer[row]], rows.ts_us[row], rows.event_id(row)
        stream = viewer.stream
        if stream.internal:
            if not with_internal:
                continue
            engine.move_own_clock(stream.stream_id, ts, stream)
        if ts >= (stream.group.fold or 0) * WINDOW_US:
            # The same id may be there with a newer time: a snapshot has the events of internal streams in no order.
            newer = stream.seen.get(event_id, -1)
            engine.count(viewer, ts, event_id, rows.code[row], rows.cents[row])
            if newer > ts // WINDOW_US:
                stream.seen[event_id] = newer
    engine.forget_unused(streams, viewers)


def _internal_rows(partition: Partition) -> Rows:
    """Return the unsettled events of a partition's internal streams. Their offsets no longer matter: 0."""
    rows = Rows(partition.number)
    viewers: dict[tuple[int, str], int] = {}
    for number, stream in enumerate(partition.internal.streams.values()):
        rows.streams.append(stream.stream_id)
        for counts in stream.windows.values():
            for user, ts, event_id, code, cents in counts.events:
                rows.offset.append(0)
                rows.ts_us.append(ts)
                rows.viewer.append(viewers.setdefault((number, user), len(viewers)))
                rows.code.append(code)
                rows.cents.append(cents)
                rows.event_ids += event_id
    rows.viewers.extend(viewers)
    return rows
