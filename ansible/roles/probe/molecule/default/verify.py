"""Asserts that the probe's events come through exactly, and that it says what is away, whatever is, and goes on."""

import datetime
import json
import subprocess
import time
import urllib.request
import uuid
from collections.abc import Callable
from pathlib import Path

from kafka import KafkaProducer

ENV: dict[str, str] = {}
for name in ("kafka", "probe"):
    for line in Path(f"/etc/streampulse/{name}.env").read_text(encoding="utf-8").splitlines():
        if "=" in line:
            key, _, value = line.partition("=")
            ENV[key] = value.strip("'")
METRICS = f"http://{ENV['STREAMPULSE_PROBE_METRICS_HOST']}:{ENV['STREAMPULSE_PROBE_METRICS_PORT']}/metrics"
EXACT = 'streampulse_probe_events_total{outcome="exact"}'
OK, UNANSWERED = (f'streampulse_probe_api_requests_total{{outcome="{name}"}}' for name in ("ok", "unanswered"))
READABLE_KAFKA, READABLE_POSTGRES = (
    f'streampulse_pipeline_readable{{part="{name}"}}' for name in ("kafka", "postgres")
)
DEAD = "streampulse_pipeline_dead_letters_total"
LAG_RECORDS, LAG_SECONDS = "streampulse_pipeline_lag_records", "streampulse_pipeline_lag_seconds"


def systemctl(*words: str) -> str:
    """Return what systemctl prints."""
    return subprocess.run(["systemctl", *words], check=True, capture_output=True, text=True).stdout.strip()


def scrape() -> dict[str, float]:
    """Return every sample of the probe."""
    with urllib.request.urlopen(METRICS, timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return {name: float(value) for name, value in (each.rsplit(" ", 1) for each in lines if not each.startswith("#"))}


def until(what: str, seconds: float, holds: Callable[[dict[str, float]], bool]) -> dict[str, float]:
    """Wait until the samples are as they should be, and return them."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            found = scrape()
        except OSError:
            found = {}
        if found and holds(found):
            return found
        ours = {name: value for name, value in found.items() if name.startswith("streampulse_p")}
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}. Scraped: {ours}"
        time.sleep(0.5)


def said(unit: str, priority: str) -> list[str]:
    """Return what a unit's processes have written to the journal with exactly this priority since it was started."""
    invocation = subprocess.run(
        ["systemctl", "show", "--property=InvocationID", "--value", unit], check=True, capture_output=True, text=True
    ).stdout.strip()
    command = [
        "journalctl",
        f"--priority={priority}..{priority}",
        "--output=cat",
        f"_SYSTEMD_INVOCATION_ID={invocation}",
    ]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


def record(transactional: bool, **more: object) -> None:
    """Bring one record of a stream of our own to the topic of the events."""
    stream = f"__verify-{uuid.uuid4()}"
    event = {
        "event_id": str(uuid.uuid4()), "ts": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "event_type": "chat_message", "stream_id": stream, "user_id": "verify", "message_len": 3, **more,
    }  # fmt: skip
    servers = ENV["STREAMPULSE_KAFKA_BOOTSTRAP_SERVERS"].split(",")
    if transactional:
        producer = KafkaProducer(bootstrap_servers=servers, transactional_id=stream)
        producer.init_transactions()
        producer.begin_transaction()
    else:
        producer = KafkaProducer(bootstrap_servers=servers, acks="all")
    producer.send(ENV["STREAMPULSE_KAFKA_TOPIC"], key=stream.encode(), value=json.dumps(event).encode()).get(timeout=20)
    if transactional:
        producer.commit_transaction()
    producer.close()


# A scenario of before may have left it running: something waits nearly always then, and dead letters are not ours only.
if systemctl("list-units", "--plain", "--no-legend", "--state=active", "streampulse-generator.service"):
    systemctl("stop", "streampulse-generator")

# Its events ----------------------------------------------------------------------------------------------------------
found = until("an event came through exactly", 150, lambda seen: seen[EXACT] >= 1)
assert found["streampulse_probe_last_exact_timestamp_seconds"] > time.time() - 150, found
assert found["streampulse_probe_end_to_end_seconds_count"] >= 1, found
assert found[OK] >= 1, found
assert found[READABLE_KAFKA] == found[READABLE_POSTGRES] == 1, found

# The pipeline's figures ----------------------------------------------------------------------------------------------
# A transaction's end has an offset and is no record.
record(transactional=True)


def total(found: dict[str, float], name: str) -> float:
    """Return the sum over all partitions."""
    return sum(value for key, value in found.items() if key.startswith(f"streampulse_pipeline_{name}_offset{{"))


found = until(
    "nothing waits before a marker",
    30,
    lambda seen: (
        total(seen, "end") > total(seen, "committed") > 0 and seen.get(LAG_RECORDS) == seen.get(LAG_SECONDS) == 0
    ),
)
dead = found[DEAD]
record(transactional=False, message_len="three")
until("a dead letter is counted", 30, lambda seen: seen.get(DEAD) == dead + 1)

# How much it takes, and that it ends when it is asked to -----------------------------------------------------------
pid = systemctl("show", "--property=MainPID", "--value", "streampulse-probe")
pss_kib = int(Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").partition("\nPss:")[2].split()[0])
assert pss_kib < 60 * 1024, f"the probe takes {pss_kib} KiB"
systemctl("stop", "streampulse-probe")
ended = systemctl("show", "--property=Result", "--value", "streampulse-probe")
assert ended == "success", f"the probe did not end by itself when it was asked to: {ended}"
record(transactional=False, message_len="four")
time.sleep(3)
systemctl("start", "streampulse-probe")
# What was written while it was away, too.
until("the number of dead letters outlives a restart", 30, lambda seen: seen.get(DEAD) == dead + 2)
systemctl("kill", "--kill-whom=main", "--signal=KILL", "streampulse-probe")
until("the probe is back after a kill", 30, lambda seen: seen.get(DEAD) == dead + 2 and seen[OK] >= 1)

# One after the other is away ---------------------------------------------------------------------------------------
systemctl("stop", "kafka")
try:
    found = until("Kafka is said to be away", 40, lambda seen: seen[READABLE_KAFKA] == 0)
    assert not any(name.startswith("streampulse_pipeline_end_offset") for name in found), found
    assert LAG_RECORDS not in found, found
    assert LAG_SECONDS not in found, found
    assert found[READABLE_POSTGRES] == 1, found
    assert any(name.startswith("streampulse_pipeline_committed_offset") for name in found), found
finally:
    systemctl("start", "kafka")
until("Kafka is read again", 60, lambda seen: seen[READABLE_KAFKA] == 1)
# A broker that hangs is no other than one that is gone.
systemctl("kill", "--signal=STOP", "kafka")
try:
    found = until("Kafka is said to hang", 40, lambda seen: seen[READABLE_KAFKA] == 0)
    assert found[READABLE_POSTGRES] == 1, found
finally:
    systemctl("kill", "--signal=CONT", "kafka")
until("Kafka is read again", 60, lambda seen: seen[READABLE_KAFKA] == 1)

postgres = systemctl("list-units", "--plain", "--no-legend", "postgresql@*").split()[0]
systemctl("stop", "streampulse-api")
systemctl("stop", postgres)
try:
    before = scrape()[UNANSWERED]
    found = until(
        "PostgreSQL and the API are said to be away",
        40,
        lambda seen: seen[READABLE_POSTGRES] == 0 and seen[UNANSWERED] > before,
    )
    assert DEAD not in found, found
    assert LAG_RECORDS not in found, found
    assert not any(name.startswith("streampulse_pipeline_committed_offset") for name in found), found
    assert found[READABLE_KAFKA] == 1, found
finally:
    systemctl("start", postgres)
    systemctl("start", "streampulse-api")
before = scrape()[OK]
found = until("all is read again", 60, lambda seen: seen[READABLE_POSTGRES] == 1 and seen[OK] > before)
assert found[DEAD] == dead + 2, found
# The job may have started anew as well.
exact = found[EXACT]
until("an event came through exactly once more", 240, lambda seen: seen[EXACT] > exact and LAG_SECONDS in seen)

# Its log -------------------------------------------------------------------------------------------------------------
warnings = said("streampulse-probe", "warning")
for part in ("the API", "Kafka", "PostgreSQL"):
    assert any(line.startswith("ts=") and f'msg="{part} does not answer' in line for line in warnings), warnings
assert all(" level=warning " in line for line in warnings), warnings
assert any(" msg=event stream_id=__probe event_id=" in line for line in said("streampulse-probe", "info"))
