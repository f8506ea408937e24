"""A backlog: the same partition logs for any number of processes, inside its time span, in measured shares."""

import argparse
import dataclasses
import json
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streampulse import events as contract
from streampulse.core.errors import OperatorError
from streampulse.core.settings import KafkaSettings
from streampulse.generator import fill
from streampulse.generator.backlog import Plan, apportion, interleaved, share_out
from streampulse.generator.bulk import BulkSender
from streampulse.generator.faults import Record, Shares
from streampulse.generator.model import MINUTE_US
from streampulse.host.cli import main

END_US = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z
PARTITIONS = 4
PLAN = Plan(
    events=20_000,
    begin_us=END_US - 90 * MINUTE_US,
    end_us=END_US,
    partitions=PARTITIONS,
    streams=30,
    users=500,
    skew=1.0,
    seed=1,
    shares=Shares(duplicates=0.02, disorder=0.05, late=0.01, garbage=0.02),
)


def logs(plan: Plan, processes: int, turn: int = 700) -> dict[int, list[Record]]:
    """Return each partition's log, with the processes run one after the other."""
    written: dict[int, list[Record]] = {}
    for load in share_out(plan.parts(), processes):
        for partition, records in interleaved(load, turn):
            written.setdefault(partition, []).extend(records)
    return written


def test_the_log_of_a_partition_does_not_depend_on_the_processes() -> None:
    alone = logs(PLAN, 1)
    for processes, turn in ((1, 13), (2, 700), (3, 5_000), (4, 700), (9, 1)):
        assert logs(PLAN, processes, turn) == alone
    assert logs(dataclasses.replace(PLAN, seed=2), 1) != alone


def test_each_partition_is_written_by_one_process() -> None:
    for processes in (1, 2, 3, 4, 9):
        loads = share_out(PLAN.parts(), processes)
        assert len(loads) == min(processes, PARTITIONS)
        assert sorted(part.partition for load in loads for part in load) == list(range(PARTITIONS))


def test_every_record_has_the_contracts_partition_and_its_intended_outcome() -> None:
    good = dict.fromkeys(range(PARTITIONS), 0)
    outcomes: Counter[str] = Counter()
    for partition, records in logs(PLAN, 2).items():
        clock, seen = 0, set()
        for record in records:
            try:
                event = contract.parse(record.key, record.value, partition, PARTITIONS)
            except contract.InvalidEvent as error:
                outcomes["elsewhere" if error.detail.startswith("partition") else "invalid"] += 1
                continue
            # Sent when it ends at the earliest, and some years later at the latest.
            if event.ts_us > END_US + contract.ALLOWED_FUTURE_US:
                assert event.ts_us > END_US + 9 * 365 * 86_400 * 1_000_000
                outcomes["future"] += 1
                continue
            if clock - event.ts_us > contract.ALLOWED_LATENESS_US:
                outcomes["late"] += 1
                continue
            clock = max(clock, event.ts_us)
            if event.event_id in seen:
                outcomes["duplicate"] += 1
                continue
            seen.add(event.event_id)
            good[partition] += 1
            assert PLAN.begin_us < event.ts_us <= END_US
        assert clock > END_US - 2 * MINUTE_US
    assert outcomes["elsewhere"] == 0
    assert sum(good.values()) == PLAN.events
    assert good == {part.partition: part.events for part in PLAN.parts()}
    # Disorder takes an event out of the other draws, so the shares are slightly lower.
    assert outcomes["duplicate"] == pytest.approx(0.02 * PLAN.events, rel=0.25)
    assert outcomes["late"] == pytest.approx(0.01 * PLAN.events, rel=0.25)
    assert outcomes["invalid"] + outcomes["future"] == pytest.approx(0.02 * PLAN.events, rel=0.25)
    assert outcomes["future"] > 0


def test_the_streams_are_the_steady_generators_and_the_first_has_most() -> None:
    plan = dataclasses.replace(PLAN, shares=Shares())
    counts = Counter(record.key for records in logs(plan, 1).values() for record in records)
    assert len(counts) == plan.streams
    assert counts.most_common(1)[0][1] > 0.15 * plan.events
    alike = dataclasses.replace(plan, skew=0.0)
    counts = Counter(record.key for records in logs(alike, 1).values() for record in records)
    assert max(counts.values()) < 0.06 * plan.events


def test_partitions_advance_together() -> None:
    clocks: dict[int, int] = {}
    plan = dataclasses.replace(PLAN, shares=Shares())
    for partition, records in interleaved(plan.parts(), 1_000):
        clocks[partition] = contract.parse(records[-1].key, records[-1].value, partition, PARTITIONS).ts_us
        if len(clocks) == PARTITIONS and max(clocks.values()) < END_US - 10 * MINUTE_US:
            assert max(clocks.values()) - min(clocks.values()) < 10 * MINUTE_US


@given(st.integers(0, 10_000), st.lists(st.floats(0, 100), min_size=1, max_size=8).filter(any))
def test_apportioned_parts_are_whole_close_and_add_up(total: int, weights: list[float]) -> None:
    counts = apportion(total, weights)
    assert sum(counts) == total
    for count, weight in zip(counts, weights, strict=True):
        assert abs(count - total * weight / sum(weights)) <= 1.000_001


class Written:
    """Substitute for Kafka: stores each sender's records."""

    def __init__(self, *_: object) -> None:
        self.records: dict[int, list[Record]] = {}
        self.flushed = False

    def send(self, partition: int, records: Sequence[Record]) -> None:
        self.records.setdefault(partition, []).extend(records)

    def flush(self) -> None:
        self.flushed = True


def test_a_process_sends_its_parts_and_waits_for_acknowledgement(monkeypatch: pytest.MonkeyPatch) -> None:
    sender = Written()
    monkeypatch.setattr(fill, "BulkSender", lambda _: sender)
    counts = fill._send(PLAN.parts(), None)  # type: ignore[arg-type]
    assert sender.flushed
    assert counts == {partition: len(records) for partition, records in sender.records.items()}
    assert sender.records == logs(PLAN, 1)


@pytest.fixture
def kafka(monkeypatch: pytest.MonkeyPatch) -> list[Plan]:
    """Substitute for Kafka in tests of the command: yields its plans."""
    monkeypatch.setenv("STREAMPULSE_KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    monkeypatch.setenv("STREAMPULSE_KAFKA_TOPIC", "stream.events")
    monkeypatch.setenv("STREAMPULSE_KAFKA_DLQ_TOPIC", "stream.events.dlq")
    monkeypatch.setattr(BulkSender, "partitions", lambda _: PARTITIONS)
    plans: list[Plan] = []

    def carry_out(plan: Plan, *_: object) -> dict[int, int]:
        plans.append(plan)
        return {part.partition: part.events for part in plan.parts()}

    monkeypatch.setattr(fill, "fill", carry_out)
    return plans


def test_the_command_says_how_to_get_the_same_again(kafka: list[Plan], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fill", "--events", "5000", "--minutes", "30", "--garbage", "0.1"]) == 0
    words = capsys.readouterr().out.split("same again: ")[1].split()
    assert main(["fill", "--events", "5000", "--minutes", "30", "--garbage", "0.1", *words]) == 0
    assert kafka[0] == kafka[1]
    assert kafka[0].end_us - kafka[0].begin_us == 30 * MINUTE_US


@pytest.mark.parametrize(
    "words", [["--events", "0"], ["--events", "x"], ["--minutes", "nan"], ["--until", "today"], ["--processes", "0"]]
)
def test_wrong_words_are_refused(words: list[str]) -> None:
    parser = argparse.ArgumentParser()
    fill.add_arguments(parser)
    with pytest.raises(SystemExit) as caught:
        parser.parse_args(words)
    assert caught.value.code == 2


def test_a_broker_that_is_away_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streampulse.generator.bulk._CONNECT_SECONDS", 0.2)
    settings = KafkaSettings(bootstrap_servers="127.0.0.1:1", topic="t", dlq_topic="d")
    with pytest.raises(OperatorError, match=r"Kafka at 127\.0\.0\.1:1 does not answer"):
        BulkSender(settings).partitions()


@pytest.mark.usefixtures("kafka")
def test_the_answer_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fill", "--events", "5000", "--json", "--seed", "3"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["events"], answer["seed"], sum(answer["records"].values())) == (5_000, 3, 5_000)
