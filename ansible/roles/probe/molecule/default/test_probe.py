"""The probe's events arrive exactly, and it reports each part that is down. The tests build on each other."""

import datetime
import json
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from asking import get, kill, postgres, run, said, settings, show, stopped, until
from kafka import KafkaProducer

UNIT = "streampulse-probe"
ENV = settings("kafka", "probe")
METRICS = f"http://{ENV['STREAMPULSE_PROBE_METRICS_HOST']}:{ENV['STREAMPULSE_PROBE_METRICS_PORT']}/metrics"
EXACT = 'streampulse_probe_events_total{outcome="exact"}'
OK, UNANSWERED = (f'streampulse_probe_api_requests_total{{outcome="{name}"}}' for name in ("ok", "unanswered"))
KAFKA, POSTGRES = (f'streampulse_pipeline_readable{{part="{name}"}}' for name in ("kafka", "postgres"))
DEAD = "streampulse_pipeline_dead_letters_total"
LAG_RECORDS, LAG_SECONDS = "streampulse_pipeline_lag_records", "streampulse_pipeline_lag_seconds"
#: A bound for a busy machine.
SEEN_SECONDS = 120
Samples = dict[str, float]


def scrape() -> Samples:
    """Return every sample of the probe."""
    lines = get(METRICS)[1].splitlines()
    return {name: float(value) for name, value in (each.rsplit(" ", 1) for each in lines if not each.startswith("#"))}


def seen(what: str, holds: Callable[[Samples], bool], seconds: float = SEEN_SECONDS) -> Samples:
    """Wait until the samples match, and return them."""
    found = until(what, seconds, lambda: (samples := scrape()) and holds(samples) and samples, KeyError)
    assert found
    return found


def has(samples: Samples, prefix: str) -> bool:
    """Return whether a sample starts with this text."""
    return any(name.startswith(prefix) for name in samples)


def total(samples: Samples, name: str) -> float:
    """Return the sum over all partitions."""
    return sum(value for key, value in samples.items() if key.startswith(f"streampulse_pipeline_{name}_offset{{"))


def record(transactional: bool = False, length: object = 3) -> None:
    """Send one record of a separate stream to the event topic."""
    stream = f"__verify-{uuid.uuid4()}"
    event = {
        "event_id": str(uuid.uuid4()), "ts": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "event_type": "chat_message", "stream_id": stream, "user_id": "verify", "message_len": length,
    }  # fmt: skip
    servers = ENV["STREAMPULSE_KAFKA_BOOTSTRAP_SERVERS"].split(",")
    more = {"transactional_id": stream} if transactional else {}
    with closing(KafkaProducer(bootstrap_servers=servers, acks="all", **more)) as producer:
        if transactional:
            producer.init_transactions()
            producer.begin_transaction()
        producer.send(ENV["STREAMPULSE_KAFKA_TOPIC"], key=stream.encode(), value=json.dumps(event).encode()).get(20)
        if transactional:
            producer.commit_transaction()


@pytest.fixture(scope="module", autouse=True)
def _quiet() -> Iterator[None]:
    """Stop the generator: with it records wait almost always, and it sends dead letters of its own."""
    unit = "streampulse-generator.service"
    active = run("systemctl", "list-units", "--plain", "--no-legend", "--state=active", unit)
    if active:
        run("systemctl", "stop", unit)
    yield
    if active:
        run("systemctl", "start", unit)


@pytest.fixture(scope="module")
def dead() -> float:
    """Return the number of dead letters before the tests."""
    return seen("dead letters are read", lambda samples: DEAD in samples)[DEAD]


def test_its_events_come_through_exactly() -> None:
    # The tests of another role may have restarted PostgreSQL a second ago.
    found = seen(
        "an event came through exactly, and both parts answer",
        lambda samples: samples[EXACT] >= 1 and samples[KAFKA] == samples[POSTGRES] == 1,
        240,
    )
    assert found["streampulse_probe_last_exact_timestamp_seconds"] > time.time() - 240
    assert found["streampulse_probe_end_to_end_seconds_count"] >= 1
    assert found[OK] >= 1


def test_the_end_of_a_transaction_has_an_offset_and_is_no_record() -> None:
    record(transactional=True)
    seen(
        "the job has read past the marker",
        lambda samples: (
            total(samples, "end") == total(samples, "committed") > 0
            and samples[LAG_RECORDS] == samples[LAG_SECONDS] == 0
        ),
    )


def test_dead_letters_are_counted_also_over_a_stop_and_a_kill(dead: float) -> None:
    record(length="three")
    seen("a dead letter is counted", lambda samples: samples[DEAD] == dead + 1)
    run("systemctl", "stop", UNIT)
    assert show(UNIT, "Result") == "success"
    record(length="four")
    time.sleep(3)
    run("systemctl", "start", UNIT)
    seen("the one that came while it was stopped is counted", lambda samples: samples[DEAD] == dead + 2)
    kill(UNIT)
    seen("it is back after a kill", lambda samples: samples[DEAD] == dead + 2 and samples[OK] >= 1)


def test_it_takes_little_memory() -> None:
    smaps = Path(f"/proc/{show(UNIT, 'MainPID')}/smaps_rollup").read_text()
    assert int(smaps.partition("\nPss:")[2].split()[0]) < 60 * 1024


def test_it_reports_that_kafka_is_away() -> None:
    with stopped("kafka"):
        found = seen("Kafka is away", lambda samples: samples[KAFKA] == 0)
        assert not has(found, "streampulse_pipeline_end_offset")
        assert not has(found, "streampulse_pipeline_lag")
        assert found[POSTGRES] == 1
        assert has(found, "streampulse_pipeline_committed_offset")
    seen("Kafka is read again", lambda samples: samples[KAFKA] == 1)


def test_it_reports_that_postgresql_and_the_api_are_away_and_goes_on(dead: float) -> None:
    with stopped("streampulse-api", postgres()):
        before = scrape()[UNANSWERED]
        found = seen("both are away", lambda samples: samples[POSTGRES] == 0 and samples[UNANSWERED] > before)
        assert DEAD not in found
        assert LAG_RECORDS not in found
        assert not has(found, "streampulse_pipeline_committed_offset")
        assert found[KAFKA] == 1
    before = scrape()[OK]
    found = seen("all is read again", lambda samples: samples[POSTGRES] == 1 and samples[OK] > before)
    assert found[DEAD] == dead + 2
    # The job may have restarted too.
    exact = found[EXACT]
    seen("an event came through once more", lambda samples: samples[EXACT] > exact and LAG_SECONDS in samples, 300)


def test_its_log_has_priorities_and_names_each_part() -> None:
    warnings = said(UNIT, "warning")
    for part in ("the API", "Kafka", "PostgreSQL"):
        assert any(line.startswith("ts=") and f'msg="{part} does not answer' in line for line in warnings), warnings
    assert all(" level=warning " in line for line in warnings), warnings
    assert any(" msg=event stream_id=__probe event_id=" in line for line in said(UNIT, "info"))
