"""Pacing, limits, readiness and rejections of ``streampulse generator``, with a sender that only counts."""

import argparse
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from streampulse.core.settings import GeneratorSettings
from streampulse.generator import arguments as options
from streampulse.generator import command
from streampulse.generator.command import Loop
from streampulse.generator.faults import Faults, Record, Shares
from streampulse.generator.model import Model
from streampulse.host.cli import main

NO_FAULTS = Shares()


class CountingSender:
    """Substitute for Kafka: accepts records at once; the first attempts to connect fail."""

    def __init__(self, failures: int = 0) -> None:
        self.records: list[Record] = []
        self.failures = failures
        self.failed = self.skipped = self.pending = 0

    @property
    def sent(self) -> int:
        return len(self.records)

    def connect(self) -> str | None:
        self.failures -= 1
        return "not yet" if self.failures >= 0 else None

    def send(self, records: Iterable[Record]) -> None:
        self.records.extend(records)

    def counts(self) -> dict[str, int]:
        return {"sent": self.sent}


def loop(sender: CountingSender, *, rate: float, limit: int | None, shares: Shares = NO_FAULTS) -> Loop:
    return Loop(
        sender=sender,  # type: ignore[arg-type]
        model=Model(streams=3, users=20, seed=1),
        faults=Faults(shares, seed=1),
        rate=rate,
        limit=limit,
        stop=threading.Event(),
    )


@pytest.fixture
def notifications(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "10000000")
        yield receiver


def received(receiver: socket.socket) -> list[str]:
    messages = []
    while True:
        try:
            messages.append(receiver.recv(1000).decode())
        except BlockingIOError:
            return messages


def test_sends_exactly_the_limit_at_the_rate() -> None:
    sender = CountingSender()
    started = time.monotonic()
    loop(sender, rate=1_000, limit=500).run()
    assert sender.sent == 500
    assert 0.4 < time.monotonic() - started < 2.0


def test_held_back_records_are_sent_at_the_end() -> None:
    sender = CountingSender()
    loop(sender, rate=10_000, limit=500, shares=Shares(disorder=0.5)).run()
    assert sender.sent == 500


def test_waits_for_kafka(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "_RETRY_SECONDS", 0.01)
    sender = CountingSender(failures=5)
    loop(sender, rate=1_000, limit=3).run()
    assert sender.sent == 3


def test_a_stop_ends_waiting_and_sending() -> None:
    waiting = loop(CountingSender(failures=1_000_000), rate=1, limit=None)
    sending = loop(CountingSender(), rate=1, limit=None)
    for running in (waiting, sending):
        thread = threading.Thread(target=running.run)
        thread.start()
        running._stop.set()
        thread.join(timeout=2)
        assert not thread.is_alive()


def test_systemd_hears_ready_once_and_the_watchdog_often(notifications: socket.socket) -> None:
    loop(CountingSender(), rate=1_000, limit=300).run()
    messages = received(notifications)
    assert messages.count("READY=1") == 1
    assert messages.count("WATCHDOG=1") > 3
    assert messages[-1] == "STOPPING=1"


def test_a_long_pause_is_not_made_up_for_with_a_flood(monkeypatch: pytest.MonkeyPatch) -> None:
    """After an hour's stop a process sends a second's worth of events, with times of the last second."""
    now = [1_000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    sender = CountingSender()
    running = loop(sender, rate=100, limit=1_000)

    def wait(seconds: float) -> bool:
        now[0] += 3_600 if sender.sent else max(seconds, 0.04)
        if sender.sent > 150:
            running._stop.set()
        return False

    monkeypatch.setattr(running._stop, "wait", wait)
    running.run()
    assert sender.sent <= 4 + 100 * 3


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "STREAMPULSE_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "STREAMPULSE_KAFKA_TOPIC": "stream.events",
        "STREAMPULSE_KAFKA_DLQ_TOPIC": "stream.events.dlq",
        "STREAMPULSE_GENERATOR_METRICS_PORT": "1",
        "STREAMPULSE_GENERATOR_RATE": "5",
    }.items():
        monkeypatch.setenv(name, value)


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args(words)


@pytest.mark.usefixtures("environment")
def test_arguments_come_before_the_environment() -> None:
    settings = options.settings(parsed("--streams", "7", "--late", "0.5"), GeneratorSettings, ("rate",))
    assert (settings.rate, settings.streams, settings.late, settings.garbage) == (5, 7, 0.5, 0)


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("words", [["--rate", "0"], ["--rate", "nan"], ["--late", "2"], ["--streams", "-1"]])
def test_arguments_out_of_range_are_named_in_one_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generator", *words]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"streampulse: {words[0]} ")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (1_000.1, (1_000.0, 1_000.1)),
        (1_060.0, (1_060.0 - command._CATCH_UP_SECONDS, 1_060.0)),  # the process hung: missed events are not made up
        (999.0, (1_000.0, 1_000.0)),  # set back a little: no event is before the previous ones
        (850.0, (1_000.0, 1_000.0)),
        (849.0, (849.0, 849.0)),  # set back further: events from the future would not count
    ],
)
def test_a_wall_clock_that_was_set(now: float, expected: tuple[float, float]) -> None:
    second = 1_000_000
    start, end = command._span(1_000 * second, round(now * second))
    assert (start, end) == tuple(round(each * second) for each in expected)
