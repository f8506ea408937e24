"""Where reading starts, for each way in which the log and the ledger can disagree."""

from __future__ import annotations

import pytest

from streampulse.core.kafka import Log
from streampulse.job.source import Start, decide_start

TOPIC = Log("id", {0: 0, 1: 10}, {0: 100, 1: 50})


@pytest.mark.parametrize(
    ("next_offsets", "topic_id", "expected"),
    [
        pytest.param({}, None, Start({0: 0, 1: 10}, []), id="nothing committed yet"),
        pytest.param({0: 40, 1: 50}, "id", Start({0: 40, 1: 50}, []), id="goes on"),
        pytest.param({0: 40}, "id", Start({0: 40, 1: 10}, []), id="a partition not seen before"),
        pytest.param({0: 40, 1: 5}, "id", Start({0: 40, 1: 10}, []), id="records deleted unread"),
        pytest.param({0: 101, 1: 50}, "id", Start({0: 100, 1: 50}, [0]), id="the log ends before the position"),
        pytest.param({0: 40, 1: 20}, "other", Start({0: 0, 1: 10}, [0, 1]), id="the topic was made again"),
    ],
)
def test_decide_start(next_offsets: dict[int, int], topic_id: str | None, expected: Start) -> None:
    assert decide_start(TOPIC, next_offsets, topic_id) == expected


def test_what_is_lost_is_said(caplog: pytest.LogCaptureFixture) -> None:
    decide_start(TOPIC, {0: 101, 1: 5}, "id")
    assert "partition 0: Kafka's log lost its end, it ends at offset 100 where 101 was reached" in caplog.text
    assert "partition 1: records 5 to 9 were deleted unread" in caplog.text
