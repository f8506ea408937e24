"""The rate limits' counters: right alone, right from several processes at once, bounded whoever asks."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest
from limits import RateLimitItemPerMinute
from limits.strategies import FixedWindowRateLimiter

from streampulse.api.shared_limits import SharedStorage


def test_counts_until_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("streampulse.api.shared_limits.time.time", lambda: now)
    storage = SharedStorage()
    assert [storage.incr("a", 60) for _ in range(3)] == [1, 2, 3]
    assert storage.incr("b", 60, amount=5) == 5
    assert (storage.get("a"), storage.get("b"), storage.get("c")) == (3, 5, 0)
    assert storage.get_expiry("a") == 1060
    now = 1059.9
    assert storage.incr("a", 60) == 4
    now = 1060.0
    assert (storage.get("a"), storage.incr("a", 60)) == (0, 1)
    storage.clear("a")
    assert (storage.get("a"), storage.check()) == (0, True)
    storage.incr("b", 60)
    storage.reset()
    assert storage.get("b") == 0


def hit(path: Path, times: int, results: multiprocessing.Queue[int]) -> None:
    limiter = FixedWindowRateLimiter(SharedStorage(path))
    limit = RateLimitItemPerMinute(1000)
    results.put(sum(limiter.hit(limit, "somebody") for _ in range(times)))


def test_processes_share_one_limit(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    results: multiprocessing.Queue[int] = context.Queue()
    processes = [context.Process(target=hit, args=(tmp_path / "limits", 400, results)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    # 1,600 tries, and exactly as many successes as are allowed.
    assert sum(results.get(timeout=10) for _ in processes) == 1000


def test_many_keys_take_no_more_room_and_the_newest_counts(tmp_path: Path) -> None:
    file = tmp_path / "limits"
    storage = SharedStorage(file)
    size = file.stat().st_size
    for number in range(60_000):
        assert storage.incr(f"key-{number}", 60) == 1
    assert file.stat().st_size == size < 2**21
    assert storage.incr("key-59999", 60) == 2
