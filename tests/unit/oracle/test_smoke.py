"""The smoke test's own arithmetic: its expected row follows from the contract."""

import datetime
import json
from decimal import Decimal

import pytest

from streampulse.core.errors import OperatorError
from streampulse.events import Event, partition_of
from streampulse.host import smoke
from streampulse.oracle.decide import PartitionLog, Record
from streampulse.oracle.tables import tables

PARTITIONS = 4
NOW = datetime.datetime(2026, 3, 1, 12, 0, 0, 1, tzinfo=datetime.UTC)
MOMENTS = [NOW.replace(second=second) for second in (0, 1, 30, 59)] + [
    NOW.replace(hour=0, minute=0, microsecond=0),
    datetime.datetime(2024, 2, 29, 23, 59, 59, 999_999, tzinfo=datetime.UTC),
    datetime.datetime(2026, 3, 1, 12, tzinfo=datetime.timezone(datetime.timedelta(hours=5, minutes=45))),
]
#: The extremes of the partition's clock when the events arrive, in seconds from now; None: no clock yet.
CLOCKS = [None, -86_400 * 20, -3600, -60, 0, 299]


def micros(moment: datetime.datetime) -> int:
    return (moment - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)) // datetime.timedelta(microseconds=1)


@pytest.mark.parametrize("now", MOMENTS)
@pytest.mark.parametrize("clock", CLOCKS)
def test_its_events_give_exactly_the_expected_row(now: datetime.datetime, clock: int | None) -> None:
    plan = smoke.plan(now)
    key = plan.stream_id.encode()
    log = PartitionLog(partition_of(key, PARTITIONS), PARTITIONS)
    log.clock_us = None if clock is None else micros(now) + clock * 1_000_000
    accepted: list[Event] = []
    for offset, value in enumerate(plan.values):
        # The broker's clock may be a little behind or ahead of this host's.
        stamp = micros(now) // 1000 + (-2000 if offset % 2 else 2000)
        decision = log.decide(Record(log.partition, offset, stamp, key, value))
        assert decision.outcome in ("accepted", "duplicate")
        if decision.outcome == "accepted" and decision.event is not None:
            accepted.append(decision.event)
    assert len(accepted) == len(plan.values) - 1, "one is a duplicate"
    clocks = {} if log.clock_us is None else {log.partition: log.clock_us}
    computed = tables({plan.stream_id: accepted}, clocks, 6 * 3600 * 1_000_000, 36_500, log.own_clocks_us)
    ((window, stream_id), row), *more = computed.minutes.items()
    assert more == []
    assert (window, stream_id) == (micros(plan.window_start), plan.stream_id)
    columns = row._asdict()
    columns["donations_usd"] = Decimal(columns.pop("donations_cents")) / 100
    assert columns == smoke.EXPECTED
    assert computed.states[plan.stream_id].active_viewers == 0
    assert computed.states[plan.stream_id].updated_at_us >= micros(plan.newest)


def test_its_stream_is_its_own_and_internal() -> None:
    one, other = smoke.plan(NOW), smoke.plan(NOW)
    assert one.stream_id.startswith("__smoke-")
    assert one.stream_id != other.stream_id
    assert not set(one.values) & set(other.values)
    assert all(json.loads(value)["stream_id"] == one.stream_id for value in one.values)


def a_right_row() -> dict[str, object]:
    return {"window_start": smoke.plan(NOW).window_start, "stream_id": "x", **smoke.EXPECTED}


def test_a_right_row_is_right_as_postgresql_and_as_the_api_give_it() -> None:
    start = smoke.plan(NOW).window_start
    assert smoke.differences([a_right_row()], start) == []
    from_api = {**a_right_row(), "window_start": "2026-03-01T11:59:00Z", "donations_usd": "12.30"}
    assert smoke.differences([from_api], start) == []


@pytest.mark.parametrize("column", list(smoke.EXPECTED))
def test_every_column_is_compared(column: str) -> None:
    start = smoke.plan(NOW).window_start
    assert smoke.differences([{**a_right_row(), column: 99}], start) == [
        f"{column} is 99 instead of {smoke.EXPECTED[column]}"
    ]
    assert smoke.differences([{**a_right_row(), column: None}], start)
    without = {name: value for name, value in a_right_row().items() if name != column}
    assert smoke.differences([without], start)


def test_rows_too_few_too_many_or_elsewhere() -> None:
    start = smoke.plan(NOW).window_start
    assert smoke.differences([], start) == ["0 rows instead of 1"]
    assert smoke.differences([a_right_row()] * 2, start) == ["2 rows instead of 1"]
    (moved,) = smoke.differences([{**a_right_row(), "window_start": "2026-03-01T12:00:00Z"}], start)
    assert moved.startswith("window_start is 2026-03-01 12:00:00+00:00")


def test_the_apis_address() -> None:
    everywhere = "0.0.0.0"  # noqa: S104 - nothing is bound here
    assert smoke._api_url({"STREAMPULSE_API_URL": "http://h:1", "STREAMPULSE_API_PORT": "8000"}) == "http://h:1"
    assert smoke._api_url({"STREAMPULSE_API_PORT": "8000"}) == "http://127.0.0.1:8000"
    assert (
        smoke._api_url({"STREAMPULSE_API_PORT": "8000", "STREAMPULSE_API_HOST": everywhere}) == "http://127.0.0.1:8000"
    )
    assert (
        smoke._api_url({"STREAMPULSE_API_PORT": "8000", "STREAMPULSE_API_HOST": "10.0.0.1"}) == "http://10.0.0.1:8000"
    )
    with pytest.raises(OperatorError, match="--api-url"):
        smoke._api_url({})
