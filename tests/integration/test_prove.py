"""``streampulse shadow --prove`` beside the job: a release agrees with what the job counts, or is found out."""

from collections.abc import Mapping
from typing import Any

import pytest
from pipeline import TIMEOUT_SECONDS
from postgres import WRITER
from test_recount import Bench, bench, event

from streampulse.core.settings import CountingSettings
from streampulse.job.counting.engine import Engine
from streampulse.recount.count import Recount
from streampulse.recount.prove import Proof, prove, too_little

__all__ = ["bench"]
EVENTS = 5


def proved(bench: Bench, seconds: float = 60) -> Proof:
    """Prove while the job counts events, a duplicate and a dead letter."""
    twice = event("a")

    def waited() -> None:
        bench.count(event("c", "viewer_join"), twice, twice, b"garbage", event("b", "viewer_leave"))

    settings = bench.kafka, bench.database.settings(WRITER)
    counting = CountingSettings(viewer_timeout_seconds=TIMEOUT_SECONDS, history_days=30)
    return prove(*settings, counting, EVENTS, seconds, waited)


def test_a_release_that_counts_as_the_job_does_is_proved(bench: Bench) -> None:
    bench.count(event("a", "viewer_join", -2), event("b", "viewer_join", -2), b"garbage")
    before = bench.tables()[2]
    found = proved(bench)
    assert found.differences == []
    assert found.text() == "proved: 8 events, 3 rows, 2 dead letters, 0 differ"
    assert bench.tables()[2] != before
    bench.check()


def test_a_release_that_miscounts_is_found_out(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.count(event("a", "viewer_join", -2), event("b", "viewer_join", -2))
    count, own_count = Recount.count, Engine.count

    def miscounts(engine: Engine, viewer: Any, ts: int, *rest: Any) -> None:
        own_count(engine, viewer, ts - 60_000_000, *rest)

    def with_the_fault(shadow: Recount, ends: Mapping[int, int]) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Engine, "count", miscounts)
            count(shadow, ends)

    monkeypatch.setattr(Recount, "count", with_the_fault)
    found = proved(bench)
    assert found.text().startswith("differs: ")
    assert any(line.startswith("row changed") for line in found.differences)


def test_too_few_events_prove_nothing(bench: Bench) -> None:
    bench.count(event("a", "viewer_join", -2))
    assert proved(bench, seconds=0).text() == "not proved: only 0 events, 1 rows, 0 dead letters"


@pytest.mark.parametrize(
    ("cores", "memory_mb", "reason"),
    [
        (1, 8_000, "1 core, and 2 are needed"),
        (2, 999, "999 MB of memory are available, and 1,000 are needed"),
        (2, 1_000, ""),
    ],
)
def test_a_proof_needs_cores_and_memory(cores: int, memory_mb: int, reason: str) -> None:
    assert too_little(cores, memory_mb) == reason
