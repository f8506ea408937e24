"""``streampulse probe`` as a process: its metrics while nothing answers, and the time that it takes to end."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from ports import free_port

from streampulse.host.cli import main
from streampulse.probe import command
from streampulse.probe.part import Part


@contextlib.contextmanager
def silent() -> Iterator[int]:
    """Yield a port that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as server:
        yield server.getsockname()[1]


# A bound on waiting, also on a busy machine: sending an event waits for 30 seconds and longer.
AT_ONCE_SECONDS = 10


class Probe:
    """The process, with every service at one port."""

    def __init__(self, port: int, folder: Path, more: dict[str, str] | None = None) -> None:
        self.metrics_port = free_port()
        self.notifications = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notifications.bind(str(folder / "notify"))
        self.notifications.settimeout(30)
        settings = {
            "STREAMPULSE_KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{port}",
            "STREAMPULSE_KAFKA_TOPIC": "stream.events",
            "STREAMPULSE_KAFKA_DLQ_TOPIC": "stream.events.dlq",
            "STREAMPULSE_POSTGRES_HOST": "127.0.0.1",
            "STREAMPULSE_POSTGRES_PORT": str(port),
            "STREAMPULSE_POSTGRES_DATABASE": "streampulse",
            "STREAMPULSE_POSTGRES_USER": "streampulse_reader",
            "STREAMPULSE_POSTGRES_PASSWORD": "s" * 20,
            "STREAMPULSE_PROBE_API_URLS": f"http://127.0.0.1:{port}",
            "STREAMPULSE_PROBE_API_KEY": "k" * 20,
            "STREAMPULSE_PROBE_METRICS_PORT": str(self.metrics_port),
            "STREAMPULSE_PROBE_INTERVAL_SECONDS": "1",
            "STREAMPULSE_PROBE_ANSWER_SECONDS": "0.5",
            "NOTIFY_SOCKET": str(folder / "notify"),
        }
        self.output = (folder / "output").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "streampulse.host.cli", "probe"],
            env={**os.environ, **settings, **(more or {})},
            stdout=self.output,
            stderr=subprocess.STDOUT,
        )

    def __enter__(self) -> "Probe":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self.notifications.close()
        self.output.close()

    def ready(self) -> None:
        assert self.notifications.recv(100) == b"READY=1"

    def scraped(self) -> dict[str, float]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return {name: float(value) for name, value in (each.rsplit(" ", 1) for each in lines if each[0] != "#")}

    def said(self) -> str:
        self.output.seek(0)
        return self.output.read()

    def end(self) -> float:
        """Send SIGTERM; return the seconds until the process has ended."""
        begun = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(timeout=20) == 0
        return time.monotonic() - begun


def wait_for(probe: Probe, name: str, at_least: float) -> dict[str, float]:
    deadline = time.monotonic() + 30
    while True:
        found = probe.scraped()
        if found.get(name, 0) >= at_least:
            return found
        assert time.monotonic() < deadline, f"{name} is {found.get(name)}: {probe.said()}"
        time.sleep(0.1)


def test_while_nothing_answers_it_says_so_and_ends_at_once(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(silent())
        # Connecting to Kafka ahead of an event begins three seconds before it; sending waits for Kafka.
        due = int(time.time()) + 8
        probe = stack.enter_context(Probe(port, tmp_path, {"STREAMPULSE_PROBE_EVENT_SECOND": str(due % 60)}))
        # Ready means that it can be scraped: the measured services may be down.
        probe.ready()
        probe.scraped()
        found = wait_for(probe, 'streampulse_probe_api_requests_total{outcome="unanswered"}', 3)
        known = {name: value for name, value in found.items() if name.startswith("streampulse_pipeline_")}
        assert known == {
            'streampulse_pipeline_readable{part="kafka"}': 0,
            'streampulse_pipeline_readable{part="postgres"}': 0,
        }
        assert found['streampulse_probe_api_requests_total{outcome="ok"}'] == 0
        assert "streampulse_probe_last_exact_timestamp_seconds" not in found
        # It also ends at once in the middle of an event.
        time.sleep(max(0.0, due + 1 - time.time()))
        took = probe.end()
        said = probe.said()
    assert took < AT_ONCE_SECONDS
    # Each part logs once what is wrong, without a secret.
    for part in ("the API", "PostgreSQL", "Kafka"):
        assert said.count(f'msg="{part} does not answer as it should"') == 1, said
    assert "Traceback" not in said
    assert "s" * 20 not in said
    assert "k" * 20 not in said


def test_a_missing_setting_is_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KAFKA_BOOTSTRAP_SERVERS", "KAFKA_TOPIC", "KAFKA_DLQ_TOPIC"):
        monkeypatch.setenv(f"STREAMPULSE_{name}", "x")
    for name in ("HOST", "DATABASE", "USER", "PASSWORD"):
        monkeypatch.setenv(f"STREAMPULSE_POSTGRES_{name}", "x")
    monkeypatch.setenv("STREAMPULSE_POSTGRES_PORT", "5432")
    monkeypatch.setenv("STREAMPULSE_PROBE_API_URLS", "10.0.0.1:8000")
    assert main(["probe"]) == 1
    said = capsys.readouterr().err
    assert "STREAMPULSE_PROBE_API_URLS" in said
    assert "STREAMPULSE_PROBE_METRICS_PORT" in said


def test_a_part_that_fails_goes_on_and_one_that_hangs_is_named(caplog: pytest.LogCaptureFixture) -> None:
    release, steps = threading.Event(), []

    def failing() -> float:
        steps.append(time.monotonic())
        raise RuntimeError("by accident")

    def hanging() -> float:
        release.wait(30)
        return 0.0

    parts = [Part("failing", failing), Part("hanging", hanging)]
    for part in parts:
        part.start()
    deadline = time.monotonic() + 20
    while not steps and time.monotonic() < deadline:
        time.sleep(0.01)
    parts[0].wake()
    while len(steps) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(steps) >= 2
    assert any(record.exc_info for record in caplog.records)
    assert command.hanging(parts) == []
    parts[1].alive_at -= command.HUNG_SECONDS + 1
    assert command.hanging(parts) == ["hanging"]
    for part in parts:
        part.stop()
    release.set()
    for part in parts:
        part.join(5)
    assert command.hanging(parts) == ["failing", "hanging"]
