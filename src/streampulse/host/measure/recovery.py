"""Recovery from kill -9: the time to the first commit of a later event, per service, under a steady load."""

import argparse
import os
import signal
import time
from collections.abc import Iterable
from typing import Any, Final

from streampulse.core.errors import OperatorError
from streampulse.core.settings import KafkaSettings, PostgresSettings, load
from streampulse.host.measure.ledger import LedgerWatch
from streampulse.host.measure.load import Load
from streampulse.host.measure.match import Visibility
from streampulse.host.measure.topic import Arrival, Topic
from streampulse.host.measure.units import EXECUTOR, main_pid, processes

_SETTLE_SECONDS: Final = 5.0
_PATIENCE_SECONDS: Final = 120.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the measurement."""
    parser.add_argument(
        "targets", nargs="+", metavar="NAME=UNIT", help="what is killed; `executor` without a unit is an executor"
    )
    parser.add_argument("--rate", type=float, default=300.0, help="events per second during it (default: 300)")


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Kill the services one after the other and return for each the seconds until the numbers were current.

    ``to_commit`` is the time from the kill to the first commit with a record that arrived after it. ``longest_wait`` is
    the longest time that any record that arrived after the kill waited for its commit.

    :raises OperatorError: a service does not run, or does not come back.
    """
    topic = Topic(load(KafkaSettings))
    kills: list[tuple[str, float]] = []
    with Load(args.rate), LedgerWatch(load(PostgresSettings)) as watch:
        _wait_for_more(watch, 2)
        first = topic.ends()
        for target in args.targets:
            name, _, unit = target.partition("=")
            time.sleep(_SETTLE_SECONDS)
            pid = main_pid(unit) if unit else _executor()
            killed = time.time()
            os.kill(pid, signal.SIGKILL)
            kills.append((name, killed))
            _wait_past(watch, topic, killed, name)
        last = topic.ends()
        _wait_for_more(watch, 2)
    records = list(topic.between(first, last))
    topic.close()
    found = {}
    borders = [*kills[1:], ("", float("inf"))]
    for (name, killed), (_, next_kill) in zip(kills, borders, strict=True):
        times = between(records, Visibility(watch.commits), killed, next_kill)
        if times is None:
            raise OperatorError(f"no event arrived after {name} was killed: inv logs kafka")
        found[name] = times
    return found


def between(
    records: Iterable[Arrival], visible: Visibility, killed: float, next_kill: float
) -> dict[str, float] | None:
    """Return the waits of the records that arrived after a kill and were visible before the next one.

    :param killed: seconds since the epoch, as ``next_kill``.
    :returns: None where there are none.
    """
    waits = [
        (seen, seen - record.arrived)
        for record in records
        if record.arrived > killed
        and (seen := visible.at(record.partition, record.offset)) is not None
        and seen < next_kill
    ]
    if not waits:
        return None
    return {
        "to_commit_seconds": min(seen for seen, _ in waits) - killed,
        "longest_wait_seconds": max(wait for _, wait in waits),
    }


def _executor() -> int:
    for process in processes():
        if EXECUTOR in process.words:
            return process.pid
    raise OperatorError("no executor of Spark runs here: inv logs job")


def _wait_for_more(watch: LedgerWatch, commits: int) -> None:
    wanted = len(watch.commits) + commits
    watch.wait(lambda seen: len(seen.commits) >= wanted, _PATIENCE_SECONDS, "the job commits batches")


def _wait_past(watch: LedgerWatch, topic: Topic, killed: float, name: str) -> None:
    """Wait until records that arrived after the kill are visible and the load is steady."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    # Clients of a killed broker are still affected.
    while True:
        time.sleep(1.0)
        try:
            ends = topic.ends()
            break
        except OperatorError:
            if time.monotonic() > deadline:
                raise
    time.sleep(1.0)
    watch.wait(
        lambda seen: (
            any(seen.reached().get(number, 0) > end for number, end in ends.items()) and seen.commits[-1].at > killed
        ),
        _PATIENCE_SECONDS,
        f"the job commits new events after {name} was killed",
    )
