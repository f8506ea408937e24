"""Whatever the batches, the job's counting gives the tables that the oracle computes from the log."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from streampulse.events import Event, is_internal, partition_of
from streampulse.job.decode import Decoder
from streampulse.job.engine import Changes, Engine, Snapshot
from streampulse.job.rows import DeadLetter, Rows
from streampulse.oracle import decide as oracle
from streampulse.oracle.tables import MINUTE_US, MinuteRow, tables

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


streams = st.sampled_from(["a", "b", "c", "__probe"])
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
    for _ in range(draw(st.integers(1, 60))):
        now += draw(steps)
        stream = draw(streams)
        key, value = event(
            stream, draw(st.sampled_from("uvw")), draw(kinds), now - draw(backward), draw(st.integers(1, 40))
        )
        if draw(st.integers(0, 25)) == 0:
            value = draw(st.sampled_from([b"", b"{", b"[]", value + b"x", value.replace(b"ts", b"st")]))
        partition = partition_of(key, PARTITIONS)
        records.append(oracle.Record(partition, offsets[partition], now, key, value))
        offsets[partition] += draw(st.sampled_from([1, 1, 1, 2]))
    return records


def run(
    records: Sequence[oracle.Record], cuts: set[int], restarts: set[int], repeats: set[int]
) -> tuple[Tables, list[DeadLetter]]:
    """Feed the records in batches cut after the given positions; restart from disk, or replay a batch, where asked."""
    engine, held, letters = Engine(TIMEOUT_US), Tables(), list[DeadLetter]()
    snapshot, kept = engine.snapshot(), list[Rows]()
    batch: list[oracle.Record] = []
    for position, record in enumerate(records):
        batch.append(record)
        if position not in cuts and position != len(records) - 1:
            continue
        for _ in range(2 if position in repeats else 1):
            done = engine.next_offsets()
            changes, accepted, dead = _apply(engine, batch)
            held.apply(changes)
            kept += [Rows.decode(rows.encode()) for rows in accepted]
            letters += [letter for letter in dead if letter.offset >= done.get(letter.partition, 0)]
        batch = []
        if position in restarts:
            engine = _restart(engine, snapshot, kept)
        if position % 3 == 0:
            snapshot = engine.snapshot()
    return held, letters


def _apply(engine: Engine, batch: list[oracle.Record]) -> tuple[Changes, list[Rows], list[DeadLetter]]:
    slices = []
    dead = []
    for partition in range(PARTITIONS):
        mine = [record for record in batch if record.partition == partition]
        columns = (
            [r.partition for r in mine],
            [r.offset for r in mine],
            [r.stamp_ms * 1000 for r in mine],
            [r.key for r in mine],
            [r.value for r in mine],
        )
        for piece in Decoder(engine.clocks(), PARTITIONS).slices([columns]):
            slices.append((piece.rows, piece.next_offset))
            dead += piece.dead_letters
    changes, accepted = engine.apply(slices)
    return changes, accepted, dead


def _restart(engine: Engine, snapshot: Snapshot, kept: list[Rows]) -> Engine:
    return Engine.restore(TIMEOUT_US, snapshot, kept, engine.clocks(), engine.next_offsets(), engine.event_clock_us)


positions = st.sets(st.integers(0, 60))


@settings(max_examples=250, deadline=None)
@given(logs(), positions, positions, positions)
def test_any_batches_restarts_and_replays_give_the_oracles_tables(
    records: list[oracle.Record], cuts: set[int], restarts: set[int], repeats: set[int]
) -> None:
    decisions, clocks = oracle.decide(records, PARTITIONS)
    accepted: dict[str, list[Event]] = {}
    own: dict[str, int] = {}
    for _, decision in decisions:
        if decision.event is None:
            continue
        stream = decision.event.stream_id
        if decision.outcome == oracle.ACCEPTED:
            accepted.setdefault(stream, []).append(decision.event)
        if is_internal(stream) and decision.outcome != oracle.FUTURE:
            own[stream] = max(own.get(stream, 0), decision.event.ts_us)
    expected = tables(accepted, clocks, TIMEOUT_US, 3650, own)

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
