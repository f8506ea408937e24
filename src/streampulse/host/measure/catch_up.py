"""Catching up on a backlog: start the stopped job and time its commits until no record waits.

The rate is that between the first commit and the last, over the events of the batches in between. It excludes the job's
start, which is a figure of its own, and the first batch, which warms up Spark.
"""

import argparse
import time
from typing import Any

from streampulse.core.errors import OperatorError
from streampulse.core.settings import JobSettings, KafkaSettings, PostgresSettings, load
from streampulse.host.measure.ledger import LedgerWatch
from streampulse.host.measure.phases import Phases
from streampulse.host.measure.topic import Topic
from streampulse.host.measure.units import systemctl


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the measurement."""
    parser.add_argument("--unit", required=True, help="unit of the job, which is stopped")
    parser.add_argument("--timeout", type=float, default=600.0, help="in seconds (default: 600)")


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Start the job and return the seconds to the first commit, and the rate after it in records per second.

    :raises OperatorError: the job does not finish in time, or takes everything in one batch.
    """
    topic = Topic(load(KafkaSettings))
    ends = topic.ends()
    topic.close()
    phases = Phases(load(JobSettings))
    with LedgerWatch(load(PostgresSettings)) as watch:
        begun = time.time()
        systemctl("start", "--no-block", args.unit)
        watch.wait(
            lambda seen: all(seen.reached().get(number, 0) >= end for number, end in ends.items()),
            args.timeout,
            "the job has worked off the backlog",
        )
    commits = watch.commits
    read = [sum(commit.offsets.values()) for commit in commits]
    if len(commits) < 2:
        raise OperatorError("the backlog was one batch, which says nothing about the rate: give it more --backlog")
    return {
        "records": sum(ends.values()),
        "first_commit_seconds": commits[0].at - begun,
        "caught_up_seconds": commits[-1].at - begun,
        "batches": [
            {"records": after - before, "at_seconds": commit.at - begun}
            for commit, before, after in zip(commits, [0, *read], read, strict=False)
        ],
        "records_per_second": (read[-1] - read[0]) / (commits[-1].at - commits[0].at),
        "phase_seconds": phases.end(),
    }
