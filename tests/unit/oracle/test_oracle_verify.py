"""The comparison: equal for correct tables, and every kind of fault found and named."""

import argparse
import json
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence

import pytest

from streampulse.core.errors import OperatorError
from streampulse.core.settings import CountingSettings
from streampulse.events import Event, letter_bytes, partition_of
from streampulse.oracle import command
from streampulse.oracle.command import Report, Snapshot, read_log, text, verify_snapshot
from streampulse.oracle.decide import Decision, PartitionLog, Record
from streampulse.oracle.reader import Bounds, Letter, TopicReader
from streampulse.oracle.spans import Exclusion, LostSpan
from streampulse.oracle.tables import DAY_US, MinuteRow, StateRow, tables

TOPIC, DLQ = "stream.events", "stream.events.dlq"
TOPIC_ID = uuid.UUID("11111111-2222-4333-8444-555555555555")
PARTITIONS = 2
#: 2026-03-01T12:00:00Z in seconds.
NOON = 1_772_366_400
MINUTE_US = 60_000_000

Headers = tuple[tuple[str, bytes | None], ...]


class Kafka(TopicReader):
    """Two topics in memory."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.letters: list[Letter] = []
        self.starts = dict.fromkeys(range(PARTITIONS), 0)
        self.dlq_start = 0
        self.id = TOPIC_ID

    def bounds(self, topic: str) -> dict[int, Bounds]:
        if topic == DLQ:
            return {0: Bounds(self.dlq_start, len(self.letters))}
        return {
            number: Bounds(self.starts[number], sum(1 for each in self.records if each.partition == number))
            for number in range(PARTITIONS)
        }

    def topic_id(self, topic: str) -> uuid.UUID:
        assert topic == TOPIC
        return self.id

    def read_with_headers(
        self,
        topic: str,
        spans: Mapping[int, Bounds],
        progress: Callable[[int], None] | None = None,
        excluded: Mapping[int, Sequence[Bounds]] | None = None,
    ) -> Iterator[Letter]:
        assert not excluded
        found = self.letters if topic == DLQ else [Letter(each, ()) for each in self.records]
        for each in found:
            if spans[each.record.partition].start <= each.record.offset < spans[each.record.partition].end:
                yield each
        if progress is not None:
            progress(len(found))

    def send(self, stream_id: str, seconds: float, kind: str, arrival: float = 7200, **fields: object) -> None:
        minute, second = divmod(seconds, 60)
        hour, minute = divmod(int(minute), 60)
        value = {
            "event_id": str(uuid.uuid5(TOPIC_ID, str(len(self.records)))),
            "ts": f"2026-03-01T{12 + hour:02d}:{minute:02d}:{second:09.6f}Z",
            "event_type": kind,
            "stream_id": stream_id,
            "user_id": "user-1",
            **fields,
        }
        self.put(stream_id.encode(), json.dumps(value).encode(), arrival)

    def put(self, key: bytes, value: bytes | None, arrival: float = 7200) -> None:
        partition = partition_of(key, PARTITIONS)
        offset = sum(1 for each in self.records if each.partition == partition)
        self.records.append(Record(partition, offset, int((NOON + arrival) * 1000), key, value))

    def letter(self, record: Record, decision: Decision, **changes: bytes | None) -> None:
        headers = {
            "reason": decision.outcome.encode(),
            "detail": (decision.detail or "ts: too far from the clock").encode(),
            "topic": TOPIC.encode(),
            "partition": str(record.partition).encode(),
            "offset": str(record.offset).encode(),
        }
        cut = letter_bytes(record.key, record.value)
        written = Record(0, len(self.letters), record.stamp_ms + 5, *cut)
        self.letters.append(Letter(written, tuple({**headers, **changes}.items())))

    def decide_all(self) -> tuple[list[tuple[Record, Decision]], dict[int, PartitionLog]]:
        logs = {number: PartitionLog(number, PARTITIONS) for number in range(PARTITIONS)}
        return [(record, logs[record.partition].decide(record)) for record in self.records], logs


COUNTING = CountingSettings(viewer_timeout_seconds=6 * 3600, history_days=30)


def a_right_world() -> tuple[Kafka, Snapshot]:
    """Make topics with every kind of record, and a faultless job's tables."""
    kafka = Kafka()
    streams = ["stream-1", "stream-2", "stream-3"]
    assert {partition_of(each.encode(), PARTITIONS) for each in streams} == {0, 1}
    for stream in streams:
        kafka.send(stream, 10, "viewer_join")
    for stream in streams:
        kafka.send(stream, 20, "chat_message", message_len=3)
        kafka.send(stream, 130, "donation", amount_usd="5.10")
    for stream in streams:
        kafka.send(stream, 700, "viewer_leave")
    for stream in streams:
        kafka.send(stream, 20, "chat_message", message_len=3)  # late
        kafka.send(stream, 3600, "viewer_join", arrival=3000)  # from the future
        kafka.send(stream, 700, "chat_message", message_len=-1)  # invalid
        kafka.put(stream.encode(), None)
        kafka.put(stream.encode(), b"")
    kafka.put(b"stream-1", b"x" * 300_000)
    kafka.put(b"stream-1", kafka.records[0].value)  # late by now
    kafka.put(b"stream-1", kafka.records[9].value)  # a duplicate
    kafka.send("__smoke-1", 710, "viewer_join")
    kafka.send("__smoke-1", 710, "nonsense")
    return kafka, snapshot_of(kafka)


def snapshot_of(kafka: Kafka) -> Snapshot:
    """Make the tables and dead letters of the whole topic."""
    decisions, logs = kafka.decide_all()
    accepted: dict[str, list[Event]] = {}
    for record, decision in decisions:
        if decision.outcome == "accepted" and decision.event is not None:
            if not decision.event.stream_id.startswith("__"):
                accepted.setdefault(decision.event.stream_id, []).append(decision.event)
        elif decision.outcome != "duplicate":
            kafka.letter(record, decision)
    clocks = {number: log.clock_us for number, log in logs.items() if log.clock_us is not None}
    computed = tables(accepted, clocks, 6 * 3600 * 1_000_000, 30)
    return Snapshot(
        committed=True,
        topic_id=str(TOPIC_ID),
        topics=1,
        offsets={number: log.next_offset for number, log in logs.items()},
        clocks=clocks,
        ledger_clocks_us=[max(clocks.values(), default=None)],
        table_clocks_us=[max(clocks.values(), default=None)],
        minutes=dict(computed.minutes),
        states=dict(computed.states),
    )


def differences(kafka: Kafka, snapshot: Snapshot) -> list[str]:
    report = verify_snapshot(kafka, snapshot, (TOPIC, DLQ), COUNTING, 1000)
    assert len(report.differences) == report.difference_count
    return report.differences


def test_a_right_world_is_all_equal() -> None:
    kafka, snapshot = a_right_world()
    report = verify_snapshot(kafka, snapshot, (TOPIC, DLQ), COUNTING)
    assert report.differences == []
    assert report.not_checked == []
    assert (report.records, report.streams, report.dead_letters) == (32, 3, 18)
    assert report.outcomes == {"accepted": 13, "late": 4, "future": 3, "invalid": 11, "duplicate": 1}
    assert text(report).endswith("verify  32 records, 36 rows, 3 streams, 18 dead letters: all equal (0.0 s)")


def test_only_the_records_of_an_entrys_generation_are_excluded() -> None:
    kafka = Kafka()
    for _ in range(4):
        kafka.send("stream-1", 10, "viewer_join")
    number = kafka.records[0].partition
    entries = [Exclusion(number, 0, 1, 2, "future"), Exclusion(number, 1, 3, 3, "future")]
    lost = [LostSpan(number, 2, 9, None)]
    snapshot = snapshot_of(kafka)._replace(excluded=entries, lost=lost)
    log = read_log(kafka, TOPIC, snapshot, lambda _: None)
    assert sorted(log.letters) == [(number, 1), (number, 3)]
    assert {letter.reason for letter in log.letters.values()} == {"future"}


def test_a_world_without_a_batch_says_that_nothing_was_checked() -> None:
    nothing = Snapshot(False, None, 0, {}, {}, [], [], {}, {})
    report = verify_snapshot(Kafka(), nothing, (TOPIC, DLQ), COUNTING)
    assert report.difference_count == 0
    assert report.not_checked == ["any record: the job has committed no batch yet"]


def with_a_lost_end(snapshot: Snapshot, partition: int) -> Snapshot:
    """Return the tables of a job that had read three more records of a partition, which Kafka lost since."""
    end = snapshot.offsets[partition]
    return snapshot._replace(lost=[LostSpan(partition, end, end + 3, snapshot.clocks[partition])])


def test_a_lost_span_is_named_and_only_rows_that_its_records_can_have_changed_are_not_compared() -> None:
    kafka, snapshot = a_right_world()
    stream = "stream-1"
    partition = partition_of(stream.encode(), PARTITIONS)
    snapshot = with_a_lost_end(snapshot, partition)
    report = verify_snapshot(kafka, snapshot, (TOPIC, DLQ), COUNTING)
    end = snapshot.offsets[partition]
    assert report.differences == []
    assert report.not_checked[0] == f"records {end} to {end + 2} of partition {partition}: counted, then lost by Kafka"
    # The clock is at 12:11:40, so the lost events are from 12:01:40 or later.
    wrong = {key: row._replace(joins=row.joins + 1) for key, row in snapshot.minutes.items() if key[1] == stream}
    found = differences(kafka, snapshot._replace(minutes=snapshot.minutes | wrong))
    assert [difference.split()[1] for difference in found] == ["2026-03-01T12:00:00Z"]


@pytest.mark.parametrize(
    ("generation", "expected"),
    [
        pytest.param(0, None, id="of the record"),
        pytest.param(1, "its generation is 1, that of the record is 0", id="of records behind the span"),
        pytest.param(2, ": missing, the record is", id="of a span that the tables do not have yet"),
    ],
)
def test_a_letter_names_the_generation_of_its_record(generation: int, expected: str | None) -> None:
    kafka, snapshot = a_right_world()
    letter = kafka.letters[0]
    partition = int(dict(letter.headers)["partition"] or b"")
    kafka.letters[0] = Letter(letter.record, (*letter.headers, ("generation", str(generation).encode())))
    found = differences(kafka, with_a_lost_end(snapshot, partition))
    assert any(expected in each for each in found) if expected else not found


@pytest.mark.parametrize("column", MinuteRow._fields)
def test_every_column_of_a_minute_is_compared(column: str) -> None:
    kafka, snapshot = a_right_world()
    key = sorted(snapshot.minutes)[4]
    row = snapshot.minutes[key]
    snapshot.minutes[key] = row._replace(**{column: getattr(row, column) + 1})
    (found,) = differences(kafka, snapshot)
    assert found.startswith(f"stream_metrics_minute 2026-03-01T12:01:00Z '{key[1]}' ")
    assert column.replace("_cents", "_usd") in found


def test_money_is_shown_as_money() -> None:
    kafka, snapshot = a_right_world()
    key = next(key for key, row in sorted(snapshot.minutes.items()) if row.donations)
    snapshot.minutes[key] = snapshot.minutes[key]._replace(donations_cents=511)
    assert differences(kafka, snapshot)[0].endswith("donations_usd: 5.11 in the table, 5.10 by the log")


def test_rows_missing_and_rows_too_many() -> None:
    kafka, snapshot = a_right_world()
    window, stream = sorted(snapshot.minutes)[0]
    snapshot.minutes[window, "stranger"] = snapshot.minutes.pop((window, stream))
    del snapshot.states["stream-1"]
    snapshot.states["stranger"] = StateRow(0, snapshot.ledger_clocks_us[0] or 0)
    assert stream == "stream-1"
    assert differences(kafka, snapshot) == [
        "stream_metrics_minute 2026-03-01T12:00:00Z 'stranger': the row should not be there",
        "stream_metrics_minute 2026-03-01T12:00:00Z 'stream-1': the row is missing",
        "stream_state 'stranger': the row should not be there",
        "stream_state 'stream-1': the row is missing",
    ]


@pytest.mark.parametrize("column", StateRow._fields)
def test_every_column_of_the_state_is_compared(column: str) -> None:
    kafka, snapshot = a_right_world()
    row = snapshot.states["stream-2"]
    snapshot.states["stream-2"] = row._replace(**{column: getattr(row, column) + 1})
    (found,) = differences(kafka, snapshot)
    assert found.startswith("stream_state 'stream-2' ")


def test_the_clocks_are_compared() -> None:
    kafka, snapshot = a_right_world()
    moved = {number: clock + 1 for number, clock in snapshot.clocks.items()}
    assert len(differences(kafka, snapshot._replace(clocks=moved))) == PARTITIONS
    assert len(differences(kafka, snapshot._replace(ledger_clocks_us=[None]))) == 1
    assert len(differences(kafka, snapshot._replace(table_clocks_us=[5]))) == 1


def test_an_event_that_was_not_counted_is_found() -> None:
    kafka, snapshot = a_right_world()
    kafka.send("stream-1", 650, "chat_message", message_len=1)
    partition = partition_of(b"stream-1", PARTITIONS)
    assert differences(kafka, snapshot) == [], "beyond the ledger's offsets: not yet"
    snapshot.offsets[partition] += 1
    (first, *_) = differences(kafka, snapshot)
    assert first.endswith("chat_messages: 0 in the table, 1 by the log")


def test_letters_beyond_the_ledger_are_another_batchs_business() -> None:
    kafka, snapshot = a_right_world()
    kafka.put(b"stream-1", b"garbage")
    record, decision = kafka.decide_all()[0][-1]
    kafka.letter(record, decision)
    kafka.letter(record, decision)
    assert differences(kafka, snapshot) == []


def test_a_missing_letter() -> None:
    kafka, snapshot = a_right_world()
    for index in range(len(kafka.letters)):
        world = Kafka()
        world.records = kafka.records
        remaining = kafka.letters[:index] + kafka.letters[index + 1 :]
        world.letters = [Letter(each.record._replace(offset=at), each.headers) for at, each in enumerate(remaining)]
        (found,) = differences(world, snapshot)
        assert "missing, the record is " in found


def test_a_letter_twice() -> None:
    kafka, snapshot = a_right_world()
    record, decision = next(each for each in kafka.decide_all()[0] if each[1].outcome == "late")
    kafka.letter(record, decision)
    (found,) = differences(kafka, snapshot)
    assert "there twice" in found


@pytest.mark.parametrize("outcome", ["accepted", "duplicate"])
def test_a_letter_without_a_rejected_record(outcome: str) -> None:
    kafka, snapshot = a_right_world()
    record, decision = next(each for each in kafka.decide_all()[0] if each[1].outcome == outcome)
    kafka.letter(record, decision, reason=b"late")
    (found,) = differences(kafka, snapshot)
    assert "says 'late', but the record is none of" in found


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"reason": b"future"}, "says 'future', the record is invalid"),
        ({"detail": b"user_id: not a string"}, "should begin with message_len"),
        ({"topic": b"other"}, "the header topic is 'other'"),
        ({"partition": b"x"}, "the headers partition, offset and generation are 'x'"),
        ({"partition": b"9"}, "there is no such record"),
        ({"offset": b"-1"}, "there is no such record"),
        ({"reason": b"\xff"}, "the header reason is not UTF-8"),
    ],
)
def test_headers_are_compared(changes: dict[str, bytes], expected: str) -> None:
    kafka, snapshot = a_right_world()
    index, (record, decision) = next(
        (index, each)
        for index, each in enumerate(
            each for each in kafka.decide_all()[0] if each[1].outcome in ("invalid", "late", "future")
        )
        if (each[1].detail or "").startswith("message_len")
    )
    kafka.letter(record, decision, **changes)
    wrong = kafka.letters.pop()
    kafka.letters[index] = Letter(wrong.record._replace(offset=index), wrong.headers)
    assert any(expected in each for each in differences(kafka, snapshot))


def test_a_header_absent_or_twice() -> None:
    whole = a_right_world()[0].letters[0].headers
    for headers in (whole[1:], whole + whole[:1]):
        kafka, snapshot = a_right_world()
        kafka.letters[0] = Letter(kafka.letters[0].record, headers)
        assert any("the header reason is there" in each for each in differences(kafka, snapshot))


@pytest.mark.parametrize(
    ("change", "expected"),
    [({"key": None}, "its key is not the record's"), ({"value": b"x"}, "its bytes are not the record's")],
)
def test_key_and_bytes_are_compared(change: dict[str, bytes | None], expected: str) -> None:
    kafka, snapshot = a_right_world()
    for index, letter in enumerate(list(kafka.letters)):
        kafka.letters[index] = Letter(letter.record._replace(**change), letter.headers)  # type: ignore[arg-type]
        (found,) = differences(kafka, snapshot)
        assert expected in found
        kafka.letters[index] = letter


def test_an_empty_value_and_none_are_two_things() -> None:
    kafka, snapshot = a_right_world()
    index = next(index for index, each in enumerate(kafka.letters) if each.record.value is None)
    letter = kafka.letters[index]
    kafka.letters[index] = Letter(letter.record._replace(value=b""), letter.headers)
    (found,) = differences(kafka, snapshot)
    assert "its bytes are not the record's" in found


def test_a_recreated_or_truncated_topic_is_an_operator_error() -> None:
    kafka, snapshot = a_right_world()
    kafka.id = uuid.UUID(int=7)
    with pytest.raises(OperatorError, match="made again"):
        differences(kafka, snapshot)
    kafka.id = TOPIC_ID
    snapshot.offsets[0] += 1
    with pytest.raises(OperatorError, match="Kafka lost records"):
        differences(kafka, snapshot)


def test_a_topic_id_is_known_in_both_of_its_forms() -> None:
    kafka, snapshot = a_right_world()
    assert differences(kafka, snapshot._replace(topic_id="ERERESIiQzOERFVVVVVVVQ")) == []
    assert differences(kafka, snapshot._replace(topic_id=None)) == []


def a_long_world() -> tuple[Kafka, Snapshot]:
    """Make ninety minutes of one stream in partition 0, one chat a minute, each arriving at its time."""
    kafka = Kafka()
    stream = next(name for name in ("stream-1", "stream-2", "stream-3") if partition_of(name.encode(), PARTITIONS) == 0)
    for minute in range(90):
        kafka.send(stream, minute * 60, "chat_message", arrival=minute * 60, message_len=1)
        if minute % 10 == 0:
            kafka.put(stream.encode(), b"garbage", arrival=minute * 60)
    other = next(name for name in ("stream-1", "stream-2", "stream-3") if partition_of(name.encode(), PARTITIONS) == 1)
    kafka.send(other, 0, "viewer_join")
    return kafka, snapshot_of(kafka)


def test_a_log_without_its_beginning_is_checked_from_the_first_certain_window() -> None:
    kafka, snapshot = a_long_world()
    kafka.starts[0] = 35
    report = verify_snapshot(kafka, snapshot, (TOPIC, DLQ), COUNTING)
    assert report.differences == []
    # Offset 35 arrived at minute 31: missing records may reach to 36 (5 minutes ahead); past 46 the clock is certain.
    assert report.not_checked == [
        "partition 0 before offset 35: no longer in the log",
        "rows of partition 0's streams before 2026-03-01T12:48:00Z, and their active viewers",
        "4 dead letters of records no longer in the log",
    ]
    keys = sorted(key for key in snapshot.minutes if key[0] >= (NOON + 48 * 60) * 1_000_000)
    stream = next(name for _, name in keys if partition_of(name.encode(), PARTITIONS) == 0)
    for minute, found in ((47, 0), (48, 1), (80, 1)):
        key = ((NOON + minute * 60) * 1_000_000, stream)
        row = snapshot.minutes[key]
        snapshot.minutes[key] = row._replace(chat_messages=2)
        assert len(differences(kafka, snapshot)) == found
        snapshot.minutes[key] = row
    del snapshot.minutes[(NOON + 60 * 60) * 1_000_000, stream]
    assert len(differences(kafka, snapshot)) == 2, "chat_messages and unique_viewers"


def test_the_other_partitions_are_checked_all_the_same() -> None:
    kafka, snapshot = a_long_world()
    kafka.starts[0] = 35
    key = min(key for key in snapshot.minutes if partition_of(key[1].encode(), PARTITIONS) == 1)
    snapshot.minutes[key] = snapshot.minutes[key]._replace(active_viewers=0)
    (found,) = differences(kafka, snapshot)
    assert "active_viewers: 0 in the table, 1 by the log" in found


def test_a_log_of_which_nothing_is_left_is_named() -> None:
    kafka, snapshot = a_long_world()
    kafka.starts[0] = snapshot.offsets[0]
    report = verify_snapshot(kafka, snapshot, (TOPIC, DLQ), COUNTING)
    assert report.differences == []
    assert "rows of partition 0's streams at all, and their active viewers" in report.not_checked


def test_a_ledger_of_two_topics_checks_only_the_newer_ones_records() -> None:
    kafka, snapshot = a_long_world()
    earlier = snapshot._replace(topics=2)
    first = next(each for each in kafka.records if each.partition == 0)
    old = Record(0, len(kafka.letters), first.stamp_ms - 1, b"k", b"from the earlier topic")
    kafka.letters.append(Letter(old, tuple({**dict(kafka.letters[0].headers), "offset": b"3"}.items())))
    report = verify_snapshot(kafka, earlier, (TOPIC, DLQ), COUNTING)
    assert report.differences == []
    assert report.not_checked[0].startswith("what was counted from an earlier topic")
    assert differences(kafka, snapshot) != []


def test_a_dead_letter_topic_without_its_beginning() -> None:
    kafka, snapshot = a_long_world()
    kafka.dlq_start = 3
    report = verify_snapshot(kafka, snapshot, (TOPIC, DLQ), COUNTING)
    assert report.differences == []
    assert report.not_checked == ["3 dead letters: the dead-letter topic begins at offset 3"]
    removed = kafka.letters[5]
    kafka.letters[5] = kafka.letters[6]
    assert any("missing" in each for each in differences(kafka, snapshot))
    assert removed != kafka.letters[5]


def test_rows_older_than_the_history_may_be_there_or_not() -> None:
    kafka = Kafka()
    kafka.send("stream-1", 0, "chat_message", message_len=1)
    early = snapshot_of(kafka)
    (old_key, old_row), *_ = early.minutes.items()
    day = (NOON + 31 * 86_400) * 1000
    value = (kafka.records[0].value or b"").replace(b"2026-03-01T12:00", b"2026-04-01T12:00").replace(b"-1", b"-3")
    kafka.records.append(Record(partition_of(b"stream-3", PARTITIONS), 0, day, b"stream-3", value))
    kafka.records[-1] = kafka.records[-1]._replace(
        offset=sum(1 for each in kafka.records[:-1] if each.partition == kafka.records[-1].partition)
    )
    snapshot = snapshot_of(kafka)
    assert old_key not in snapshot.minutes
    assert "stream-1" not in snapshot.states
    assert differences(kafka, snapshot) == []
    snapshot.minutes[old_key] = old_row._replace(chat_messages=99)
    snapshot.states["stream-1"] = StateRow(0, snapshot.ledger_clocks_us[0] or 0)
    report = verify_snapshot(kafka, snapshot, (TOPIC, DLQ), COUNTING)
    assert report.differences == []
    assert report.not_checked == [
        "1 rows that are older than 30 days",
        "the state of 1 streams that are older than 30 days",
    ]
    edge = (snapshot.ledger_clocks_us[0] or 0) - 30 * DAY_US
    at_edge = edge - edge % MINUTE_US + MINUTE_US
    snapshot.minutes[at_edge, "stream-1"] = old_row
    assert differences(kafka, snapshot)[0].endswith("'stream-1': the row should not be there")


def test_many_differences_are_counted_and_the_first_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kafka, snapshot = a_right_world()
    for key, row in snapshot.minutes.items():
        snapshot.minutes[key] = row._replace(joins=row.joins + 1)

    def verified(*arguments: object) -> Report:
        assert isinstance(arguments[3], int)
        return verify_snapshot(kafka, snapshot, (TOPIC, DLQ), COUNTING, arguments[3])

    monkeypatch.setattr(command, "verify", verified)
    monkeypatch.setattr(command, "load", lambda kind: kind)
    assert command.run(argparse.Namespace(json=False, show=2)) == 1
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 4
    assert shown[2] == "... and 34 more differences"
    assert shown[3].startswith("verify  32 records, 36 rows, 3 streams, 18 dead letters: 36 differences")
    assert command.run(argparse.Namespace(json=True, show=1)) == 1
    printed = json.loads(capsys.readouterr().out)
    assert (printed["ok"], printed["difference_count"], len(printed["differences"])) == (False, 36, 1)
