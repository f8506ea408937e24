"""The tables: cases beside the examples of docs/semantics.md, then the rules as written over generated events."""

import itertools
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streampulse.events import Event
from streampulse.oracle.tables import DAY_US, MINUTE_US, MinuteRow, StateRow, stream_tables, tables

S = 1_000_000
HOUR = 3600 * S
#: A minute's start, 2026-03-01T12:00:00Z.
T0 = 1_772_366_400 * S
TIMEOUT = 6 * HOUR

_numbers = itertools.count()


def event(kind: str, at: int, user: str = "u", name: str | None = None, cents: int | None = None) -> Event:
    """Make an accepted event ``at`` microseconds after T0."""
    event_id = name or f"{next(_numbers):08x}-0000-4000-8000-000000000000"
    return Event("s", user, event_id, T0 + at, kind, cents)


def join(at: int, user: str = "u", name: str | None = None) -> Event:
    return event("viewer_join", at, user, name)


def leave(at: int, user: str = "u", name: str | None = None) -> Event:
    return event("viewer_leave", at, user, name)


def chat(at: int, user: str = "u", name: str | None = None) -> Event:
    return event("chat_message", at, user, name)


def stop(at: int, user: str = "owner", name: str | None = None) -> Event:
    return event("stream_stop", at, user, name)


def active(events: Sequence[Event], clock: int, timeout: int = TIMEOUT) -> dict[int, int]:
    """Return active_viewers by minute number after T0; key -1 is the state's."""
    rows, state = stream_tables(events, T0 + clock, timeout)
    numbers = {(window - T0) // MINUTE_US: row.active_viewers for window, row in rows.items()}
    assert all((window - T0) % MINUTE_US == 0 for window in rows)
    return {**numbers, -1: state.active_viewers}


def test_at_its_end_the_time_out_may_have_passed_that_has_not_at_the_clock() -> None:
    # Timed out at 100.5 minutes: present at the clock (100.2), absent at the end of the clock's window (101).
    events = [join(int(0.5 * MINUTE_US))]
    got = active(events, clock=int(100.2 * MINUTE_US), timeout=100 * MINUTE_US)
    assert got[-1] == 1
    assert 100 not in got
    assert got[99] == 1


@pytest.mark.parametrize(("late_by", "there"), [(-1, 1), (0, 0), (1, 0)])
def test_the_time_out_to_the_microsecond(late_by: int, there: int) -> None:
    timeout = 10 * MINUTE_US
    # The state, with another viewer's event moving the clock.
    assert active([join(7)], clock=7 + timeout + late_by, timeout=timeout)[-1] == there
    # A window's end: the join is such that the end of minute 10 is `late_by` off the time-out.
    joined = MINUTE_US - late_by
    got = active([join(joined)], clock=20 * MINUTE_US, timeout=timeout)
    assert got.get(10, 0) == there


@pytest.mark.parametrize(("gap", "there"), [(-1, 1), (0, 0), (1, 0)])
@pytest.mark.parametrize("kind", ["chat_message", "donation", "stream_start"])
def test_any_event_of_the_user_renews_the_time_out_if_it_comes_in_time(kind: str, gap: int, there: int) -> None:
    timeout = 10 * MINUTE_US
    renewal = timeout + gap
    events = [join(0), event(kind, renewal, cents=1 if kind == "donation" else None)]
    assert active(events, clock=renewal, timeout=timeout)[-1] == there
    assert active(events, clock=renewal + timeout - 1, timeout=timeout)[-1] == there
    assert active(events, clock=renewal + timeout, timeout=timeout)[-1] == 0


def test_the_event_clock_is_the_newest_of_all_partitions_and_drives_every_stream() -> None:
    got = tables({"s": [join(0)]}, {0: T0, 1: T0 + 3 * MINUTE_US, 2: T0 - 5}, TIMEOUT, 30)
    assert [window for window, _ in got.minutes] == [T0 + minute * MINUTE_US for minute in range(4)]
    assert got.states == {"s": StateRow(1, T0 + 3 * MINUTE_US)}


def test_an_internal_stream_is_read_at_the_newer_of_the_event_clock_and_its_own() -> None:
    own = [join(2 * MINUTE_US)._replace(stream_id="__smoke-1")]
    older = tables({"__smoke-1": own}, {0: T0}, TIMEOUT, 30, {"__smoke-1": T0 + 2 * MINUTE_US})
    assert older.states["__smoke-1"] == StateRow(1, T0 + 2 * MINUTE_US)
    newer = tables({"__smoke-1": own}, {0: T0 + 4 * MINUTE_US}, TIMEOUT, 30, {"__smoke-1": T0 + 2 * MINUTE_US})
    assert newer.states["__smoke-1"] == StateRow(1, T0 + 4 * MINUTE_US)
    assert len(newer.minutes) == 3
    alone = tables({"__smoke-1": own}, {}, TIMEOUT, 30, {"__smoke-1": T0 + 2 * MINUTE_US})
    assert len(alone.minutes) == 1


def test_history_leaves_out_earlier_windows() -> None:
    old = [chat(0), chat(MINUTE_US), chat(2 * MINUTE_US)]
    clock = T0 + 30 * DAY_US + MINUTE_US
    got = tables({"s": old}, {0: clock}, TIMEOUT, 30)
    assert [window for window, _ in got.minutes] == [T0 + MINUTE_US, T0 + 2 * MINUTE_US]
    gone = tables({"s": old}, {0: clock + 2 * MINUTE_US}, TIMEOUT, 30)
    assert (gone.minutes, gone.states) == ({}, {})
    assert gone.last_events == {"s": T0 + 2 * MINUTE_US}


USERS = st.sampled_from(["a", "b", "c"])
KINDS = st.sampled_from(
    ["viewer_join", "viewer_join", "viewer_leave", "stream_stop", "stream_start", "chat_message", "donation"]
)
# Around minute boundaries and multiples of the time-out, where errors are likely.
MOMENTS = st.builds(
    lambda minute, off: minute * MINUTE_US + off, st.integers(1, 12), st.sampled_from([-1, 0, 1, 0, 30 * S, 17 * S])
)
EVENTS = st.lists(st.tuples(KINDS, MOMENTS, USERS), max_size=14)


def present_at(events: Sequence[Event], happened: Callable[[Event], bool], moment: int, timeout: int) -> int:
    """Count the viewers present at a moment by the written rules alone, user by user."""
    ordered = sorted((each for each in events if happened(each)), key=lambda each: (each.ts_us, each.event_id))
    count = 0
    for user in {each.user_id for each in ordered}:
        present, last = False, 0
        for each in ordered:
            if present and each.ts_us - last >= timeout:
                present = False
            if each.user_id == user:
                last = each.ts_us
                if each.event_type == "viewer_join":
                    present = True
                elif each.event_type == "viewer_leave":
                    present = False
            if each.event_type == "stream_stop":
                present = False
        count += present and moment - last < timeout
    return count


@settings(max_examples=400, deadline=None)
@given(EVENTS.filter(bool), st.sampled_from([1, 2, 3, 5]), st.integers(0, 200 * S), st.randoms(use_true_random=False))
def test_the_tables_word_by_word(
    drawn: list[tuple[str, int, str]], timeout_minutes: int, ahead: int, shuffler: object
) -> None:
    timeout = timeout_minutes * MINUTE_US
    events = [event(kind, at, user, cents=7 if kind == "donation" else None) for kind, at, user in drawn]
    clock = max(each.ts_us for each in events) + ahead
    arrived = list(events)
    shuffler.shuffle(arrived)  # type: ignore[attr-defined]
    rows, state = stream_tables(arrived, clock, timeout)

    first = min(each.ts_us for each in events) // MINUTE_US * MINUTE_US
    expected: dict[int, MinuteRow] = {}
    for start in range(first, clock + 1, MINUTE_US):
        end = start + MINUTE_US
        inside = [each for each in events if start <= each.ts_us < end]
        there = present_at(events, lambda each, end=end: each.ts_us < end, end, timeout)  # type: ignore[misc]
        if inside or there:
            kinds = [each.event_type for each in inside]
            expected[start] = MinuteRow(
                kinds.count("chat_message"),
                kinds.count("donation"),
                7 * kinds.count("donation"),
                kinds.count("viewer_join"),
                kinds.count("viewer_leave"),
                len({each.user_id for each in inside if not each.event_type.startswith("stream_")}),
                there,
            )
    assert rows == expected
    assert state == StateRow(present_at(events, lambda each: each.ts_us <= clock, clock, timeout), clock)
