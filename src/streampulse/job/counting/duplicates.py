"""Which event ids were accepted, as long as a duplicate of one can still be told from a new event."""

from array import array
from collections.abc import Mapping

from streampulse.events import ALLOWED_LATENESS_US
from streampulse.job.counting.changes import WINDOW_US


class WindowIds:
    """The accepted event ids of one window of a stream, with the time of each."""

    __slots__ = ("_time_by_id", "ids", "times")

    def __init__(self) -> None:
        self.ids: list[bytes] = []
        self.times = array("q")
        self._time_by_id: dict[bytes, int] = {}

    def time_of(self, event_id: bytes) -> int:
        """Return the time of an accepted id in microseconds. Only the first question visits every id of the window."""
        known = len(self._time_by_id)
        if known < len(self.ids):
            self._time_by_id.update(zip(self.ids[known:], self.times[known:], strict=True))
        return self._time_by_id[event_id]

    def forget(self, seen: dict[bytes, int], window: int) -> None:
        """Remove these ids from a stream's ids where they still stand for this window."""
        for event_id in self.ids:
            # The same id may have been accepted again since, with a newer time.
            if seen.get(event_id) == window:
                del seen[event_id]


def is_duplicate(event_id: bytes, window: int, windows: Mapping[int, WindowIds], clock: int | None) -> bool:
    """Tell whether an id that was accepted before counts as seen: its time is at most ten minutes before the clock.

    :param window: the window of the accepted event.
    :param clock: the partition's clock in microseconds since the epoch.
    """
    if clock is None:
        return True
    oldest = clock - ALLOWED_LATENESS_US
    if window != oldest // WINDOW_US:
        return window > oldest // WINDOW_US
    return windows[window].time_of(event_id) >= oldest
