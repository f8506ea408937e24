"""Several drivers: which partitions each counts, and what becomes of the state when their number changes."""

import itertools
from collections.abc import Sequence

import pytest
from deciding import decide, decoded, expected_tables
from hypothesis import given, settings
from test_engine_against_oracle import PARTITIONS, TIMEOUT_US, Tables, logs, positions

from streampulse.core.errors import OperatorError, SettingsError
from streampulse.core.settings import JobSettings, load
from streampulse.job.counting.engine import Engine
from streampulse.job.counting.state import restore, take_snapshot
from streampulse.job.rows import Rows
from streampulse.job.shards import LOCK_KEY, Shard
from streampulse.job.store.takeover import part_of, unsettled
from streampulse.oracle import decide as oracle


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 64])
def test_each_partition_has_one_shard_and_each_shard_a_name_and_a_lock_of_its_own(count: int) -> None:
    shards = [Shard(number, count) for number in range(count)]
    for partition in range(64):
        assert [shard.number for shard in shards if shard.has(partition)] == [partition % count]
    for names in ("name", "lock_key", "transactional_id"):
        assert len({getattr(shard, names) for shard in shards}) == count
    # A driver that is alone is the one that it always was, and its lock is not one of a shard's.
    assert (Shard().name, Shard().lock_key, Shard().format) == ("streampulse-job", LOCK_KEY, 2)
    assert Shard().transactional_id == "streampulse-dead-letters"
    assert count == 1 or LOCK_KEY not in {shard.lock_key for shard in shards}


def test_more_shards_than_partitions_are_refused() -> None:
    Shard(3, 4).check("events", 4)
    with pytest.raises(OperatorError, match="job_shards is 5, and events has 4 partitions: set job_shards to 4"):
        Shard(0, 5).check("events", 4)


def test_a_shard_is_below_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    given_settings = {"CHECKPOINT_DIR": "/x", "METRICS_PORT": "9200", "SHARDS": "2", "SHARD": "1"}
    for name, value in given_settings.items():
        monkeypatch.setenv(f"STREAMPULSE_JOB_{name}", value)
    assert load(JobSettings).shard == 1
    monkeypatch.setenv("STREAMPULSE_JOB_SHARD", "2")
    with pytest.raises(SettingsError, match="STREAMPULSE_JOB_SHARD: 2 is not below STREAMPULSE_JOB_SHARDS, 2"):
        load(JobSettings)


class Drivers:
    """The engines of all shards, and the accepted events that each has stored."""

    def __init__(self, held: Tables) -> None:
        self.held = held
        self.engines = [Engine(TIMEOUT_US)]
        self.stored: list[list[Rows]] = [[]]

    def clock(self) -> int | None:
        return max((each.event_clock_us for each in self.engines if each.event_clock_us is not None), default=None)

    def follow(self, number: int) -> None:
        """Have a shard use the newest event clock."""
        clock = self.clock()
        if clock is not None:
            self.engines[number].clocks.move_event(clock)

    def count(self, batch: Sequence[oracle.Record]) -> None:
        for number, engine in enumerate(self.engines):
            shard = Shard(number, len(self.engines))
            mine = [record for record in batch if shard.has(record.partition)]
            if mine:
                self.follow(number)
                pieces = decoded(mine, engine.partition_clocks(), PARTITIONS)
                changes, accepted = engine.apply([(piece.rows, piece.next_offset) for piece in pieces])
                self.held.apply(changes)
                self.stored[number] += [Rows.decode(rows.encode()) for rows in accepted]

    def extend(self) -> None:
        for number, engine in enumerate(self.engines):
            self.follow(number)
            self.held.apply(engine.apply([])[0])

    def become(self, count: int) -> None:
        """Hand all state over, as the store does."""
        self.extend()
        clock, snapshots = self.clock(), [take_snapshot(engine) for engine in self.engines]
        pieces = list(itertools.chain(*map(unsettled, self.stored, snapshots)))
        clocks = {number: at for engine in self.engines for number, at in engine.partition_clocks().items()}
        offsets = {number: at for engine in self.engines for number, at in engine.next_offsets().items()}
        shards = [Shard(number, count) for number in range(count)]
        self.stored = [[rows for rows in pieces if shard.has(rows.partition)] for shard in shards]
        self.engines = [
            restore(
                TIMEOUT_US,
                part_of(snapshots, shard, PARTITIONS),
                rows,
                [],
                {number: at for number, at in clocks.items() if shard.has(number)},
                {number: at for number, at in offsets.items() if shard.has(number)},
                clock,
            )
            for shard, rows in zip(shards, self.stored, strict=True)
        ]


@settings(max_examples=250, deadline=None)
@given(logs(), positions, positions)
def test_however_often_the_number_changes_the_tables_are_the_oracles(
    records: list[oracle.Record], cuts: set[int], changes: set[int]
) -> None:
    decisions, clocks = decide(records, PARTITIONS)
    expected = expected_tables(decisions, clocks, TIMEOUT_US)
    held = Tables()
    drivers = Drivers(held)
    batch: list[oracle.Record] = []
    for position, record in enumerate(records):
        batch.append(record)
        if position in cuts or position == len(records) - 1:
            drivers.count(batch)
            batch = []
            if position in changes:
                drivers.become((2, 3, 1)[position % 3])
    drivers.extend()

    assert held.minutes == expected.minutes
    newest = max(clocks.values(), default=None)
    states = {
        stream: (active, max(clock for clock in (newest, held.own_clocks[stream]) if clock is not None))
        for stream, active in held.active.items()
    }
    assert states == {stream: tuple(state) for stream, state in expected.states.items()}
    assert held.duplicates == sum(decision.outcome == oracle.DUPLICATE for _, decision in decisions)
