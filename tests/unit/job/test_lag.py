"""How far the job is behind, from what Spark's source reports."""

import pytest

from streampulse.job.command import records_behind


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
