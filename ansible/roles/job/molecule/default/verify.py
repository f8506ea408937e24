"""Asserts that the job counts and commits what arrives, and that a killed driver goes on where it was."""

import datetime
import json
import subprocess
import time
import urllib.request
import uuid
from pathlib import Path

import psycopg2
import psycopg2.extensions
from kafka import KafkaProducer

ENV: dict[str, str] = {}
for name in ("kafka", "postgres-writer", "job"):
    for line in Path(f"/etc/streampulse/{name}.env").read_text(encoding="utf-8").splitlines():
        if "=" in line:
            key, _, value = line.partition("=")
            ENV[key] = value.strip("'")


def connected() -> psycopg2.extensions.connection:
    """Return a connection of the job's own role."""
    made = psycopg2.connect(
        host=ENV["STREAMPULSE_POSTGRES_HOST"], port=ENV["STREAMPULSE_POSTGRES_PORT"],
        dbname=ENV["STREAMPULSE_POSTGRES_DATABASE"], user=ENV["STREAMPULSE_POSTGRES_USER"],
        password=ENV["STREAMPULSE_POSTGRES_PASSWORD"],
    )  # fmt: skip
    made.autocommit = True
    return made


connection = connected()
producer = KafkaProducer(bootstrap_servers=ENV["STREAMPULSE_KAFKA_BOOTSTRAP_SERVERS"].split(","), acks="all")
stream = f"__verify-{uuid.uuid4()}"


def chat() -> None:
    """Send one chat message of a stream of our own."""
    event = {
        "event_id": str(uuid.uuid4()), "ts": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "event_type": "chat_message", "stream_id": stream, "user_id": "verify", "message_len": 3,
    }  # fmt: skip
    producer.send(ENV["STREAMPULSE_KAFKA_TOPIC"], key=stream.encode(), value=json.dumps(event).encode()).get(timeout=20)


def counted(messages: int, seconds: float) -> None:
    """Wait until the tables hold that many chat messages of our stream."""
    begun = time.monotonic()
    with connection.cursor() as cursor:
        while True:
            cursor.execute(
                "SELECT coalesce(sum(chat_messages), 0) FROM stream_metrics_minute WHERE stream_id = %s", (stream,)
            )
            (found,) = cursor.fetchone() or (0,)
            if found == messages:
                return
            assert found < messages, f"{found} messages were counted and {messages} sent"
            assert time.monotonic() - begun < seconds, f"{found} of {messages} messages were counted within {seconds} s"
            time.sleep(0.2)


def ledger() -> int:
    """Return how many batches the ledger holds."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM batch_ledger")
        (rows,) = cursor.fetchone() or (0,)
    return int(rows)


def main_pid() -> str:
    """Return the process of the driver's JVM."""
    show = ["systemctl", "show", "--property=MainPID", "--value", "streampulse-job"]
    return subprocess.run(show, check=True, capture_output=True, text=True).stdout.strip()


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


def warned() -> list[str]:
    """Return the warnings of the driver."""
    return [line for line in said("streampulse-job", "warning") if " level=warning " in line]


chat()
counted(1, 60)
before = ledger()
assert before > 0, "the ledger is empty"
# Returns when the archive is made, or at once when the one that is there fits.
subprocess.run(["systemctl", "start", "spark-classes"], check=True, timeout=400)
killed = main_pid()
subprocess.run(["systemctl", "kill", "--kill-whom=main", "--signal=KILL", "streampulse-job"], check=True)
chat()
# A bound on waiting on a busy machine; how long it takes is for the benchmark to say.
counted(2, 180)
assert ledger() > before
started = main_pid()
assert started not in ("0", killed)
assert "/spark.jsa" in Path(f"/proc/{started}/maps").read_text(encoding="utf-8"), (
    "the driver started without its archive"
)

# The query's own reports are asked every five seconds; the driver that reads them is still the same afterwards.
time.sleep(8)
assert main_pid() == started
url = f"http://{ENV['STREAMPULSE_JOB_METRICS_HOST']}:{ENV['STREAMPULSE_JOB_METRICS_PORT']}/metrics"
with urllib.request.urlopen(url, timeout=10) as answer:
    scraped = dict(line.rsplit(" ", 1) for line in answer.read().decode().splitlines() if not line.startswith("#"))
assert float(scraped["streampulse_job_records_total"]) >= 1, scraped
assert float(scraped["streampulse_job_lag_records"]) == 0, scraped
assert float(scraped["streampulse_job_executors"]) == 1, scraped
assert float(scraped["streampulse_job_trigger_seconds"]) > 0, scraped
for rate in ("input", "processed"):
    assert float(scraped[f"streampulse_job_{rate}_records_per_second"]) >= 0, scraped

# What the driver logs reaches the journal through spark-submit, with its priority and with the batch that it is about.
postgres = subprocess.run(
    ["systemctl", "list-units", "--plain", "--no-legend", "postgresql@*"], check=True, capture_output=True, text=True
).stdout.split()[0]
assert any(' msg="batches committed" batch_id=' in line for line in said("streampulse-job", "info"))
connection.close()
subprocess.run(["systemctl", "stop", postgres], check=True)
try:
    chat()
    deadline = time.monotonic() + 60
    while not any('msg="PostgreSQL went away' in line and " batch_id=" in line for line in warned()):
        assert time.monotonic() < deadline, warned()
        time.sleep(0.5)
finally:
    subprocess.run(["systemctl", "start", postgres], check=True)
assert all(line.startswith("ts=") for line in warned()), warned()
connection = connected()
counted(3, 120)
with connection.cursor() as cursor:
    cursor.execute("DELETE FROM stream_metrics_minute WHERE stream_id = %s", (stream,))
    cursor.execute("DELETE FROM stream_presence WHERE stream_id = %s", (stream,))
