"""Dead letters whose transaction never comes to an end."""

import threading
import uuid

import pytest
from broker import Broker
from kafka.errors import KafkaTimeoutError

from streampulse.job import dead_letters
from streampulse.job.dead_letters import DeadLetters
from streampulse.job.rows import DeadLetter


def test_a_step_that_takes_too_long_is_given_up(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_letters, "_ATTEMPTS", 1)
    monkeypatch.setattr(dead_letters, "_STEP_REQUESTS", 1)
    # Kafka takes no offsets of a topic that does not exist, and the client asks again and again.
    kafka = broker.topics(f"events-{uuid.uuid4()}", 1).model_copy(update={"topic": "gone"})
    before = set(threading.enumerate())
    letters = DeadLetters(kafka)
    letters.open(1, "id of a topic")
    with pytest.raises(KafkaTimeoutError, match="longer than 2 s"):
        letters.write([DeadLetter(0, 0, "reason", "detail", b"key", b"value")], {0: 1})
    assert letters.written == {0: 0}
    letters.close()
    assert set(threading.enumerate()) == before
