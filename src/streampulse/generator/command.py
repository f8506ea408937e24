"""``streampulse generator``: make events and send them at a steady rate until SIGTERM."""

import argparse
import logging
import os
import random
import signal
import threading
import time
from typing import Final

import sdnotify
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from streampulse.core import kafka as core_kafka
from streampulse.core import logs as logfmt
from streampulse.core import metrics
from streampulse.core.settings import GeneratorSettings, KafkaSettings, load
from streampulse.generator import arguments
from streampulse.generator.faults import Faults
from streampulse.generator.model import Model
from streampulse.generator.send import Sender

log = logging.getLogger(__name__)

# Interval between two batches of events. A shorter one costs wake-ups and brings no visible latency.
_TICK_SECONDS: Final = 0.04
# Maximum time to catch up after a pause (a stopped process, a suspended machine).
_CATCH_UP_SECONDS: Final = 1.0
# Half of the lead over its arrival that the contract allows an event.
_HELD_US: Final = 150 * 1_000_000
_REPORT_SECONDS: Final = 60.0
_RETRY_SECONDS: Final = 1.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``streampulse generator``; each overrides its STREAMPULSE_GENERATOR_ variable."""
    parser.add_argument("--rate", type=float, help="events per second in all")
    parser.add_argument("--limit", type=int, metavar="N", help="stop after N events instead of going on for ever")
    arguments.add(parser)


def run(args: argparse.Namespace) -> int:
    """Generate events until SIGTERM or the limit; 1 when not all of a limited number were acknowledged."""
    kafka = load(KafkaSettings)
    load(GeneratorSettings)  # reports a wrong environment before the arguments are applied
    settings = arguments.settings(args, GeneratorSettings, ("rate",))
    logfmt.configure()
    core_kafka.silence()
    seed = settings.seed if settings.seed is not None else random.SystemRandom().getrandbits(32)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    sender = Sender(kafka)
    registry = CollectorRegistry()
    registry.register(SenderCollector(sender, settings.rate))
    metrics.serve(settings.metrics_host, settings.metrics_port, registry)
    log.info(
        "starting",
        extra={
            "fields": {
                "rate": settings.rate,
                "streams": settings.streams,
                "users": settings.users,
                "seed": seed,
                "brokers": kafka.bootstrap_servers,
            }
        },
    )
    loop = Loop(
        sender=sender,
        model=Model(streams=settings.streams, users=settings.users, seed=seed, skew=settings.skew),
        faults=Faults(arguments.shares(settings), seed=seed),
        rate=settings.rate,
        limit=args.limit,
        stop=stop,
    )
    try:
        loop.run()
    finally:
        sender.close()
        log.info("stopped", extra={"fields": sender.counts()})
    complete = sender.failed == sender.skipped == sender.pending == 0
    # A stopped service exits 0 even if an absent broker cost records. A run of N events must have sent all N.
    return 0 if complete or args.limit is None else 1


class Loop:
    """Paces the model by the monotonic clock and stamps its events with the wall clock."""

    def __init__(
        self, *, sender: Sender, model: Model, faults: Faults, rate: float, limit: int | None, stop: threading.Event
    ) -> None:
        self._sender = sender
        self._model = model
        self._faults = faults
        self._rate = rate
        self._left = limit
        self._stop = stop
        self._systemd = sdnotify.SystemdNotifier()
        self._watched = "WATCHDOG_USEC" in os.environ
        self._ready = False

    def run(self) -> None:
        """Send events until the limit is reached or the stop event is set."""
        if not self._wait_for_kafka():
            return
        owed = 0.0
        before, before_us = time.monotonic(), time.time_ns() // 1000
        reported, reported_sent = before, self._sender.sent
        while not self._stop.is_set() and self._left != 0:
            # SIGTERM ends the wait at once.
            self._stop.wait(max(0.0, before + _TICK_SECONDS - time.monotonic()))
            now, now_us = time.monotonic(), time.time_ns() // 1000
            owed += self._rate * min(now - before, _CATCH_UP_SECONDS)
            count = int(owed) if self._left is None else min(int(owed), self._left)
            owed -= count
            if self._left is not None:
                self._left -= count
            start_us, now_us = _span(before_us, now_us)
            self._sender.send(self._faults.records(self._model.events(start_us, now_us, count)))
            before, before_us = now, now_us
            self._tell_systemd()
            if now - reported >= _REPORT_SECONDS:
                rate = (self._sender.sent - reported_sent) / (now - reported)
                log.info("sending", extra={"fields": {"per_second": round(rate, 1), **self._sender.counts()}})
                reported, reported_sent = now, self._sender.sent
        self._systemd.notify("STOPPING=1")
        self._sender.send(self._faults.rest())

    def _wait_for_kafka(self) -> bool:
        last_said = ""
        while not self._stop.is_set():
            wrong = self._sender.connect()
            if wrong is None:
                return True
            if wrong != last_said:
                log.warning("waiting for Kafka", extra={"fields": {"error": wrong}})
                last_said = wrong
            self._stop.wait(_RETRY_SECONDS)
        return False

    def _tell_systemd(self) -> None:
        if not self._ready and self._sender.sent:
            self._ready = True
            self._systemd.notify("READY=1")
            log.info("first event acknowledged")
        if self._watched:
            self._systemd.notify("WATCHDOG=1")


def _span(before_us: int, now_us: int) -> tuple[int, int]:
    """Return the interval of the next events' times, in microseconds since the epoch.

    :param before_us: end of the previous interval.
    :param now_us: the wall clock.
    """
    if 0 < before_us - now_us <= _HELD_US:
        # If the clock was set back a little, wait until it passes the previous events' end.
        now_us = before_us
    # If it was set back further, follow it: events that kept the old time would be from the future.
    return max(min(before_us, now_us), now_us - round(_CATCH_UP_SECONDS * 1e6)), now_us


class SenderCollector(Collector):
    """Reads the sender's counters at each scrape, so that the send path pays nothing for metrics."""

    def __init__(self, sender: Sender, rate: float) -> None:
        self._sender = sender
        self._rate = rate

    def collect(self) -> list[Metric]:
        """Return all metrics of the generator."""
        prefix = "streampulse_generator_"
        sender = self._sender
        return [
            CounterMetricFamily(f"{prefix}events_sent", "Events that Kafka acknowledged.", sender.sent),
            CounterMetricFamily(f"{prefix}events_failed", "Events that were given up.", sender.failed),
            CounterMetricFamily(
                f"{prefix}events_skipped", "Events not sent because too many were waiting.", sender.skipped
            ),
            GaugeMetricFamily(f"{prefix}events_pending", "Events that wait for acknowledgement.", sender.pending),
            GaugeMetricFamily(
                f"{prefix}target_events_per_second", "The rate that was asked for, events per second.", self._rate
            ),
            GaugeMetricFamily(
                f"{prefix}last_acknowledgement_timestamp_seconds",
                "When Kafka last acknowledged an event, in seconds since the epoch; 0 before the first.",
                sender.last_ack_timestamp,
            ),
        ]
