"""One viewer's presences from the few events that are kept, against every event in turn."""

from hypothesis import given
from hypothesis import strategies as st

from streampulse.job.counting.changes import WINDOW_US
from streampulse.job.counting.presence import Mark, insert_mark, insert_time, presences

TIMEOUT_US = 3 * WINDOW_US
JOIN, LEAVE, STOP, CHAT = "join", "leave", "stop", "chat"
Events = list[tuple[int, bytes, str]]


def kept(events: Events) -> tuple[list[int], list[Mark], list[Mark], list[Mark]]:
    """Return times, joins, leaves and stops as the counting keeps them, whatever the order of the events."""
    times: list[int] = []
    marks: dict[str, list[Mark]] = {JOIN: [], LEAVE: [], STOP: []}
    for ts, event_id, kind in events:
        start = ts - ts % WINDOW_US
        if kind != STOP:
            insert_time(times, start, ts)
        if kind in marks:
            insert_mark(marks[kind], start, (ts, event_id))
    return times, marks[JOIN], marks[LEAVE], marks[STOP]


def present_at(events: Events, settled: int | None, instant: int) -> bool:
    """Tell from all events before an instant whether the viewer is present at it."""
    last = settled
    for ts, _, kind in sorted(events):
        if ts >= instant:
            break
        if last is not None and ts - last >= TIMEOUT_US:
            last = None
        if kind == JOIN or (kind == CHAT and last is not None):
            last = ts
        elif kind in (LEAVE, STOP):
            last = None
    return last is not None and instant - last < TIMEOUT_US


times = st.integers(0, 10).flatmap(
    lambda window: st.sampled_from([0, 1, 30_000_000, WINDOW_US - 1]).map(lambda within: window * WINDOW_US + within)
)


@given(
    st.lists(
        st.tuples(times, st.binary(min_size=1, max_size=1), st.sampled_from([JOIN, JOIN, LEAVE, STOP, CHAT, CHAT])),
        unique_by=lambda event: event[:2],
        max_size=20,
    ),
    st.sampled_from([None, -1, 1 - TIMEOUT_US, -WINDOW_US]),
)
def test_the_kept_events_say_as_much_as_all(events: Events, settled: int | None) -> None:
    spans, last = presences(settled, *kept(events), TIMEOUT_US)
    for window in range(16):
        present = any((start is None or start <= window) and window < end for start, end in spans)
        assert present == present_at(events, settled, (window + 1) * WINDOW_US)
    # The settled past of a later fold: what came before it, and what comes after it, say the same as everything.
    fold = 5 * WINDOW_US
    _, then = presences(settled, *kept(events), TIMEOUT_US, fold)
    assert presences(then, *kept([event for event in events if event[0] >= fold]), TIMEOUT_US)[1] == last
