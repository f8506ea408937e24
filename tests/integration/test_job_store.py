"""The job's commits to a real PostgreSQL: atomic, exactly once, and enough for a restart."""

import json
import time
import uuid
from collections.abc import Callable, Iterator

import pytest
from conftest import Database
from postgres import WRITER

from streampulse.core.errors import OperatorError
from streampulse.events import partition_of
from streampulse.job.batches import Batches
from streampulse.job.decode.slices import Decoder, Raw
from streampulse.job.rows import DeadLetter, Exclusion, Slice
from streampulse.job.source import Start
from streampulse.job.store import Batch, Store, exclusions
from streampulse.job.store import state as state_module
from streampulse.job.store.state import Span
from streampulse.oracle.command import take_snapshot

MINUTE_US = 60_000_000
TIMEOUT_US = 6 * 3_600 * 1_000_000
NAME = 'tab\tback\\slash "quote" \U0001f3a5\n'


class Letters:
    """Substitute for Kafka's transactions, which have their own tests."""

    def __init__(self) -> None:
        self.written: list[DeadLetter] = []
        self.positions: dict[int, int] = {}
        self.lost: dict[int, list[int]] = {}

    def write(self, letters: list[DeadLetter], next_offsets: dict[int, int], on_progress: Callable[[], None]) -> int:
        due = [letter for letter in letters if letter.offset >= self.positions.get(letter.partition, 0)]
        self.written += due
        self.positions.update({letter.partition: next_offsets[letter.partition] for letter in due})
        on_progress()
        return len(due)

    def go_back(self, offsets: dict[int, int]) -> None:
        for number, offset in offsets.items():
            self.positions[number] = min(self.positions.get(number, 0), offset)


@pytest.fixture
def store(database: Database) -> Iterator[Store]:
    made = Store(database.settings(WRITER), TIMEOUT_US, 30, 2)
    yield made
    made.close()


def record(stream: str, kind: str, ts: str, user: str = "u", **fields: object) -> tuple[bytes, bytes]:
    document = {"event_id": str(uuid.uuid4()), "ts": ts, "event_type": kind, "stream_id": stream, "user_id": user}
    return stream.encode(), json.dumps(document | fields).encode()


def slices(clocks: dict[int, int], first: int, records: list[tuple[bytes, bytes]]) -> list[Slice]:
    made: list[Slice] = []
    for number in range(2):
        mine = [(first + i, k, v) for i, (k, v) in enumerate(records) if partition_of(k, 2) == number]
        if mine:
            offsets, keys, values = (list(column) for column in zip(*mine, strict=True))
            raw = Raw(offsets, [1_790_000_000_000_000] * len(mine), keys, values)
            made.append(Decoder(number, 2, clocks.get(number)).decode([raw]))
    return made


def process(batches: Batches, first: int, records: list[tuple[bytes, bytes]]) -> None:
    """Have a batch of a query of its own counted and committed."""
    positions = batches.positions(Start({0: first, 1: first}, {0: None, 1: None}, []))
    clocks = {number: each.clock_us for number, each in positions.items() if each.clock_us is not None}
    batches.process(str(uuid.uuid4()), 0, slices(clocks, first, records), time.monotonic())


def lost_spans(topic_id: str, reached: int, first: int = 0) -> list[Span]:
    return [Span(topic_id, number, "lost", first, reached, None, None) for number in (0, 1)]


def batches_of(store: Store) -> tuple[Batches, Letters]:
    letters = Letters()
    batches = Batches(store, letters)  # type: ignore[arg-type]
    deadline = time.monotonic() + 30
    while True:
        try:
            batches.open()
        except OperatorError:
            # The server needs a moment to notice the closed connection and to release its lock.
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return batches, letters


FIRST = [
    record(NAME, "viewer_join", "2026-09-21T12:00:01Z"),
    record(NAME, "donation", "2026-09-21T12:00:02Z", amount_usd="0.10"),
    record(NAME, "donation", "2026-09-21T12:00:03Z", amount_usd="0.20"),
    (b"x", b"garbage"),
]


def rows(database: Database) -> list[tuple[object, ...]]:
    return database.query(
        "SELECT to_char(window_start AT TIME ZONE 'UTC', 'HH24:MI'), stream_id, chat_messages, donations,"
        " donations_usd::text, joins, leaves, unique_viewers, active_viewers FROM stream_metrics_minute ORDER BY 1, 2"
    )


def test_a_batch_lands_whole(database: Database, store: Store) -> None:
    batches, letters = batches_of(store)
    process(batches, 0, FIRST)

    assert rows(database) == [("12:00", NAME, 0, 2, "0.30", 1, 0, 1, 1)]
    assert database.query(
        "SELECT stream_id, active_viewers, (updated_at AT TIME ZONE 'UTC')::text FROM stream_state"
    ) == [(NAME, 1, "2026-09-21 12:00:03")]
    assert database.query("SELECT accepted, duplicates, dead_letters FROM batch_ledger") == [(3, 0, {"invalid": 1})]
    assert [letter.value for letter in letters.written] == [b"garbage"]


def test_a_batch_in_the_ledger_is_passed_over(database: Database, store: Store) -> None:
    batches, _ = batches_of(store)
    query = str(uuid.uuid4())
    for _ in range(2):
        batches.process(query, 0, slices({}, 0, FIRST), time.monotonic())
    assert database.query("SELECT accepted FROM batch_ledger") == [(3,)]


def test_the_next_run_resumes_at_the_last_commit(
    database: Database, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A snapshot with every batch, so that a restore uses it and the events kept beside it.
    monkeypatch.setattr(state_module, "SNAPSHOT_EVERY_EVENTS", 1)
    batches, _ = batches_of(store)
    process(batches, 0, FIRST)
    jump = [record(NAME, "chat_message", "2026-09-21T12:30:00Z", message_len=1)]
    process(batches, 10, jump)
    store.close()

    again, _ = batches_of(store)
    leave = [record(NAME, "viewer_leave", "2026-09-21T12:30:30Z"), *FIRST]
    process(again, 11, leave)

    held = {row[0]: row[2:] for row in rows(database)}
    assert held["12:00"] == (0, 2, "0.30", 1, 0, 1, 1)
    assert held["12:29"] == (0, 0, "0.00", 0, 0, 0, 1)
    assert held["12:30"] == (1, 0, "0.00", 0, 1, 1, 0)
    assert len(held) == 31
    # The repeated events are late by now.
    assert database.query("SELECT dead_letters FROM batch_ledger ORDER BY seq DESC LIMIT 1") == [
        ({"late": 3, "invalid": 1},)
    ]
    assert database.query("SELECT count(*) FROM job_state_snapshot") == [(1,)]


def test_internal_streams_survive_a_restart_and_hold_no_events_back(
    database: Database, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_module, "SNAPSHOT_EVERY_EVENTS", 2)
    batches, _ = batches_of(store)
    join = record("__probe", "viewer_join", "2026-09-21T12:00:00Z")
    # The same event five minutes later: a duplicate that moves the stream's clock, and is stored for that.
    again = (join[0], join[1].replace(b"12:00:00Z", b"12:05:00Z"))
    for first, one in enumerate(
        [join, again, record("__probe", "chat_message", "2026-09-21T12:00:30Z", message_len=1)]
    ):
        process(batches, first, [one])
        store.close()
        batches, _ = batches_of(store)
    assert [row[0] for row in rows(database)] == ["12:00", "12:01", "12:02", "12:03", "12:04", "12:05"]
    assert database.query("SELECT accepted, duplicates FROM batch_ledger ORDER BY seq") == [(1, 0), (0, 1), (1, 0)]

    leave = record("__probe", "viewer_leave", "2026-09-21T12:02:00Z")
    process(batches, 3, [leave])
    assert [row[0] for row in rows(database)] == ["12:00", "12:01", "12:02"]
    # Nothing in these partitions moves their clock, yet a snapshot drops the events before it.
    ending = record("__probe", "viewer_leave", "2026-09-21T12:02:01Z")
    process(batches, 4, [ending])
    assert database.query(
        "SELECT count(*) FROM job_state_delta WHERE seq < (SELECT max(seq) FROM job_state_snapshot)"
    ) == [(0,)]


def test_one_writer_at_a_time(database: Database, store: Store) -> None:
    store.open()
    second = Store(database.settings(WRITER), TIMEOUT_US, 30, 2)
    with pytest.raises(OperatorError, match="another driver of the job writes to this database"):
        second.open()
    store.close()
    batches_of(second)
    second.close()


def test_a_lost_connection_is_reopened_and_nothing_doubled(
    database: Database, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches, _ = batches_of(store)
    process(batches, 0, FIRST)
    # As when the server restarts between two batches.
    end = (
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
        " WHERE application_name = 'streampulse-job' AND datname = current_database()"
    )
    assert database.query(end) == [(1,)]
    # The server takes a while to notice the end of a connection. Until then its lock is held.
    opened, held = store.open, [OperatorError("another driver of the job writes to this database")] * 2

    def open_again(fence: Callable[[int], int] | None) -> None:
        if held:
            raise held.pop()
        opened(fence)

    monkeypatch.setattr(store, "open", open_again)
    process(batches, 10, [record(NAME, "viewer_leave", "2026-09-21T12:00:04Z")])
    assert not held
    assert rows(database) == [("12:00", NAME, 0, 2, "0.30", 1, 1, 1, 0)]
    assert database.query("SELECT sum(accepted)::bigint, count(*) FROM batch_ledger") == [(4, 2)]


def test_a_database_that_comes_back_at_another_position_ends_the_driver(database: Database, store: Store) -> None:
    batches, _ = batches_of(store)
    process(batches, 0, FIRST)
    process(batches, 10, FIRST)
    database.execute("DELETE FROM batch_ledger WHERE seq = (SELECT max(seq) FROM batch_ledger)")
    store.close()
    with pytest.raises(OperatorError, match="PostgreSQL came back at"):
        process(batches, 20, FIRST)
    assert database.query("SELECT count(*) FROM batch_ledger") == [(1,)]


def test_rows_older_than_the_history_leave(database: Database, store: Store) -> None:
    batches, _ = batches_of(store)
    old = [record("old", "viewer_join", "2026-08-01T12:00:00Z"), record("old", "viewer_leave", "2026-08-01T12:00:30Z")]
    process(batches, 0, old)
    # A driver removes them after its first batch, and then now and then.
    batches, _ = batches_of(store)
    process(batches, 10, FIRST)
    assert [row[1] for row in rows(database)] == [NAME]
    assert database.query("SELECT stream_id FROM stream_state") == [(NAME,)]


def test_a_recreated_topic_is_read_from_its_beginning_also_when_postgres_goes_away(
    database: Database, store: Store
) -> None:
    batches, letters = batches_of(store)
    batches.start_topic("first", Start({0: 0, 1: 0}, {}, []))
    process(batches, 1_000, FIRST)
    counted = database.query("SELECT sum(donations) FROM stream_metrics_minute")

    batches.start_topic("second", Start({0: 0, 1: 0}, {0: None, 1: None}, lost_spans("first", 1_004)))
    store.close()  # as a lost connection: the batch is retried from the committed state
    process(batches, 0, [record(NAME, "donation", "2026-09-21T12:00:09Z", amount_usd="1"), (b"y", b"more")])
    assert counted == [(2,)]
    assert database.query("SELECT sum(donations) FROM stream_metrics_minute") == [(3,)]
    assert [letter.value for letter in letters.written] == [b"garbage", b"more"]
    assert database.query("SELECT topic_id FROM topics_read ORDER BY first_read, topic_id") == [("first",), ("second",)]


def test_a_log_that_lost_its_end_is_read_on_from_there(database: Database, store: Store) -> None:
    batches, letters = batches_of(store)
    batches.start_topic("topic", Start({0: 0, 1: 0}, {}, []))
    process(batches, 0, FIRST)
    batches.start_topic("topic", Start({0: 2, 1: 2}, {0: None, 1: None}, lost_spans("topic", 4, 2)))
    # Recorded before the first read, so that the next start does not take the new records for counted ones.
    assert database.query("SELECT offsets FROM batch_ledger ORDER BY seq DESC LIMIT 1") == [({"0": 2, "1": 2},)]
    after = [record(NAME, "donation", "2026-09-21T12:00:08Z", amount_usd="3"), (b"x", b"new garbage")]
    process(batches, 2, after)
    assert rows(database) == [("12:00", NAME, 0, 3, "3.30", 1, 0, 1, 1)]
    assert [letter.value for letter in letters.written] == [b"garbage", b"new garbage"]
    assert database.query("SELECT clock IS NOT NULL FROM event_clock") == [(True,)]


def test_the_ledger_is_bounded_and_its_newest_entry_stays(database: Database, store: Store) -> None:
    database.execute(
        "INSERT INTO batch_ledger (query_id, batch_id, committed_at)"
        " SELECT gen_random_uuid(), 0, now() - interval '3 days' FROM generate_series(1, 7000)"
    )
    batches_of(store)
    assert store.forget_old(0) is True
    assert store.forget_old(0) is False
    # The newest row is the position, however old it is.
    assert database.query("SELECT seq FROM batch_ledger") == [(7000,)]


def test_excluded_records_are_entered_with_their_batch_and_read_by_generation(database: Database, store: Store) -> None:
    single = [Exclusion(0, offset, offset, "future") for offset in (3, 4, 6)]
    entries = [Exclusion(0, 3, 4, "future"), Exclusion(0, 6, 6, "future")]
    assert exclusions.joined(single) == entries
    batches_of(store)
    engine, _ = store.load()
    changes, accepted = engine.apply([])
    query = str(uuid.uuid4())
    store.commit(Batch(query, 0, "topic", {}, excluded=entries), engine, changes, accepted)
    database.execute("UPDATE excluded_records SET pending = true WHERE first_offset = 6")
    assert store.exclusions("topic") == {0: entries[:1]}
    assert store.exclusions("another") == {}
    store.commit(Batch(query, 1, "topic", {}, spans=lost_spans("topic", 5)), engine, changes, accepted)
    assert store.exclusions("topic") == {}
    assert [(each.generation, each.first_offset) for each in take_snapshot(database.settings(WRITER)).excluded] == [
        (0, 3)
    ]
