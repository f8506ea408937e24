"""The worked examples of docs/semantics.md, by the oracle and by the job, whatever the batches."""

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from deciding import decide, decoded, expected_tables

from streampulse.events import partition_of
from streampulse.job.counting.changes import Changes
from streampulse.job.counting.engine import Engine
from streampulse.oracle import decide as oracle

PAGE = Path(__file__).parents[3] / "docs" / "semantics.md"
DAY = datetime(2026, 3, 1, tzinfo=UTC)
MINUTE_US = 60_000_000
EVENTS = ("arrived", "stream", "user", "type", "ts", "id", "more", "becomes")
ROWS = ("window", "stream", "chat", "donations", "usd", "joins", "leaves", "unique", "active")
STATE = ("stream", "active", "updated_at")

Row = tuple[int, int, Decimal, int, int, int, int]


@dataclass
class Outcome:
    """The result of an example, as documented or as computed: rows and states by their keys in words."""

    becomes: list[str] = field(default_factory=list)
    rows: dict[tuple[str, str], Row] = field(default_factory=dict)
    states: dict[str, tuple[int, str]] = field(default_factory=dict)


@dataclass
class Example:
    name: str
    partitions: int
    timeout_us: int
    records: list[oracle.Record]
    expected: Outcome


def cells(line: str) -> tuple[str, ...]:
    return tuple(cell.strip() for cell in line.strip().strip("|").split("|"))


def markdown_tables(text: str) -> dict[tuple[str, ...], list[tuple[str, ...]]]:
    found: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    lines = text.splitlines()
    for number, line in enumerate(lines[:-1]):
        if line.startswith("|") and set(lines[number + 1]) <= set("|-") and lines[number + 1]:
            body = []
            for following in lines[number + 2 :]:
                if not following.startswith("|"):
                    break
                body.append(cells(following))
            found[cells(line)] = body
    return found


def instant(time: str) -> datetime:
    whole, _, fraction = time.partition(".")
    hours, minutes, seconds = (int(part) for part in whole.split(":"))
    return DAY + timedelta(
        hours=hours, minutes=minutes, seconds=seconds, microseconds=int(fraction.ljust(6, "0")) if fraction else 0
    )


def record(row: tuple[str, ...], partitions: int, offsets: dict[int, int]) -> oracle.Record:
    arrived, stream, user, kind, ts, number, more, _ = row
    event: dict[str, object] = {
        "event_id": f"00000000-0000-4000-8000-{int(number.removeprefix('e')):012}",
        "ts": f"{DAY:%Y-%m-%d}T{ts}Z",
        "event_type": kind,
        "stream_id": stream,
        "user_id": user,
    }
    if kind == "chat_message":
        event["message_len"] = 5
    text = json.dumps(event)
    if more:
        # As it stands in the document: a number's own spelling is part of the example.
        text = f"{text[:-1]}, {more.strip('`')}}}"
    key = stream.encode()
    partition = partition_of(key, partitions)
    offset = offsets[partition] = offsets.get(partition, -1) + 1
    return oracle.Record(partition, offset, round(instant(arrived).timestamp() * 1000), key, text.encode())


def read_examples() -> list[Example]:
    found = []
    for part in PAGE.read_text(encoding="utf-8").split("### Example: ")[1:]:
        # The last one ends where the next heading begins.
        part = part.split("\n## ", 1)[0]
        split = re.search(r"^Partitions: (\d+)\.$", part, re.MULTILINE)
        minutes = re.search(r"^Viewer time-out: (\d+) min\.$", part, re.MULTILINE)
        partitions = int(split[1]) if split else 1
        shown = markdown_tables(part)
        assert set(shown) == {EVENTS, ROWS, STATE}, part.splitlines()[0]
        offsets: dict[int, int] = {}
        expected = Outcome([row[-1] for row in shown[EVENTS]])
        for window, stream, chat, donations, usd, *counts in shown[ROWS]:
            joins, leaves, unique, active = map(int, counts)
            expected.rows[window, stream] = (int(chat), int(donations), Decimal(usd), joins, leaves, unique, active)
        for stream, active_now, updated_at in shown[STATE]:
            expected.states[stream] = (int(active_now), updated_at)
        found.append(
            Example(
                name=part.splitlines()[0],
                partitions=partitions,
                timeout_us=(int(minutes[1]) if minutes else 360) * MINUTE_US,
                records=[record(row, partitions, offsets) for row in shown[EVENTS]],
                expected=expected,
            )
        )
    return found


EXAMPLES = read_examples()


def window_text(us: int) -> str:
    return f"{datetime.fromtimestamp(us // 1_000_000, UTC):%H:%M}"


def clock_text(us: int) -> str:
    text = f"{datetime.fromtimestamp(us // 1_000_000, UTC):%H:%M:%S}"
    return text if us % 1_000_000 == 0 else f"{text}.{us % 1_000_000:06}".rstrip("0")


def described(reason: str, detail: str | None) -> str:
    if reason in oracle.DEAD_LETTER_REASONS:
        # Late and future are about the time stamp by definition, so only the job's letters spell it out.
        return f"{reason} ({(detail or 'ts').partition(':')[0]})"
    return reason


def by_oracle(example: Example) -> Outcome:
    decisions, clocks = decide(example.records, example.partitions)
    computed = expected_tables(decisions, clocks, example.timeout_us, 30)
    outcome = Outcome([described(decision.outcome, decision.detail) for _, decision in decisions])
    for (window, stream), (chats, donations, cents, *counts) in computed.minutes.items():
        joins, leaves, unique, active = counts
        key = window_text(window), stream
        outcome.rows[key] = (chats, donations, Decimal(cents) / 100, joins, leaves, unique, active)
    for stream, state in computed.states.items():
        outcome.states[stream] = (state.active_viewers, clock_text(state.updated_at_us))
    return outcome


def by_job(batches: Callable[[list[oracle.Record]], Iterable[list[oracle.Record]]]) -> Callable[[Example], Outcome]:
    """Return what the job makes of an example in these batches."""

    def run(example: Example) -> Outcome:
        engine, outcome = Engine(example.timeout_us), Outcome()
        fate: dict[tuple[int, int], str] = {}
        own_clocks: dict[str, int | None] = {}
        active: dict[str, int] = {}
        for batch in batches(example.records):
            pieces = decoded(batch, engine.partition_clocks(), example.partitions)
            for letter in (letter for piece in pieces for letter in piece.dead_letters):
                fate[letter.partition, letter.offset] = described(letter.reason, letter.detail)
            changes, accepted = engine.apply([(piece.rows, piece.next_offset) for piece in pieces])
            for rows in accepted:
                fate.update({(rows.partition, offset): oracle.ACCEPTED for offset in rows.offset})
            _write(outcome, changes)
            active.update({presence.stream_id: presence.active_viewers for presence in changes.presences})
            own_clocks.update({presence.stream_id: presence.own_clock_us for presence in changes.presences})
        # A record that was neither counted nor refused is a duplicate.
        outcome.becomes = [fate.get((each.partition, each.offset), oracle.DUPLICATE) for each in example.records]
        for stream, viewers in active.items():
            clocks = [clock for clock in (engine.event_clock_us, own_clocks[stream]) if clock is not None]
            outcome.states[stream] = (viewers, clock_text(max(clocks)))
        return outcome

    return run


def _write(outcome: Outcome, changes: Changes) -> None:
    for cleared in changes.cleared:
        for window in range(cleared.first, cleared.last + 1):
            outcome.rows.pop((window_text(window * MINUTE_US), cleared.stream_id), None)
    for row in changes.rows:
        outcome.rows[window_text(row.window * MINUTE_US), row.stream_id] = (
            row.chat_messages, row.donations, Decimal(row.donations_cents) / 100, row.joins, row.leaves,
            row.unique_viewers, row.active_viewers,
        )  # fmt: skip


def one_batch(records: list[oracle.Record]) -> Iterable[list[oracle.Record]]:
    return [records]


def a_batch_each(records: list[oracle.Record]) -> Iterable[list[oracle.Record]]:
    return [[each] for each in records]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: str(example.name))
@pytest.mark.parametrize(
    "computed",
    [
        pytest.param(by_oracle, id="oracle"),
        pytest.param(by_job(one_batch), id="job in one batch"),
        pytest.param(by_job(a_batch_each), id="job in a batch for each record"),
    ],
)
def test_an_example_has_its_documented_result(example: Example, computed: Callable[[Example], Outcome]) -> None:
    assert computed(example) == example.expected


def test_every_outcome_has_an_example() -> None:
    shown = {becomes.partition(" ")[0] for example in EXAMPLES for becomes in example.expected.becomes}
    assert shown == {oracle.ACCEPTED, oracle.DUPLICATE, *oracle.DEAD_LETTER_REASONS}
