"""Events ahead of the present clocks: when a partition waits, when it is read on, and for which clock it waits."""

import psycopg2
import pytest
from confluent_kafka import KafkaException
from prometheus_client import REGISTRY

from streampulse.events import parse
from streampulse.job.rows import Limit, Suspect
from streampulse.job.suspects import DRIVER, LEADER, POSTGRESQL, Clocks, Suspects, clock_event, differing

NOW_S = 1_790_000_000
SECOND_US = 1_000_000
DAY_S = 86_400


class Answers(Clocks):
    """PostgreSQL's and the leaders' answers, in seconds from now; None: no answer."""

    def __init__(self) -> None:
        self.postgresql_s: float | None = 0
        self.leader_s: float | None = 0

    def postgresql(self) -> int:
        if self.postgresql_s is None:
            raise psycopg2.OperationalError("no answer")
        return round((NOW_S + self.postgresql_s) * SECOND_US)

    def leader(self, partition: int, partitions: int, now_us: int) -> int:
        assert 0 <= partition < partitions, now_us
        if self.leader_s is None:
            raise KafkaException("no answer")
        return round((NOW_S + self.leader_s) * SECOND_US)


def waiting_offset(clock: str) -> float | None:
    labels = {"partition": "1", "clock": clock}
    return REGISTRY.get_sample_value("streampulse_job_waiting_partition_offset", labels)


@pytest.fixture
def answers() -> Answers:
    return Answers()


def suspects(answers: Answers) -> Suspects:
    return Suspects(answers, 2, monotonic=lambda: 100.0, wall=lambda: float(NOW_S))


def limit(seconds: float, is_future: bool = False) -> Limit:
    return Limit(round((NOW_S + seconds) * SECOND_US), is_future)


AHEAD = Suspect(7, (NOW_S + DAY_S) * SECOND_US)


def test_an_event_is_from_the_future_when_three_clocks_agree_within_a_minute(answers: Answers) -> None:
    judged = suspects(answers)
    assert judged.limits() == {0: limit(300), 1: limit(300)}
    answers.postgresql_s, answers.leader_s = 20, -40
    assert judged.note(1, AHEAD)
    assert judged.limits() == {0: limit(300)}
    judged.judge()
    assert judged.limits() == {0: limit(300), 1: limit(260, is_future=True)}


@pytest.mark.parametrize(
    ("postgresql_s", "leader_s", "name"),
    [(0, DAY_S, LEADER), (-61, 0, POSTGRESQL), (DAY_S, DAY_S, DRIVER), (None, 0, POSTGRESQL), (0, None, LEADER)],
)
def test_a_partition_waits_while_a_clock_differs_or_does_not_answer(
    answers: Answers, caplog: pytest.LogCaptureFixture, postgresql_s: float | None, leader_s: float | None, name: str
) -> None:
    caplog.set_level("INFO")
    judged = suspects(answers)
    answers.postgresql_s, answers.leader_s = postgresql_s, leader_s
    judged.note(1, AHEAD)
    for _ in range(2):
        judged.judge()
    assert list(judged.limits()) == [0]
    assert waiting_offset(name) == 7
    (line,) = caplog.messages
    assert line.startswith(f"partition 1 waits at offset 7 for an event of 2026-09-22T14:13:20Z: {name} clock ")
    answers.postgresql_s = answers.leader_s = 0
    judged.judge()
    assert judged.limits()[1] == limit(300, is_future=True)
    assert waiting_offset(name) is None
    assert caplog.messages[1:] == ["partition 1 is read on from offset 7: its clocks are right again"]


def test_an_event_that_time_has_caught_up_with_is_read(answers: Answers) -> None:
    judged = suspects(answers)
    assert not judged.note(1, Suspect(7, (NOW_S + 300) * SECOND_US))
    assert judged.limits()[1] == limit(300)


def test_the_clock_farthest_from_the_middle_one_differs() -> None:
    assert differing({"a": 0, "b": 60 * SECOND_US, "c": 30 * SECOND_US}) is None
    assert differing({"a": 0, "b": 61 * SECOND_US, "c": 20 * SECOND_US}) == "b"


def test_the_event_that_asks_a_leader_is_valid_and_in_its_partition() -> None:
    for partition in range(5):
        key, value = clock_event(partition, 5, NOW_S * SECOND_US)
        event = parse(key, value, partition, 5)
        assert (event.ts_us, event.stream_id[:2]) == (NOW_S * SECOND_US, "__")
