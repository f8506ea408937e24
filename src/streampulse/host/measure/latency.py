"""Latency from an event to its row, for every event under a steady load.

Each event's ``ts`` is the moment of its creation and each record's stamp the moment of its arrival at the broker. Both,
like the moments of commits, are of this host's wall clock. Events of the first seconds are not counted: the generator
connects and the job warms up.
"""

import argparse
import time
from typing import Any

from streampulse.core.errors import OperatorError
from streampulse.core.settings import JobSettings, KafkaSettings, PostgresSettings, load
from streampulse.host.measure.ledger import POLL_SECONDS, LedgerWatch
from streampulse.host.measure.load import Load
from streampulse.host.measure.match import Visibility, summary
from streampulse.host.measure.phases import Phases
from streampulse.host.measure.topic import Topic

_GRACE_SECONDS = 120.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the measurement."""
    parser.add_argument("--rate", type=float, required=True, help="events per second")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long it is measured (default: 60)")
    parser.add_argument("--settle", type=float, default=15.0, help="seconds before that (default: 15)")


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Apply the load and return the percentiles, in seconds.

    :raises OperatorError: the generator could not send, or the job did not commit in time.
    """
    kafka = load(KafkaSettings)
    topic = Topic(kafka)
    first = topic.ends()
    begun = time.time()
    phases = Phases(load(JobSettings))
    with LedgerWatch(load(PostgresSettings)) as watch:
        with Load(args.rate, round(args.rate * (args.settle + args.seconds))) as running:
            time.sleep(args.settle)
            phases.begin()
            running.finish(args.seconds + _GRACE_SECONDS)
        mean_phases = phases.end()
        last = topic.ends()
        watch.wait(
            lambda seen: all(
                seen.reached().get(number, 0) >= end for number, end in last.items() if end > first[number]
            ),
            _GRACE_SECONDS,
            "the job has counted what was sent",
        )
    visible = Visibility(watch.commits)
    from_creation, from_arrival = [], []
    newest = 0.0
    for record in topic.between(first, last):
        seen = visible.at(record.partition, record.offset)
        if seen is None or record.created is None or record.created < begun + args.settle:
            continue
        newest = max(newest, record.created)
        from_creation.append(seen - record.created)
        from_arrival.append(seen - record.arrived)
    topic.close()
    if not from_creation:
        raise OperatorError("no event was sent in the time that is measured: inv logs job")
    batches = sum(1 for commit in watch.commits if commit.at >= begun + args.settle)
    return {
        "rate": args.rate,
        "sent_per_second": len(from_creation) / (newest - begun - args.settle),
        "batches": batches,
        "poll_seconds": POLL_SECONDS,
        "from_creation": summary(from_creation),
        "from_arrival": summary(from_arrival),
        "phase_seconds": mean_phases,
    }
