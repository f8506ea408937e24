"""When one viewer was present on one stream: pure functions over the few events that can matter.

For each window that is not settled, these are kept, in ascending order:

- ``times``: the times of the viewer's first and newest event (one entry where they are the same event);
- ``joins`` and ``leaves``: the viewer's newest join and newest leave;
- ``stops``: the stream's newest stop.

This is enough. The viewer time-out is never shorter than a window, so it cannot pass between two events of one window.
The newest join, leave or stop of a window therefore decides whether the viewer is present when the window ends. In a
window without any of them the first event tells whether the time-out had passed before it. While the viewer is
present, the time-out runs from the newest event.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Final

from streampulse.job.counting.changes import WINDOW_US

#: A join, leave or stop by its place in the contract's order: time in microseconds, and event id.
Mark = tuple[int, bytes]
#: A presence counts in the windows [start, end); start None: it began before the fold.
Span = tuple[int | None, int]
_NEVER: Final[Mark] = (-1, b"")


def presences(
    settled: int | None,
    times: Sequence[int],
    joins: Sequence[Mark],
    leaves: Sequence[Mark],
    stops: Sequence[Mark],
    timeout_us: int,
    until: int | None = None,
) -> tuple[list[Span], int | None]:
    """Return a viewer's presences, and the time of the last event while present after them (None: absent then).

    The time-out may have passed since that last event. All times are in microseconds since the epoch.

    :param settled: time of the viewer's last event before the fold, while present there; None: absent.
    :param timeout_us: the viewer time-out, a window at least.
    :param until: consider only what is before this time, which is the beginning of a window.
    """
    reach = timeout_us - 1
    spans: list[Span] = []
    last, start, passed = settled, None, 0
    for window, first, newest, joined, ended in _windows(times, joins, leaves, stops, until):
        begins = window * WINDOW_US
        if last is not None and (stop := _stop_between(stops, passed, begins)) is not None:
            spans.append((start, min(stop, last + reach) // WINDOW_US))
            last = None
        passed = begins + WINDOW_US
        timed_out = last is not None and first - last > reach
        if last is not None and (timed_out or (joined is None and ended is not None)):
            end = first if timed_out or ended is None else ended
            spans.append((start, min(end, last + reach) // WINDOW_US))
            last = None
        if joined is not None:
            start = window if last is None else start
            last = newest
        elif last is not None:
            last = newest
    if last is not None and (stop := _stop_between(stops, passed, until)) is not None:
        spans.append((start, min(stop, last + reach) // WINDOW_US))
        last = None
    if last is not None:
        spans.append((start, (last + reach) // WINDOW_US))
    return spans, last


def _windows(
    times: Sequence[int], joins: Sequence[Mark], leaves: Sequence[Mark], stops: Sequence[Mark], until: int | None
) -> Iterator[tuple[int, int, int, int | None, int | None]]:
    """Yield what decides a viewer's presence for each window with events of the viewer, in order.

    :returns: the window, the times of the first and of the newest event, and either the time of a join that nothing
        ended in the window, or the time of the leave or stop that no join followed in it.
    """
    joining, leaving = iter(joins), iter(leaves)
    join, leave = next(joining, None), next(leaving, None)
    position, count = 0, len(times) if until is None else bisect_left(times, until)
    while position < count:
        first = newest = times[position]
        window = first // WINDOW_US
        ends = (window + 1) * WINDOW_US
        position += 1
        if position < count and times[position] < ends:
            newest = times[position]
            position += 1
        joined, ended = _NEVER, mark_within(stops, ends - WINDOW_US) or _NEVER
        if join is not None and join[0] < ends:
            joined, join = join, next(joining, None)
        if leave is not None and leave[0] < ends:
            ended, leave = max(leave, ended), next(leaving, None)
        stays = joined > ended
        yield window, first, newest, joined[0] if stays else None, None if stays or ended is _NEVER else ended[0]


def _stop_between(stops: Sequence[Mark], start: int, end: int | None) -> int | None:
    """Return the time of the first stop at or after ``start`` and before ``end``, None where there is none."""
    position = bisect_left(stops, (start,))
    if position == len(stops) or (end is not None and stops[position][0] >= end):
        return None
    return stops[position][0]


def times_within(times: Sequence[int], start: int) -> tuple[int, int]:
    """Return the slice bounds of the window that begins at ``start``."""
    first = end = bisect_left(times, start)
    while end < len(times) and times[end] < start + WINDOW_US:
        end += 1
    return first, end


def insert_time(times: list[int], start: int, ts: int) -> None:
    """Keep a time if it is the first or the newest of the window that begins at ``start``."""
    first, end = times_within(times, start)
    if first == end or ts < times[first]:
        if end - first == 2:
            times[first] = ts
        else:
            times.insert(first, ts)
    elif ts > times[end - 1]:
        if end - first == 2:
            times[first + 1] = ts
        else:
            times.insert(end, ts)


def mark_within(marks: Sequence[Mark], start: int) -> Mark | None:
    """Return the mark of the window that begins at ``start``, None where there is none."""
    position = bisect_left(marks, (start,))
    return marks[position] if position < len(marks) and marks[position][0] < start + WINDOW_US else None


def insert_mark(marks: list[Mark], start: int, mark: Mark) -> None:
    """Keep a mark if it is the newest of the window that begins at ``start``."""
    position = bisect_left(marks, (start,))
    if position == len(marks) or marks[position][0] >= start + WINDOW_US:
        marks.insert(position, mark)
    elif marks[position] < mark:
        marks[position] = mark
