"""``streampulse probe``: send an event a minute, read it from the API and measure the lag, until SIGTERM."""

import argparse
import logging
import os
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import sdnotify
from prometheus_client import REGISTRY

from streampulse.core import kafka as core_kafka
from streampulse.core import logs as logfmt
from streampulse.core import metrics
from streampulse.core.settings import KafkaSettings, PostgresSettings, ProbeSettings, load, split
from streampulse.probe.api import Api, Requests
from streampulse.probe.event import Events
from streampulse.probe.ledger import Ledger
from streampulse.probe.part import Part
from streampulse.probe.pipeline import Figures, LedgerReader, TopicReader
from streampulse.probe.send import Sender
from streampulse.probe.topic import Topic

log = logging.getLogger(__name__)

_LOOK_SECONDS: Final = 5.0
#: Longer than any step: half a minute for an event, and a wait of a minute for the next.
HUNG_SECONDS: Final = 180.0
_END_SECONDS: Final = 0.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``streampulse probe``: none, its settings come from the environment."""
    del parser


def run(args: argparse.Namespace) -> int:
    """Probe until SIGTERM; 1 when a part hangs or has ended, so that the supervisor restarts the process.

    :raises OperatorError: the scrape endpoint cannot be opened.
    """
    del args
    kafka, postgres, settings = load(KafkaSettings), load(PostgresSettings), load(ProbeSettings)
    logfmt.configure()
    core_kafka.silence()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    key = settings.api_key.get_secret_value() if settings.api_key else None
    api = Api(split(settings.api_urls), key, settings.answer_seconds)
    sender = Sender(kafka, settings.visible_seconds)
    events = Events(sender, api, settings.event_second, settings.visible_seconds)
    requests = Requests(api, settings.interval_seconds)
    entries = LedgerReader(Ledger(postgres, settings.answer_seconds, _kept()), settings.interval_seconds)
    ledger = Part("ledger", entries.step)
    topics = TopicReader(
        Topic(kafka, settings.answer_seconds),
        entries.latest,
        ledger.wake,
        settings.interval_seconds,
        settings.answer_seconds + 1,
    )
    parts = [Part("event", events.step), Part("api", requests.step), ledger, Part("topic", topics.step)]
    REGISTRY.register(Figures(entries.latest, topics, settings.interval_seconds))
    metrics.serve(settings.metrics_host, settings.metrics_port)
    notifier = sdnotify.SystemdNotifier()
    notifier.notify("READY=1")
    log.info("running", extra={"fields": {"api": settings.api_urls, "brokers": kafka.bootstrap_servers}})
    for part in parts:
        part.start()
    try:
        while not stop.wait(_LOOK_SECONDS):
            hung = hanging(parts)
            if hung:
                log.error("a part gets nowhere: starting over", extra={"fields": {"parts": ",".join(hung)}})
                return 1
    finally:
        notifier.notify("STOPPING=1")
        events.stop()
        for part in parts:
            part.stop()
        deadline = time.monotonic() + _END_SECONDS
        for part in parts:
            part.join(max(0.0, deadline - time.monotonic()))
    log.info("stopped")
    return 0


def hanging(parts: Sequence[Part]) -> list[str]:
    """Return the names of the parts that have ended or are overdue."""
    limit = time.monotonic() - HUNG_SECONDS
    return [part.name for part in parts if not part.is_alive() or part.alive_at < limit]


def _kept() -> Path | None:
    """Return the file of the state that survives a restart, in systemd's state directory."""
    folder = os.environ.get("STATE_DIRECTORY")
    return Path(folder.split(":")[0]) / "dead-letters.json" if folder else None
