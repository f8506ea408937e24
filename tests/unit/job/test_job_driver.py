"""The driver beside a query that stands still, or has no executors."""

import time
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import MagicMock

import pytest

from streampulse.core.settings import JobSettings
from streampulse.job import command, metrics
from streampulse.job.command import Driver


class Query:
    """A query that reports for a while, then stands still, and ends."""

    id = "query"
    isActive = True  # noqa: N815 - Spark's name

    def __init__(self, still_after: float, ends_after: float) -> None:
        begun = time.monotonic()
        self._still, self._ends = begun + still_after, begun + ends_after

    @property
    def lastProgress(self) -> dict[str, Any]:  # noqa: N802 - Spark's name
        now = time.monotonic()
        self.isActive = now < self._ends
        return {"timestamp": min(now, self._still), "sources": [{"latestOffset": None}]}

    def exception(self) -> None:
        return None


class Batches(SimpleNamespace):
    """Commits none of its own and notes when it follows."""

    def follow(self) -> None:
        self.alive_at = self.followed_at = time.monotonic()
        self.follows.append(self.followed_at)


def driver_of(query: Query, monkeypatch: pytest.MonkeyPatch) -> tuple[Driver, Batches]:
    for name, seconds in (("_LOOK_EVERY", 0.02), ("_ASK_QUERY_EVERY", 0.05), ("_FOLLOW", 0.1), ("_MOVED", 0.3)):
        monkeypatch.setattr(command, f"{name}_SECONDS", seconds)
    monkeypatch.setattr(metrics, "note_progress", lambda _progress: None)

    class Started(Driver):
        def _start(self, _session: Any, _start: Any) -> Any:
            self._reading = cast("Any", SimpleNamespace(since=None))
            return query

    settings = JobSettings(checkpoint_dir="", metrics_port=1, shards=2)
    batches = Batches(commits=1, followed_at=0.0, alive_at=0.0, read_up_to={}, batch_id=None, follows=[])
    return Started(cast("Any", batches), settings, MagicMock(), MagicMock(), MagicMock()), batches


def test_a_query_that_stands_still_is_neither_followed_for_nor_fed_to_the_watchdog(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    driver, batches = driver_of(Query(still_after=1.0, ends_after=3.0), monkeypatch)
    fed: list[float] = []

    def notify(what: str) -> None:
        if what == "WATCHDOG=1":
            fed.append(time.monotonic())

    driver._notifier = SimpleNamespace(notify=notify)

    begun = time.monotonic()
    assert driver.run(MagicMock(), cast("Any", None)) == 1

    assert len(batches.follows) > 3
    assert max(*batches.follows, *fed) < begun + 2.0


def test_a_driver_whose_executors_do_not_come_back_ends(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(command, "_WITHOUT_EXECUTORS_SECONDS", 0.5)
    driver, _ = driver_of(Query(still_after=20.0, ends_after=20.0), monkeypatch)
    session, begun = MagicMock(), time.monotonic()
    tracker = session.sparkContext._jsc.sc().statusTracker()
    # The driver is one of them.
    tracker.getExecutorInfos.side_effect = lambda: ["driver"] + ["0"] * (time.monotonic() < begun + 1.0)
    assert driver.run(session, cast("Any", None)) == 1
    assert 1.0 < time.monotonic() - begun < 10.0
    assert "no executor for" in caplog.text
