"""What the counting costs: in lines of the counting that were executed, not in time, so that no machine is too slow."""

import sys
import uuid
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any

from streampulse.job import counting
from streampulse.job.counting.engine import Engine
from streampulse.job.rows import CHAT_MESSAGE, STREAM_STOP, VIEWER_JOIN, Rows

MINUTE_US = 60_000_000
NOW_US = 29_000_000 * MINUTE_US
TIMEOUT_US = 6 * 3_600 * 1_000_000

# Any large odd number: it puts ids, and times below, into no order.
_SCATTER = 0x9E3779B97F4A7C15F39CC0605CEDC835

Entry = tuple[str, str, int, int]
"""Stream, user, event type and time of one event."""


def lines_executed(action: Callable[[], object]) -> int:
    """Return how many lines of the counting an action executes."""
    count = 0

    def inside(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        del frame, argument
        count += event == "line"
        return inside

    def entering(frame: FrameType, event: str, argument: Any) -> Any:
        del event, argument
        return inside if frame.f_code.co_filename.startswith(counting.__path__[0]) else None

    before = sys.gettrace()
    sys.settrace(entering)
    try:
        action()
    finally:
        sys.settrace(before)
    return count


class Feeder:
    """Makes rows with offsets and event ids of their own and applies them as batches of partition 0."""

    def __init__(self, timeout_us: int = TIMEOUT_US) -> None:
        self.engine = Engine(timeout_us)
        self._offset = 0

    def rows(self, entries: Iterable[Entry]) -> Rows:
        rows, streams, viewers = Rows(0), dict[str, int](), dict[tuple[int, str], int]()
        for stream, user, code, ts in entries:
            number = streams.setdefault(stream, len(streams))
            rows.offset.append(self._offset)
            rows.ts_us.append(ts)
            rows.viewer.append(viewers.setdefault((number, user), len(viewers)))
            rows.code.append(code)
            rows.cents.append(0)
            rows.event_ids += uuid.UUID(int=self._offset * _SCATTER % 2**128).bytes
            self._offset += 1
        rows.streams[:], rows.viewers[:] = list(streams), list(viewers)
        return rows

    def feed(self, entries: Iterable[Entry]) -> int:
        """Apply one batch and return how many lines of the counting it took."""
        rows = self.rows(entries)
        return lines_executed(lambda: self.engine.apply([(rows, self._offset)]))


def joins(viewers: int, ts: int) -> list[Entry]:
    return [("a", f"u{number}", VIEWER_JOIN, ts) for number in range(viewers)]


def stops(times: Iterable[int]) -> list[Entry]:
    return [("a", "host", STREAM_STOP, ts) for ts in times]


def idle(streams: int, code: int = CHAT_MESSAGE) -> list[Entry]:
    return [(f"idle-{number}", "u", code, NOW_US + number % 60 * 1_000_000) for number in range(streams)]


def test_a_batch_costs_with_5000_idle_streams_as_with_50() -> None:
    costs = []
    for streams in (50, 5_000):
        feeder = Feeder(timeout_us=2 * MINUTE_US)
        feeder.feed(idle(streams, VIEWER_JOIN))
        feeder.feed([("a", "u", VIEWER_JOIN, NOW_US + MINUTE_US)])
        same_minute = feeder.feed([("a", "u", CHAT_MESSAGE, NOW_US + MINUTE_US + 1)])
        # In the minute in which the viewers' time runs out, a batch visits those whose time ran out since the last.
        feeder.feed([("a", "u", CHAT_MESSAGE, NOW_US + 2 * MINUTE_US + 500_000)])
        expiring = feeder.feed([("a", "u", CHAT_MESSAGE, NOW_US + 2 * MINUTE_US + 500_001)])
        costs.append((same_minute, expiring))
        assert feeder.engine.size()["streams"] == streams + 1
    assert costs[0] == costs[1]


def test_streams_without_viewers_cost_nothing_when_the_minute_moves() -> None:
    costs = []
    for streams in (50, 5_000):
        feeder = Feeder()
        feeder.feed(idle(streams))
        costs.append([feeder.feed([("a", "u", CHAT_MESSAGE, NOW_US + n * MINUTE_US)]) for n in range(1, 10)])
    assert costs[0] == costs[1]


def test_stops_cost_as_much_as_the_viewers_they_end() -> None:
    viewers, count = 200, 100
    spread = 9 * MINUTE_US // count
    for times in (
        [NOW_US - (9 * MINUTE_US - spread * number) for number in range(count)],
        [NOW_US - spread * number for number in range(count)],
        [NOW_US] * count,
        [NOW_US - number * _SCATTER % (9 * MINUTE_US) for number in range(count)],
    ):
        feeder = Feeder()
        cost = feeder.feed(joins(viewers, NOW_US - 9 * MINUTE_US - 1) + stops(times))
        assert cost < 300 * (viewers + count)


def test_stops_of_an_empty_stream_cost_nothing_for_its_viewers() -> None:
    viewers, count = 200, 100
    feeder = Feeder()
    feeder.feed([("a", f"u{number}", CHAT_MESSAGE, NOW_US) for number in range(viewers)])
    alone = Feeder().feed(stops(NOW_US + 1 + number for number in range(count)))
    assert feeder.feed(stops(NOW_US + 1 + number for number in range(count))) < alone + 300


def test_each_late_stop_among_joins_costs_a_few_lines() -> None:
    # Every viewer joins again after every stop, and all of it comes in the worst order.
    rounds, viewers = 50, 40
    entries: list[Entry] = []
    for number in range(rounds):
        ts = NOW_US - number * 10_000_000
        entries += [*joins(viewers, ts), *stops([ts - 1])]
    assert Feeder().feed(entries) < 200 * len(entries)


def test_a_busy_viewer_costs_the_same_for_each_event() -> None:
    # A bot with stamps of whole seconds: many events at the same instant, in any order of their ids.
    events = 600
    for times in (
        [NOW_US + number // 100 * 1_000_000 for number in range(events)],
        [NOW_US - number * 1_000 for number in range(events)],
        [NOW_US - number * 900_000 for number in range(events)],
    ):
        feeder = Feeder()
        feeder.feed(joins(1, NOW_US - 10 * MINUTE_US))
        for begin in range(0, events, 100):
            assert feeder.feed(("a", "u0", CHAT_MESSAGE, ts) for ts in times[begin : begin + 100]) < 100 * 100


def test_a_busy_viewer_holds_what_matters_of_each_window() -> None:
    feeder = Feeder()
    feeder.feed(joins(1, NOW_US))
    for number in range(10):
        feeder.feed(("a", "u0", VIEWER_JOIN, NOW_US + 1 + event) for event in range(number, 1_000, 10))
    # An event before all others makes the engine recompute its window, in fewer than a thousand steps.
    assert feeder.feed([("a", "u0", VIEWER_JOIN, NOW_US - 1)]) < 1_000
