"""What the job's scrape takes over from Spark's report on the query."""

from typing import Any

import pytest
from prometheus_client import REGISTRY

from streampulse import __version__
from streampulse.job import metrics

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
