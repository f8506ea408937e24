"""What the log says of the batches: little, and enough to find one."""

import logging

import pytest

from streampulse.job.report import EVERY_SECONDS, SLOW_SECONDS, Report

NUMBERS = {"records": 10, "accepted": 7, "duplicates": 1, "rows_written": 3}


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def report(clock: Clock, caplog: pytest.LogCaptureFixture) -> Report:
    caplog.set_level(logging.INFO)
    return Report(clock)


def said(caplog: pytest.LogCaptureFixture) -> list[tuple[str, dict[str, object]]]:
    found = [(record.getMessage(), dict(record.__dict__["fields"])) for record in caplog.records]
    caplog.clear()
    return found


def test_the_first_batch_is_said_and_the_others_once_a_minute(
    report: Report, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    report.committed(0, 0.5, NUMBERS, {})
    ((message, fields),) = said(caplog)
    assert message == "batches committed"
    assert fields == {"batch_id": 0, "batches": 1, **NUMBERS, "dead_letters": 0, "slowest_seconds": "0.50"}
    for batch_id in range(1, 120):
        clock.now += EVERY_SECONDS / 120
        report.committed(batch_id, 0.4 if batch_id == 7 else 0.1, NUMBERS, {"late": 1} if batch_id < 3 else {})
    assert said(caplog) == []
    clock.now += EVERY_SECONDS
    report.committed(120, 0.1, NUMBERS, {"late": 1, "invalid": 2})
    ((_, fields),) = said(caplog)
    assert fields == {
        "batch_id": 120,
        "batches": 120,
        **{name: number * 120 for name, number in NUMBERS.items()},
        "dead_letters": 5,
        "dead_letters_invalid": 2,
        "dead_letters_late": 3,
        "slowest_seconds": "0.40",
    }


def test_a_slow_batch_is_said_at_once(report: Report, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    report.committed(0, 0.1, NUMBERS, {})
    caplog.clear()
    clock.now += 1
    report.committed(1, SLOW_SECONDS + 0.1, NUMBERS, {})
    assert said(caplog) == [("slow batch", {"batch_id": 1, "seconds": "5.10", **NUMBERS})]
