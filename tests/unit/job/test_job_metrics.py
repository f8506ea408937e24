"""The job's metrics: what is there from the start, what Spark's report on the query gives, how far it is behind."""

from typing import Any

import pytest
from prometheus_client import REGISTRY
from scrape import fresh

from streampulse import __version__
from streampulse.job import metrics
from streampulse.job.command import records_behind
from streampulse.job.rows import REASONS
from streampulse.oracle.decide import DEAD_LETTER_REASONS

# As Spark 4.2 writes it, shortened to what is read here.
REPORT: dict[str, Any] = {
    "timestamp": "2026-01-01T12:00:00.000Z",
    "batchId": 7,
    "durationMs": {"addBatch": 210, "latestOffset": 3, "triggerExecution": 250, "walCommit": 11},
    "numInputRows": 2,
    "inputRowsPerSecond": 5.0,
    "processedRowsPerSecond": 8.0,
    "sources": [{"startOffset": '{"0": 20, "1": 0}', "endOffset": '{"0": 120, "1": 20}'}],
}
NAMES = ("input_records_per_second", "processed_records_per_second", "trigger_seconds")


def scraped() -> dict[str, float | None]:
    return {name: REGISTRY.get_sample_value(f"streampulse_job_{name}") for name in NAMES}


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        pytest.param({}, (300.0, 480.0, 0.25), id="60 records in a slice"),
        pytest.param(
            {"sources": [{"startOffset": "null", "endOffset": '{"0": 120}'}]}, (0.0, 0.0, 0.25), id="the first trigger"
        ),
        pytest.param(
            {"numInputRows": 0, "inputRowsPerSecond": 0.0, "processedRowsPerSecond": 0.0}, (0.0, 0.0, 0.25), id="idle"
        ),
    ],
)
def test_a_report_is_taken_over(changed: dict[str, Any], expected: tuple[float, ...]) -> None:
    metrics.note_progress(REPORT | changed)
    assert scraped() == dict(zip(NAMES, expected, strict=True))


@pytest.mark.parametrize(
    ("left_out", "unknown"),
    [
        ("inputRowsPerSecond", {"input_records_per_second"}),  # of the first trigger there is none
        ("processedRowsPerSecond", {"processed_records_per_second"}),
        ("durationMs", {"trigger_seconds"}),
    ],
)
def test_what_a_report_leaves_out_is_absent(left_out: str, unknown: set[str]) -> None:
    metrics.note_progress(REPORT)
    metrics.note_progress({key: value for key, value in REPORT.items() if key != left_out})
    assert {name for name, value in scraped().items() if value is None} == unknown


def test_the_version_is_a_label() -> None:
    assert REGISTRY.get_sample_value("streampulse_job_build_info", {"version": __version__}) == 1


def test_every_reason_is_there_from_the_start_so_that_a_first_burst_is_an_increase() -> None:
    scrape = fresh("import streampulse.job.metrics")
    for reason in REASONS:
        assert f'\nstreampulse_job_dead_letters_total{{reason="{reason}"}} 0.0\n' in scrape
    # The oracle decides by code of its own, so that one mistake is not made twice.
    assert set(REASONS) == DEAD_LETTER_REASONS


@pytest.mark.parametrize(
    ("latest", "read_up_to", "expected"),
    [
        ('{"0": 10, "1": 5}', {0: 10, 1: 5}, 0),
        ('{"0": 10, "1": 5}', {0: 4, 1: 5}, 6),
        ('{"0": 10, "1": 5}', {0: 4}, 11),  # nothing of partition 1 was committed yet
        ('{"0": 10}', {0: 12}, 0),  # the report is older than the newest commit
        (None, {0: 12}, 0),
        ("null", {0: 12}, 0),
    ],
)
def test_records_behind(latest: str | None, read_up_to: dict[int, int], expected: int) -> None:
    assert records_behind(latest, read_up_to) == expected
