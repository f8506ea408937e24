"""The counts of one window of one stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streampulse.job.counting.changes import MetricRow
from streampulse.job.counting.duplicates import WindowIds
from streampulse.job.rows import CHAT_MESSAGE, DONATION, STREAM_START, TYPE_CODES, VIEWER_JOIN, VIEWER_LEAVE

if TYPE_CHECKING:
    from streampulse.job.counting.streams import Viewer


class WindowCounts(WindowIds):
    """The counts of an unsettled window, its accepted ids, and the viewers that are settled with it."""

    __slots__ = ("by_type", "cents", "changed", "events", "unique", "viewers", "window")

    def __init__(self, window: int) -> None:
        super().__init__()
        self.window = window
        # Number of events of each type, by the type's code.
        self.by_type = [0] * len(TYPE_CODES)
        self.cents = self.unique = 0
        # Whether the stream has this window among its dirty ones.
        self.changed = False
        # Internal streams only: what a snapshot needs of each event: user, time, id, code, cents.
        self.events: list[tuple[str, int, bytes, int, int]] = []
        self.viewers: list[Viewer] = []

    def count_unique(self, viewer: Viewer, known: bool, code: int) -> None:
        """Count the viewer as unique, once in the window, and settle the viewer with the window.

        A start of the stream does not count its user.

        :param known: whether the viewer has events in the window already.
        """
        if known:
            if code == STREAM_START or viewer.starts is None or self.window not in viewer.starts:
                return
            viewer.starts.remove(self.window)
        else:
            self.viewers.append(viewer)
            if code == STREAM_START:
                viewer.starts = viewer.starts or set()
                viewer.starts.add(self.window)
                return
        self.unique += 1


def metric_row(window: int, stream_id: str, counts: WindowCounts | None, active: int) -> MetricRow:
    """Return the row of a window; ``counts`` is None where it had no event."""
    if counts is None:
        return MetricRow(window, stream_id, 0, 0, 0, 0, 0, 0, active)
    by_type = counts.by_type
    return MetricRow(
        window,
        stream_id,
        by_type[CHAT_MESSAGE],
        by_type[DONATION],
        counts.cents,
        by_type[VIEWER_JOIN],
        by_type[VIEWER_LEAVE],
        counts.unique,
        active,
    )
