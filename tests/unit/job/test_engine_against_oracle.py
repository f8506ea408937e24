"""Whatever the batches, the job's counting gives the tables that the oracle computes from the log."""

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

from deciding import decide, decoded, expected_tables
from hypothesis import given, settings
from hypothesis import strategies as st

from streampulse.events import is_internal, partition_of
from streampulse.job.counting.changes import Changes
from streampulse.job.counting.engine import Engine
from streampulse.job.counting.state import restore, take_snapshot
from streampulse.job.rows import DeadLetter, Rows
from streampulse.oracle import decide as oracle
from streampulse.oracle.tables import MINUTE_US, MinuteRow

PARTITIONS = 3
START_MS = 1_780_000_000_000 - 1_780_000_000_000 % 60_000
TIMEOUT_US = 25 * MINUTE_US


@dataclass
class Tables:
    """What PostgreSQL would hold."""

    minutes: dict[tuple[int, str], MinuteRow] = field(default_factory=dict)
    active: dict[str, int] = field(default_factory=dict)
    own_clocks: dict[str, int | None] = field(default_factory=dict)
    event_clock: int | None = None
    duplicates: int = 0

    def apply(self, changes: Changes) -> None:
        self.event_clock = changes.event_clock_us
        self.duplicates += changes.duplicates
        for cleared in changes.cleared:
            for window in range(cleared.first, cleared.last + 1):
                self.minutes.pop((window * MINUTE_US, cleared.stream_id), None)
        for row in changes.rows:
            self.minutes[row.window * MINUTE_US, row.stream_id] = MinuteRow(*row[2:])
        for presence in changes.presences:
            self.active[presence.stream_id] = presence.active_viewers
            self.own_clocks[presence.stream_id] = presence.own_clock_us


class Disk:
    """What the store would hold of the state: a snapshot, and the events that it has not settled."""

    def __init__(self, engine: Engine) -> None:
        self.snapshot = take_snapshot(engine)
        self.before: list[Rows] = []
        self.since: list[Rows] = []

    def save(self, engine: Engine) -> None:
        self.snapshot = take_snapshot(engine)
        folds = {partition.number: partition.fold for partition in self.snapshot.partitions}
        self.before = [rows for rows in self.before + self.since if _is_guarded(rows, folds[rows.partition])]
        self.since = []

    def restart(self, engine: Engine) -> Engine:
        return restore(
            TIMEOUT_US,
            self.snapshot,
            self.before,
            self.since,
            engine.partition_clocks(),
            engine.next_offsets(),
            engine.event_clock_us,
        )


def _is_guarded(rows: Rows, fold: int | None) -> bool:
    newest_us = rows.newest_ordinary_us()
    return newest_us is not None and (fold is None or newest_us >= fold * MINUTE_US)


def event(
    stream: str, user: str, kind: str, ts_ms: int, number: int, amount: str | float | None = None
) -> tuple[bytes, bytes]:
    second, millis = divmod(ts_ms, 1000)
    document: dict[str, object] = {
        "event_id": str(uuid.UUID(int=number)),
        "ts": _text(second) + f".{millis:03}Z",
        "event_type": kind,
        "stream_id": stream,
        "user_id": user,
    }
    if kind == "chat_message":
        document["message_len"] = number % 300
    if kind == "donation":
        document["amount_usd"] = "0.10" if amount is None else amount
    return stream.encode(), json.dumps(document).encode()


def _text(second: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


streams = st.sampled_from([["a", "b", "c", "__probe"], ["a", "b", "c", "__probe"], ["a", "__probe"], ["__probe"]])
kinds = st.sampled_from(
    ["viewer_join"] * 4 + ["viewer_leave"] * 2 + ["chat_message"] * 3 + ["donation", "stream_stop", "stream_start"]
)
# A coarse grid, so that events meet each other and the edges of windows, lateness and time-out to the millisecond.
steps = st.sampled_from([0, 0, 20_000, 20_000, 20_000, 60_000, 300_000, 600_000, 600_001, 1_500_000, 3_600_000])
backward = st.sampled_from([0, 0, 0, 1, 20_000, 60_000, 300_000, 599_999, 600_000, 600_001])


@st.composite
def logs(draw: st.DrawFn) -> list[oracle.Record]:
    """Draw a topic: for each record how far time went on, and how far back of it the event lies."""
    offsets = dict.fromkeys(range(PARTITIONS), 0)
    now = START_MS
    records = []
    names = st.sampled_from(draw(streams))
    for _ in range(draw(st.integers(1, 60))):
        # Our own streams are kept up for a day only, so the log is shorter.
        now = min(now + draw(steps), START_MS + 23 * 3_600_000)
        stream = draw(names)
        # Few ids for our own streams: their duplicates move clocks that nothing else moves.
        numbers = st.integers(1, 3 if is_internal(stream) else 40)
        key, value = event(stream, draw(st.sampled_from("uvw")), draw(kinds), now - draw(backward), draw(numbers))
        if draw(st.integers(0, 25)) == 0:
            value = draw(st.sampled_from([b"", b"{", b"[]", value + b"x", value.replace(b"ts", b"st")]))
        partition = partition_of(key, PARTITIONS)
        records.append(oracle.Record(partition, offsets[partition], now, key, value))
        offsets[partition] += draw(st.sampled_from([1, 1, 1, 2]))
    return records


@st.composite
def long_logs(draw: st.DrawFn) -> list[oracle.Record]:
    """Draw days of mostly our own streams, each event with an id of its own, since their ids are forgotten."""
    offsets = dict.fromkeys(range(PARTITIONS), 0)
    now = START_MS
    records = []
    for number in range(draw(st.integers(1, 40))):
        now += draw(st.sampled_from([0, 20_000, 600_000, 3_600_000, 43_200_000, 86_400_000, 90_000_000]))
        stream = draw(st.sampled_from(["a", "__probe", "__probe", "__smoke", "__other"]))
        key, value = event(stream, draw(st.sampled_from("uv")), draw(kinds), now - draw(backward), number)
        partition = partition_of(key, PARTITIONS)
        records.append(oracle.Record(partition, offsets[partition], now, key, value))
        offsets[partition] += 1
    return records


def run(
    records: Sequence[oracle.Record], cuts: set[int], restarts: set[int], repeats: set[int]
) -> tuple[Tables, list[DeadLetter]]:
    """Feed the records in batches cut after the given positions; restart from disk, or replay a batch, where asked."""
    engine, held, letters = Engine(TIMEOUT_US), Tables(), list[DeadLetter]()
    disk = Disk(engine)
    batch: list[oracle.Record] = []
    for position, record in enumerate(records):
        batch.append(record)
        if position not in cuts and position != len(records) - 1:
            continue
        for _ in range(2 if position in repeats else 1):
            done = engine.next_offsets()
            changes, accepted, dead = _apply(engine, batch)
            held.apply(changes)
            disk.since += [Rows.decode(rows.encode()) for rows in accepted]
            letters += [letter for letter in dead if letter.offset >= done.get(letter.partition, 0)]
        batch = []
        if position in restarts:
            engine = disk.restart(engine)
        if position % 3 == 0:
            disk.save(engine)
    return held, letters


def _apply(engine: Engine, batch: list[oracle.Record]) -> tuple[Changes, list[Rows], list[DeadLetter]]:
    pieces = decoded(batch, engine.partition_clocks(), PARTITIONS)
    changes, accepted = engine.apply([(piece.rows, piece.next_offset) for piece in pieces])
    return changes, accepted, [letter for piece in pieces for letter in piece.dead_letters]


# A restart is only where a batch ends.
positions = st.one_of(st.sets(st.integers(0, 60)), st.just(set(range(61))))


@settings(max_examples=250, deadline=None)
@given(logs(), positions, positions, positions)
def test_any_batches_restarts_and_replays_give_the_oracles_tables(
    records: list[oracle.Record], cuts: set[int], restarts: set[int], repeats: set[int]
) -> None:
    decisions, clocks = decide(records, PARTITIONS)
    expected = expected_tables(decisions, clocks, TIMEOUT_US)

    held, letters = run(records, cuts, restarts, repeats)

    assert held.minutes == expected.minutes
    event_clock = max(clocks.values(), default=None)
    assert held.event_clock == event_clock
    states = {
        stream: (active, max(clock for clock in (event_clock, held.own_clocks[stream]) if clock is not None))
        for stream, active in held.active.items()
    }
    assert states == {stream: tuple(state) for stream, state in expected.states.items()}
    assert held.duplicates == sum(decision.outcome == oracle.DUPLICATE for _, decision in decisions)
    assert sorted((letter.partition, letter.offset, letter.reason) for letter in letters) == sorted(
        (record.partition, record.offset, decision.outcome)
        for record, decision in decisions
        if decision.outcome in oracle.DEAD_LETTER_REASONS
    )


@settings(max_examples=150, deadline=None)
@given(long_logs(), positions, positions, positions)
def test_rows_of_our_own_streams_are_exact_however_long_they_go_on(
    records: list[oracle.Record], cuts: set[int], restarts: set[int], repeats: set[int]
) -> None:
    decisions, clocks = decide(records, PARTITIONS)
    held, _ = run(records, cuts, restarts, repeats)
    expected = expected_tables(decisions, clocks, TIMEOUT_US).minutes
    # A `__` stream whose clock is a day behind another one is dropped. Only minutes without events can be missing then.
    left_out = {key: row for key, row in expected.items() if key not in held.minutes}
    assert held.minutes | left_out == expected
    assert all(is_internal(stream) and not any(row[:6]) for (_, stream), row in left_out.items())


def test_a_duplicate_moves_our_own_clock_for_good() -> None:
    records = []
    for number, (kind, ts_ms) in enumerate([("viewer_join", 0), ("viewer_join", 300_000), ("viewer_leave", 120_000)]):
        key, value = event("__probe", "u", kind, START_MS + ts_ms, 2 if kind == "viewer_leave" else 1)
        records.append(oracle.Record(partition_of(key, PARTITIONS), number, START_MS + 300_000, key, value))
    without, _ = run(records, {0, 1}, set(), set())
    held, _ = run(records, {0, 1}, {1}, set())
    assert [row.active_viewers for row in held.minutes.values()] == [1, 1, 0]
    assert held == without


def test_a_stop_ends_what_came_before_it_when_it_is_settled_too() -> None:
    # The first presence runs out in the minute of the stop and of the second join, and all three are settled together.
    joins = [("u", "viewer_join", 0), ("u", "stream_stop", 1_500_000), ("u", "viewer_join", 1_559_999)]
    records = []
    for number, (user, kind, ts_ms) in enumerate([*joins, *(("v", "chat_message", 2_160_000) for _ in range(2))]):
        key, value = event("a", user, kind, START_MS + ts_ms, number)
        records.append(oracle.Record(partition_of(key, PARTITIONS), number, START_MS + ts_ms, key, value))
    decisions, clocks = decide(records, PARTITIONS)
    held, _ = run(records, {0, 1, 2, 3}, set(), set())
    assert held.minutes == expected_tables(decisions, clocks, TIMEOUT_US).minutes
    assert held.active == {"a": 1}


def test_a_stop_ends_viewers_who_came_after_a_late_stop_that_a_restart_reads_too() -> None:
    happens = ["stream_stop", "stream_stop", "viewer_join", "chat_message", "stream_stop", "chat_message"]
    seconds = [200, 100, 300, 500, 400, 560]
    records = []
    for number, (user, kind, second) in enumerate(zip("uuvwuw", happens, seconds, strict=True)):
        key, value = event("a", user, kind, START_MS + second * 1000, number)
        records.append(oracle.Record(partition_of(key, PARTITIONS), number, START_MS + 600_000, key, value))
    decisions, clocks = decide(records, PARTITIONS)
    held, _ = run(records, set(range(6)), {4}, set())
    assert held.minutes == expected_tables(decisions, clocks, TIMEOUT_US).minutes


def test_our_own_streams_are_kept_up_for_a_day() -> None:
    engine, held = Engine(TIMEOUT_US), Tables()
    disk = Disk(engine)
    minutes, most = 3 * 1440, 0
    for number in range(minutes):
        # One stream that goes on, and one for each ten minutes, whose viewer never leaves.
        batch = []
        for stream in ("__probe", f"__smoke-{number // 10}"):
            key, value = event(stream, "u", "viewer_join", START_MS + number * 60_000, number)
            batch.append(oracle.Record(partition_of(key, PARTITIONS), number, START_MS + number * 60_000, key, value))
        changes, accepted, _ = _apply(engine, batch)
        held.apply(changes)
        disk.since += accepted
        if number % 500 == 499:
            disk.save(engine)
            engine = disk.restart(engine)
        most = max(most, *engine.size().values())
    # A day's events of the one, and of the others, with their viewers and clocks; a minute more at most.
    assert most <= 2 * 1442
    assert len(take_snapshot(engine).own_clocks_us) <= 146
    assert disk.before == []
    # Nobody is left in a stream that is not kept up any more.
    assert sum(held.active[f"__smoke-{number}"] for number in range(minutes // 10 - 146)) == 0
    assert held.active["__probe"] == 1
    # An old event is accepted, and changes nothing.
    key, value = event("__probe", "v", "viewer_join", START_MS, minutes)
    record = oracle.Record(partition_of(key, PARTITIONS), minutes, START_MS, key, value)
    changes, accepted, _ = _apply(engine, [record])
    assert (changes.accepted, changes.rows, [len(rows) for rows in accepted]) == (1, [], [0])
