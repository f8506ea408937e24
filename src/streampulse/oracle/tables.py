"""The expected tables from the accepted events and the clocks, by sets, sorted lists and integers.

Times are microseconds since the epoch, money is hundredths of a dollar.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from streampulse.events import Event, is_internal

MINUTE_US: Final = 60_000_000
DAY_US: Final = 86_400_000_000
_VIEWER_EVENTS: Final = frozenset({"viewer_join", "viewer_leave", "chat_message", "donation"})


class MinuteRow(NamedTuple):
    """The columns of one row of ``stream_metrics_minute`` after its key."""

    chat_messages: int
    donations: int
    donations_cents: int
    joins: int
    leaves: int
    unique_viewers: int
    active_viewers: int


class StateRow(NamedTuple):
    """The columns of one row of ``stream_state`` after its key."""

    active_viewers: int
    updated_at_us: int


class Tables(NamedTuple):
    """Both tables: minute rows by (window start, stream), state rows by stream; and each stream's last event's time."""

    minutes: dict[tuple[int, str], MinuteRow]
    states: dict[str, StateRow]
    last_events: dict[str, int]


class Presence(NamedTuple):
    """One stay of one viewer: from the join at ``joined_us`` until ``gone_us``.

    ``timed_out`` tells how it ended: by the time-out, or by a leave or stop. At the instant of a leave the viewer still
    counts as present, since only events before a window's end count. At the instant of the time-out the viewer does
    not.
    """

    joined_us: int
    gone_us: int
    timed_out: bool


def window_of(ts_us: int) -> int:
    """Return the start of the minute window that holds an instant."""
    return ts_us - ts_us % MINUTE_US


def presences(events: Iterable[Event], viewer_timeout_us: int) -> list[Presence]:
    """Return every viewer's stays on one stream.

    :param events: the stream's accepted events in the order (ts, event_id).
    :param viewer_timeout_us: a viewer without any event for this long is gone.
    """
    stays: list[Presence] = []
    joined: dict[str, int] = {}  # the users present, with the time of the join
    last: dict[str, int] = {}  # and of their last event

    def end(user: str, ts_us: int) -> None:
        """End a user's presence at an event at ts_us, or earlier if the time-out had passed by then."""
        timeout = last[user] + viewer_timeout_us
        if timeout <= ts_us:
            stays.append(Presence(joined[user], timeout, timed_out=True))
        else:
            stays.append(Presence(joined[user], ts_us, timed_out=False))
        del joined[user], last[user]

    for event in events:
        user = event.user_id
        if user in joined and last[user] + viewer_timeout_us <= event.ts_us:
            end(user, event.ts_us)
        if user in joined:
            last[user] = event.ts_us
        if event.event_type == "viewer_join" and user not in joined:
            joined[user] = last[user] = event.ts_us
        elif event.event_type == "viewer_leave" and user in joined:
            end(user, event.ts_us)
        elif event.event_type == "stream_stop":
            for present in list(joined):
                end(present, event.ts_us)
    stays.extend(Presence(joined[user], last[user] + viewer_timeout_us, timed_out=True) for user in joined)
    return stays


def active_at_ends(stays: Iterable[Presence], clock_us: int) -> dict[int, int]:
    """Return the number of viewers present at the end of each window up to the clock's, without zeros.

    A stay covers the window ends x with joined < x, and x <= gone for a leave or stop, x < gone for a time-out.
    """
    last_window = window_of(clock_us)
    change: Counter[int] = Counter()
    for stay in stays:
        first_window = window_of(stay.joined_us)
        # The last covered window end x; its window starts at x - 1 minute.
        last_end = window_of(stay.gone_us - 1 if stay.timed_out else stay.gone_us)
        final_window = min(last_end - MINUTE_US, last_window)
        if first_window <= final_window:
            change[first_window] += 1
            change[final_window + MINUTE_US] -= 1
    active: dict[int, int] = {}
    present = 0
    changes = sorted(change.items())
    for (window, step), (following, _) in itertools.pairwise(changes):
        present += step
        if present:
            for start in range(window, following, MINUTE_US):
                active[start] = present
    return active


def active_just_after(stays: Iterable[Presence], clock_us: int) -> int:
    """Return the number of viewers present just after the clock: events at the clock have happened."""
    return sum(1 for stay in stays if stay.joined_us <= clock_us < stay.gone_us)


def stream_tables(
    events: Sequence[Event], clock_us: int, viewer_timeout_us: int
) -> tuple[dict[int, MinuteRow], StateRow]:
    """Compute one stream's minute rows, by window start, and its state row, without regard to history.

    :param events: the stream's accepted events, in any order, none past the clock.
    :param clock_us: the event clock, or the stream's own clock if it is internal.
    :param viewer_timeout_us: a viewer without any event for this long is gone.
    """
    ordered = sorted(events, key=lambda event: (event.ts_us, event.event_id))
    by_window: dict[int, list[Event]] = {}
    for event in ordered:
        by_window.setdefault(window_of(event.ts_us), []).append(event)
    stays = presences(ordered, viewer_timeout_us)
    active = active_at_ends(stays, clock_us)

    rows: dict[int, MinuteRow] = {}
    for window in by_window.keys() | active.keys():
        inside = by_window.get(window, [])
        types = Counter(event.event_type for event in inside)
        rows[window] = MinuteRow(
            chat_messages=types["chat_message"],
            donations=types["donation"],
            donations_cents=sum(event.amount_cents or 0 for event in inside if event.event_type == "donation"),
            joins=types["viewer_join"],
            leaves=types["viewer_leave"],
            unique_viewers=len({event.user_id for event in inside if event.event_type in _VIEWER_EVENTS}),
            active_viewers=active.get(window, 0),
        )
    return rows, StateRow(active_just_after(stays, clock_us), clock_us)


def event_clock(clocks: Mapping[int, int]) -> int | None:
    """Return the newest clock of all partitions, None while no partition has one."""
    return max(clocks.values(), default=None)


def tables(
    accepted: Mapping[str, Sequence[Event]],
    clocks: Mapping[int, int],
    viewer_timeout_us: int,
    history_days: int,
    own_clocks: Mapping[str, int] | None = None,
    clock_of: Callable[[str], int | None] | None = None,
) -> Tables:
    """Compute both tables.

    :param accepted: the accepted events of each stream, in any order.
    :param clocks: the clock of each partition that has one.
    :param viewer_timeout_us: a viewer without any event for this long is gone.
    :param history_days: rows that begin more than this many days before the event clock are left out, and the state
        of streams that have no row any more.
    :param own_clocks: the newest time of each internal stream.
    :param clock_of: returns the event clock of a stream's rows; None: the newest clock, for all.
    """
    newest = event_clock(clocks)
    minutes: dict[tuple[int, str], MinuteRow] = {}
    states: dict[str, StateRow] = {}
    last_events: dict[str, int] = {}
    for stream_id, events in accepted.items():
        clock = newest if clock_of is None else clock_of(stream_id)
        known = [clock] if clock is not None else []
        if is_internal(stream_id):
            known.append((own_clocks or {})[stream_id])
        if not known:
            raise ValueError(f"events of {stream_id} were accepted, but no partition has a clock")
        stream_clock = max(known)
        rows, state = stream_tables(events, stream_clock, viewer_timeout_us)
        kept = {window: row for window, row in rows.items() if window >= stream_clock - history_days * DAY_US}
        for window, row in kept.items():
            minutes[window, stream_id] = row
        if kept:
            states[stream_id] = state
        last_events[stream_id] = max(event.ts_us for event in events)
    return Tables(minutes, states, last_events)
